// The forward pass of Llama-shaped models with matrices in 8 bit, fused: one call reads the next tokens of several texts.
//
// Products are those of quantize.py: a row of the input is two digits of 8 bit (or one), sums are whole numbers. Attention works
// through the keys in chunks of fixed size, merged in order. So a token's result has the same bits whatever is read beside
// it, in however many pieces and threads. Sizes: T tokens, N hidden, H query heads, G key/value heads, D head size.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <thread>
#include <type_traits>
#include <vector>

#ifdef __AVX512F__
#include <immintrin.h>
#endif
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VNNI__)
#define FACTFORM_VNNI 1
#endif

// Small loops over sums that are to stay in registers.
#define UNROLL _Pragma("GCC unroll 16")

#ifdef _OPENMP
#include <omp.h>
#endif

extern "C" {

// A matrix [out, in] packed in panels of 16 rows, four columns of a row side by side: [out / 16][in / 4][16][4]. Rows and
// columns are padded with zeros. `sums` [out] are 128 times each row's sum: the input's digits are stored 128 too large.
struct Matrix {
    const int8_t* packed;
    const float* scales;
    const int32_t* sums;
    const float* bias;  // or null
    int32_t out, in;
};

struct Layer {
    const float* attention_norm;
    const float* mlp_norm;
    const float* query_norm;  // or null
    const float* key_norm;    // or null
    Matrix qkv, output, gate_up, down;
    int32_t rotated;
};

struct Model {
    const float* embedding;  // [V, N]
    const float* norm;
    const Layer* layers;
    int32_t layer_count, hidden, heads, kv_heads, head_dim, intermediate;
    float eps;
};

// A layer of an encoder (BERT): every token attends to all of its text, norms follow the sums.
struct EncoderLayer {
    const float* attention_norm;  // weight, then bias: [2, N]
    const float* output_norm;
    Matrix qkv, output, inner, outer;
};

struct Encoder {
    const EncoderLayer* layers;
    int32_t layer_count, hidden, heads, intermediate, digits;
    float eps;
};

// Tokens of one text. `keys` and `values` are [L, G, capacity, D] and hold `held` tokens; `raw` [L, G, count, D], or null,
// receives the keys before rotation.
struct Piece {
    float* keys;
    float* values;
    float* raw;
    int64_t capacity;
    int32_t held, count;
};

// A block's keys before rotation and values as they are kept, [L, G, length, D]: a key is key_scales * keys + key_centers,
// [L, G, runs, D], one for each run of tokens; a value is value_scales [L, G, length] * values.
struct Kept {
    const int8_t* keys;
    const int8_t* values;
    const float* key_scales;
    const float* key_centers;
    const float* value_scales;
    const uint8_t* rotated;  // [L]
    int32_t layers, groups, size, length, run;
};
}

namespace {

constexpr int PANEL = 16;      // rows of a matrix that are computed side by side
constexpr int PANELS = 3;      // panels and
constexpr int ROWS = 8;        // rows of digits whose sums are kept in registers
constexpr int ROW_BLOCK = 64;  // tokens whose digits stay in the core's own cache while panels go by
constexpr int TILE = 64;       // keys turned at once
constexpr int CHUNK = 256;     // keys whose softmax is computed by itself
constexpr int QUERIES = 96;    // query rows (heads of a group times tokens) that share a pass over a chunk
constexpr float STEPS = 127.0f;
constexpr float NEAREST = 12582912.0f;  // added and taken away, it leaves the nearest whole number

typedef float Lanes __attribute__((vector_size(64), aligned(4), may_alias));
typedef int32_t Whole __attribute__((vector_size(64)));
typedef uint8_t Bytes __attribute__((vector_size(16), aligned(1), may_alias));
typedef int8_t Signed __attribute__((vector_size(16), aligned(1), may_alias));

inline Lanes load(const float* at) { return *reinterpret_cast<const Lanes*>(at); }
inline void store(float* at, Lanes x) { *reinterpret_cast<Lanes*>(at) = x; }
inline Lanes load(const int8_t* at) { return __builtin_convertvector(*reinterpret_cast<const Signed*>(at), Lanes); }
#ifdef __AVX512F__
// What `load` gives; from bytes to floats in one step GCC converts them one by one, which takes eight times as long.
inline Lanes widened(const int8_t* at) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
    return (Lanes)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes));
}
#else
inline Lanes widened(const int8_t* at) { return load(at); }
#endif
inline Lanes larger(Lanes a, Lanes b) { return a > b ? a : b; }

inline float sum_of(Lanes x) {
    float sum = 0.0f;
    for (int i = 0; i < 16; i++) sum += x[i];
    return sum;
}

inline float largest_of(Lanes x) {
    float most = x[0];
    for (int i = 1; i < 16; i++) most = std::max(most, x[i]);
    return most;
}

// Whether one of the numbers is at least `least`.
inline bool reaches(Lanes x, float least) {
#ifdef FACTFORM_VNNI
    return _mm512_cmp_ps_mask(reinterpret_cast<__m512>(x), _mm512_set1_ps(least), _CMP_GE_OQ) != 0;
#else
    return largest_of(x) >= least;
#endif
}

// exp by 2^n times a polynomial (Cephes' expf), of numbers taken to lie within +-87; relative error below 2e-7.
inline Lanes fast_exp(Lanes x) {
    const Lanes most = Lanes{} + 87.0f;
    x = larger(x, -most);
    x = x < most ? x : most;
    const Lanes shifted = x * 1.44269504f + NEAREST;  // which has the nearest n in its low bits
    const Lanes n = shifted - NEAREST;
    const Lanes r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    Lanes p = Lanes{} + 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    const Whole bits = (reinterpret_cast<const Whole&>(shifted) + 127) << 23;
    return p * reinterpret_cast<const Lanes&>(bits);
}

int padded(int n, int to) { return (n + to - 1) / to * to; }

// Where threads wait for each other. OpenMP's own stops waiting actively as soon as the process has more of its threads
// than cores, which costs more than the work between two barriers; this one gives the core up only after SPINS looks.
class Barrier {
   public:
    void wait(int threads) {
        if (threads == 1) return;
        const int round = round_.load(std::memory_order_acquire);
        if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == threads) {
            arrived_.store(0, std::memory_order_relaxed);
            round_.store(round + 1, std::memory_order_release);
            return;
        }
        for (int looks = 0; round_.load(std::memory_order_acquire) == round; looks++) {
            if (looks < SPINS)
                rest();
            else
                std::this_thread::yield();
        }
    }

   private:
    static constexpr int SPINS = 20000;
    static void rest() {
#if defined(__x86_64__)
        __builtin_ia32_pause();
#endif
    }
    std::atomic<int> arrived_{0}, round_{0};
};

// Run `work(id, threads, barrier)` in so many threads.
template <class Work>
void in_parallel(int threads, Work work) {
    Barrier barrier;
#ifdef _OPENMP
#pragma omp parallel num_threads(threads)
    work(omp_get_thread_num(), omp_get_num_threads(), barrier);
#else
    (void)threads;
    work(0, 1, barrier);
#endif
}

// The part of `count` that thread `id` of `threads` works on.
struct Span {
    int64_t first, end;
};
Span part(int64_t count, int id, int threads) { return {count * id / threads, count * (id + 1) / threads}; }

// --- digits ---------------------------------------------------------------------------------------------------------

// Rows of input as two digits each (or one, rounded), 128 too large, and each row's unit.
struct Digits {
    std::vector<uint8_t> values;
    std::vector<float> units;
    int64_t stride = 0;
    int each = 2;
    void size(int rows, int columns, int digits) {
        each = digits;
        stride = padded(columns, 64);
        values.resize(static_cast<size_t>(each * rows) * stride);
        units.resize(rows);
    }
    uint8_t* row(int64_t index) { return values.data() + each * index * stride; }
};

// Row `row` of `digits` from `x` [n]. What follows a row up to a multiple of 16 is never read: products end before it.
void to_digits(const float* x, int n, Digits& digits, int row) {
    const int whole = n / 16 * 16;
    Lanes most = {};
    for (int i = 0; i < whole; i += 16) most = larger(most, larger(load(x + i), -load(x + i)));
    float largest = largest_of(most);
    for (int i = whole; i < n; i++) largest = std::max(largest, std::fabs(x[i]));
    const float unit = std::max(largest / STEPS, std::numeric_limits<float>::min());
    uint8_t* first = digits.row(row);
    uint8_t* second = first + digits.stride;
    const bool two = digits.each == 2;
    for (int i = 0; i < whole; i += 16) {
        const Lanes exact = load(x + i) / unit;
        const Whole digit = __builtin_convertvector(two ? exact : exact + NEAREST - NEAREST, Whole);
        *reinterpret_cast<Bytes*>(first + i) = __builtin_convertvector(digit + 128, Bytes);
        if (!two) continue;
        const Whole rest = __builtin_convertvector((exact - __builtin_convertvector(digit, Lanes)) * STEPS, Whole);
        *reinterpret_cast<Bytes*>(second + i) = __builtin_convertvector(rest + 128, Bytes);
    }
    for (int i = whole; i < n; i++) {
        const float exact = x[i] / unit;
        const int32_t digit = static_cast<int32_t>(two ? exact : exact + NEAREST - NEAREST);
        first[i] = static_cast<uint8_t>(digit + 128);
        if (two) second[i] = static_cast<uint8_t>(static_cast<int32_t>((exact - static_cast<float>(digit)) * STEPS) + 128);
    }
    for (int i = n; i < padded(n, 4); i++) {
        first[i] = 128;
        if (two) second[i] = 128;
    }
    digits.units[row] = unit;
}

// --- products -------------------------------------------------------------------------------------------------------

// Sums of R rows of digits with P panels: what a tile of the output is made from.
template <int R, int P>
void sums_of(const int8_t* panels, int64_t panel_bytes, int quads, const uint8_t* digits, int64_t stride,
             int32_t* sums) {
#ifdef FACTFORM_VNNI
    __m512i acc[R][P];
    UNROLL
    for (int r = 0; r < R; r++)
        UNROLL
        for (int p = 0; p < P; p++) acc[r][p] = _mm512_setzero_si512();
    for (int k = 0; k < quads; k++) {
        __m512i w[P];
        UNROLL
        for (int p = 0; p < P; p++) w[p] = _mm512_loadu_si512(panels + p * panel_bytes + k * 64);
        UNROLL
        for (int r = 0; r < R; r++) {
            int32_t four;
            std::memcpy(&four, digits + r * stride + 4 * k, 4);
            const __m512i x = _mm512_set1_epi32(four);
            UNROLL
            for (int p = 0; p < P; p++) acc[r][p] = _mm512_dpbusd_epi32(acc[r][p], x, w[p]);
        }
    }
    UNROLL
    for (int r = 0; r < R; r++)
        UNROLL
        for (int p = 0; p < P; p++) _mm512_storeu_si512(sums + (r * P + p) * PANEL, acc[r][p]);
#else
    std::memset(sums, 0, sizeof(int32_t) * R * P * PANEL);
    for (int p = 0; p < P; p++)
        for (int k = 0; k < quads; k++) {
            const int8_t* w = panels + p * panel_bytes + k * 64;
            for (int r = 0; r < R; r++) {
                const uint8_t* x = digits + r * stride + 4 * k;
                int32_t* sum = sums + (r * P + p) * PANEL;
                for (int j = 0; j < PANEL; j++)
                    sum[j] += x[0] * w[4 * j] + x[1] * w[4 * j + 1] + x[2] * w[4 * j + 2] + x[3] * w[4 * j + 3];
            }
        }
#endif
}

template <int R, int P, int G>
void tile(const Matrix& m, int panel, Digits& digits, int row, float* out, int64_t stride, bool add) {
    alignas(64) int32_t sums[G * R * P * PANEL];
    const int quads = padded(m.in, 4) / 4;
    const int64_t bytes = static_cast<int64_t>(quads) * 64;
    sums_of<G * R, P>(m.packed + panel * bytes, bytes, quads, digits.row(row), digits.stride, sums);
    for (int r = 0; r < R; r++)
        for (int p = 0; p < P; p++) {
            const int at = (panel + p) * PANEL;
            const int32_t* first = sums + (G * r * P + p) * PANEL;
            const int32_t* second = first + P * PANEL;
            float* y = out + (row + r) * stride + at;
            const float unit = digits.units[row + r];
            for (int j = 0; j < PANEL; j++) {
                float value = static_cast<float>(first[j] - m.sums[at + j]);
                if (G == 2) value += static_cast<float>(second[j] - m.sums[at + j]) * (1.0f / STEPS);
                value = value * unit * m.scales[at + j];
                if (m.bias) value += m.bias[at + j];
                y[j] = add ? y[j] + value : value;
            }
        }
}

template <int P, int G>
void tiles(const Matrix& m, int panel, Digits& digits, int row, int end, float* out, int64_t stride, bool add) {
    constexpr int MOST = ROWS / G;
    for (; row + MOST <= end; row += MOST) tile<MOST, P, G>(m, panel, digits, row, out, stride, add);
    if (G == 1 && row + 4 <= end) {
        tile<4, P, G>(m, panel, digits, row, out, stride, add);
        row += 4;
    }
    switch (end - row) {
        case 3: tile<3, P, G>(m, panel, digits, row, out, stride, add); break;
        case 2: tile<2, P, G>(m, panel, digits, row, out, stride, add); break;
        case 1: tile<1, P, G>(m, panel, digits, row, out, stride, add); break;
        default: break;
    }
}

template <int P>
void tiles(const Matrix& m, int panel, Digits& digits, int row, int end, float* out, int64_t stride, bool add) {
    if (digits.each == 2)
        tiles<P, 2>(m, panel, digits, row, end, out, stride, add);
    else
        tiles<P, 1>(m, panel, digits, row, end, out, stride, add);
}

// This thread's part of the product of all rows with `m`, into (or added to) `out` [rows, stride].
void product(const Matrix& m, Digits& digits, int rows, float* out, int64_t stride, bool add, int id, int threads) {
    const int panels = padded(m.out, PANEL) / PANEL, groups = (panels + PANELS - 1) / PANELS;
    const int blocks = (rows + ROW_BLOCK - 1) / ROW_BLOCK;
    const Span mine = part(static_cast<int64_t>(groups) * blocks, id, threads);
    for (int64_t unit = mine.first; unit < mine.end; unit++) {
        const int row = static_cast<int>(unit / groups) * ROW_BLOCK, end = std::min(rows, row + ROW_BLOCK);
        const int panel = static_cast<int>(unit % groups) * PANELS;
        switch (std::min(PANELS, panels - panel)) {
            case 3: tiles<3>(m, panel, digits, row, end, out, stride, add); break;
            case 2: tiles<2>(m, panel, digits, row, end, out, stride, add); break;
            default: tiles<1>(m, panel, digits, row, end, out, stride, add); break;
        }
    }
}

// --- attention ------------------------------------------------------------------------------------------------------

#ifdef FACTFORM_VNNI
inline void transpose16(const float* from, int64_t stride, float* to, int64_t to_stride) {
    __m512 r[16], t[16];
    for (int i = 0; i < 16; i++) r[i] = _mm512_loadu_ps(from + i * stride);
    for (int i = 0; i < 8; i++) {
        t[2 * i] = _mm512_unpacklo_ps(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_ps(r[2 * i], r[2 * i + 1]);
    }
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 2; j++) {
            const __m512d a = _mm512_castps_pd(t[4 * i + j]), b = _mm512_castps_pd(t[4 * i + 2 + j]);
            r[4 * i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
            r[4 * i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
        }
    for (int i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0xdd);
    }
    for (int i = 0; i < 4; i++) {
        _mm512_storeu_ps(to + i * to_stride, _mm512_shuffle_f32x4(t[i], t[i + 8], 0x88));
        _mm512_storeu_ps(to + (i + 8) * to_stride, _mm512_shuffle_f32x4(t[i], t[i + 8], 0xdd));
        _mm512_storeu_ps(to + (i + 4) * to_stride, _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0x88));
        _mm512_storeu_ps(to + (i + 12) * to_stride, _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0xdd));
    }
}
#else
inline void transpose16(const float* from, int64_t stride, float* to, int64_t to_stride) {
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 16; j++) to[j * to_stride + i] = from[i * stride + j];
}
#endif

// `count` keys [count, D] into `turned` [D][TILE]; what is beyond `count` becomes 0.
void turn_tile(const float* keys, int count, int size, float* turned) {
    for (int j = 0; j < TILE; j += 16) {
        if (j + 16 <= count) {
            for (int d = 0; d < size; d += 16) transpose16(keys + j * size + d, size, turned + d * TILE + j, TILE);
            continue;
        }
        for (int i = j; i < j + 16; i++)
            for (int d = 0; d < size; d++) turned[d * TILE + i] = i < count ? keys[i * size + d] : 0.0f;
    }
}

template <int R>
void score_rows(const float* queries, const float* turned, int size, float* scores) {
    Lanes acc[R][TILE / 16] = {};
    for (int d = 0; d < size; d++) {
        Lanes k[TILE / 16];
        UNROLL
        for (int i = 0; i < TILE / 16; i++) k[i] = load(turned + d * TILE + 16 * i);
        UNROLL
        for (int r = 0; r < R; r++)
            UNROLL
            for (int i = 0; i < TILE / 16; i++) acc[r][i] += queries[r * size + d] * k[i];
    }
    UNROLL
    for (int r = 0; r < R; r++)
        UNROLL
        for (int i = 0; i < TILE / 16; i++) store(scores + r * CHUNK + 16 * i, acc[r][i]);
}

// Add to W lanes of `out` [R, stride] the rows of shares [R, CHUNK] times values [count, D].
template <int R, int W>
void mix_lanes(const float* shares, const float* values, int count, int size, float* out, int64_t stride) {
    Lanes acc[R][W];
    UNROLL
    for (int r = 0; r < R; r++)
        UNROLL
        for (int i = 0; i < W; i++) acc[r][i] = load(out + r * stride + 16 * i);
    for (int j = 0; j < count; j++) {
        Lanes v[W];
        UNROLL
        for (int i = 0; i < W; i++) v[i] = load(values + j * size + 16 * i);
        UNROLL
        for (int r = 0; r < R; r++)
            UNROLL
            for (int i = 0; i < W; i++) acc[r][i] += shares[r * CHUNK + j] * v[i];
    }
    UNROLL
    for (int r = 0; r < R; r++)
        UNROLL
        for (int i = 0; i < W; i++) store(out + r * stride + 16 * i, acc[r][i]);
}

template <int R>
void mix_rows(const float* shares, const float* values, int count, int size, float* out, int64_t stride) {
    int d = 0;
    for (; d + 64 <= size; d += 64) mix_lanes<R, 4>(shares, values + d, count, size, out + d, stride);
    for (; d < size; d += 16) mix_lanes<R, 1>(shares, values + d, count, size, out + d, stride);
}

// Call `rows(R, first)` for all of `count` rows, four at a time as long as there are four.
template <class Rows>
void in_fours(int count, Rows rows) {
    int r = 0;
    for (; r + 4 <= count; r += 4) rows(std::integral_constant<int, 4>(), r);
    if (count - r == 3) rows(std::integral_constant<int, 3>(), r);
    if (count - r == 2) rows(std::integral_constant<int, 2>(), r);
    if (count - r == 1) rows(std::integral_constant<int, 1>(), r);
}

// In place: scores [CHUNK] of which `seen` count, to exp(score - largest). Gives the largest and the sum.
void soften(float* scores, int seen, float* largest, float* sum) {
    const int whole = padded(seen, 16);
    std::fill(scores + seen, scores + whole, -std::numeric_limits<float>::infinity());
    Lanes most = load(scores);
    for (int j = 16; j < whole; j += 16) most = larger(most, load(scores + j));
    const float top = largest_of(most);
    Lanes total = {};
    for (int j = 0; j < whole; j += 16) {
        const Lanes score = load(scores + j), share = score > -3e38f ? fast_exp(score - top) : Lanes{};
        store(scores + j, share);
        total += share;
    }
    std::fill(scores + whole, scores + CHUNK, 0.0f);
    *largest = top;
    *sum = sum_of(total);
}

// The heads of a model, and whether a token sees only those before it.
struct Heads {
    int count, groups, size;
    bool causal;
    int shared() const { return count / groups; }
};

// Queries of one group of heads and some tokens of one text, with one chunk of its keys.
struct Unit {
    int piece, group, token, tokens, chunk;
    int64_t place;  // of its results among the partial ones, in rows
};

// What a chunk gives for a row: D mixed values, the largest score, the sum.
int64_t partial_size(int size) { return size + 16; }

void attend(const Heads& heads, const Piece& piece, int row, const Unit& unit, int layer, const float* qkv,
            int64_t qkv_stride, std::vector<float>& room, float* partial) {
    const int size = heads.size, shared = heads.shared(), rows = shared * unit.tokens;
    room.resize(QUERIES * (size + CHUNK) + TILE * size);
    float* queries = room.data();
    float* scores = queries + QUERIES * size;
    float* turned = scores + QUERIES * CHUNK;
    const float scale = 1.0f / std::sqrt(static_cast<float>(size));
    for (int t = 0; t < unit.tokens; t++)
        for (int s = 0; s < shared; s++) {
            const float* q = qkv + (row + unit.token + t) * qkv_stride + (unit.group * shared + s) * size;
            for (int d = 0; d < size; d++) queries[(t * shared + s) * size + d] = q[d] * scale;
        }
    const int64_t at = (static_cast<int64_t>(layer) * heads.groups + unit.group) * piece.capacity + unit.chunk * CHUNK;
    const int first = unit.chunk * CHUNK;
    const int count = std::min(CHUNK, (heads.causal ? piece.held + unit.token + unit.tokens : piece.held + piece.count) - first);
    for (int j = 0; j < count; j += TILE) {
        turn_tile(piece.keys + (at + j) * size, std::min(TILE, count - j), size, turned);
        in_fours(rows, [&](auto fours, int r) {
            score_rows<fours()>(queries + r * size, turned, size, scores + r * CHUNK + j);
        });
    }
    for (int t = 0; t < unit.tokens; t++)
        for (int s = 0; s < shared; s++) {
            const int r = t * shared + s, seen = heads.causal ? std::clamp(piece.held + unit.token + t + 1 - first, 0, count) : count;
            float* result = partial + (unit.place + r) * partial_size(size) + size;
            if (seen) {
                soften(scores + r * CHUNK, seen, result, result + 1);
            } else {
                std::fill(scores + r * CHUNK, scores + (r + 1) * CHUNK, 0.0f);
                result[1] = 0.0f;
            }
        }
    const int64_t stride = partial_size(size);
    float* out = partial + unit.place * stride;
    for (int r = 0; r < rows; r++) std::fill_n(out + r * stride, size, 0.0f);
    for (int j = 0; j < count; j += TILE)
        in_fours(rows, [&](auto fours, int r) {
            mix_rows<fours()>(scores + r * CHUNK + j, piece.values + (at + j) * size, std::min(TILE, count - j), size,
                              out + r * stride, stride);
        });
}

// Which units there are, and where each token's results begin: [token] -> place of chunk 0, group 0.
struct Plan {
    std::vector<Unit> units;
    std::vector<int> piece_of, row_of;  // [T] the piece of a token; [pieces] a piece's first token
    int64_t rows = 0;
};

Plan plan_of(const Heads& heads, const Piece* pieces, int count) {
    Plan plan;
    const int shared = heads.shared(), most = std::max(1, QUERIES / shared);
    for (int p = 0, row = 0; p < count; row += pieces[p].count, p++) {
        plan.row_of.push_back(row);
        plan.piece_of.insert(plan.piece_of.end(), pieces[p].count, p);
        for (int token = 0; token < pieces[p].count; token += most) {
            const int tokens = std::min(most, pieces[p].count - token);
            const int keys = pieces[p].held + (heads.causal ? token + tokens : pieces[p].count);
            const int chunks = (keys + CHUNK - 1) / CHUNK;
            for (int group = 0; group < heads.groups; group++)
                for (int chunk = 0; chunk < chunks; chunk++, plan.rows += shared * tokens)
                    plan.units.push_back({p, group, token, tokens, chunk, plan.rows});
        }
    }
    return plan;
}

// Merge the chunks of one unit's rows, in order (Milakov and Gimelshein 2018), into `mixed` [T, H D]. `first` is chunk 0's.
void merge(const Heads& heads, const Plan& plan, size_t first, const float* partial, float* mixed) {
    const Unit& unit = plan.units[first];
    const int size = heads.size, shared = heads.shared();
    for (int t = 0; t < unit.tokens; t++)
        for (int s = 0; s < shared; s++) {
            const int64_t token = plan.row_of[unit.piece] + unit.token + t;
            float* out = mixed + (token * heads.count + unit.group * shared + s) * size;
            float most = -std::numeric_limits<float>::infinity(), sum = 0.0f;
            std::fill(out, out + size, 0.0f);
            for (size_t u = first; u < plan.units.size() && (u == first || plan.units[u].chunk); u++) {
                const float* one = partial + (plan.units[u].place + t * shared + s) * partial_size(size);
                if (one[size + 1] == 0.0f) continue;  // a chunk that this token does not see
                const float top = std::max(most, one[size]);
                const float old = sum > 0.0f ? std::exp(most - top) : 0.0f, now = std::exp(one[size] - top);
                for (int d = 0; d < size; d++) out[d] = out[d] * old + one[d] * now;
                sum = sum * old + one[size + 1] * now;
                most = top;
            }
            for (int d = 0; d < size; d++) out[d] /= sum;
        }
}

// --- rows -----------------------------------------------------------------------------------------------------------

void rms_norm(const float* x, const float* weight, int n, float eps, float* out) {
    Lanes squares = {};
    for (int i = 0; i < n; i += 16) squares += load(x + i) * load(x + i);
    const float scale = 1.0f / std::sqrt(sum_of(squares) / static_cast<float>(n) + eps);
    for (int i = 0; i < n; i += 16) store(out + i, load(x + i) * scale * load(weight + i));
}

void rotate(float* x, const float* cos, const float* sin, int size) {
    for (int d = 0; d < size / 2; d++) {
        const float low = x[d], high = x[d + size / 2];
        x[d] = low * cos[d] + high * sin[d];
        x[d + size / 2] = high * cos[d + size / 2] + low * sin[d + size / 2];
    }
}

// Norms and rotation of one token's heads; its key and value go where the text's are held.
void place_heads(const Model& m, const Layer& layer, int index, const Piece& piece, int token, float* qkv,
                 const float* cos, const float* sin) {
    const int size = m.head_dim;
    for (int h = 0; h < m.heads + m.kv_heads; h++) {
        float* head = qkv + h * size;
        const float* weight = h < m.heads ? layer.query_norm : layer.key_norm;
        if (weight) rms_norm(head, weight, size, m.eps, head);
        if (h >= m.heads && piece.raw) {
            const int64_t at = (static_cast<int64_t>(index) * m.kv_heads + h - m.heads) * piece.count + token;
            std::copy(head, head + size, piece.raw + at * size);
        }
        if (layer.rotated) rotate(head, cos, sin, size);
    }
    for (int g = 0; g < m.kv_heads; g++) {
        const int64_t at =
            ((static_cast<int64_t>(index) * m.kv_heads + g) * piece.capacity + piece.held + token) * size;
        const float* key = qkv + (m.heads + g) * size;
        const float* value = key + m.kv_heads * size;
        std::copy(key, key + size, piece.keys + at);
        std::copy(value, value + size, piece.values + at);
    }
}

void gate(const float* gate_up, int n, float* out) {
    for (int i = 0; i < n; i += 16) {
        const Lanes x = load(gate_up + i);
        store(out + i, x / (1.0f + fast_exp(-x)) * load(gate_up + n + i));
    }
}

// --- kept blocks ----------------------------------------------------------------------------------------------------

// Keys and values of one layer and group of a block, where a text holds them from its first token of the block on.
void place_group(const Kept& kept, int64_t at, const float* cos, const float* sin, float* keys, float* values) {
    const int size = kept.size, runs = (kept.length + kept.run - 1) / kept.run;
    const bool turned = kept.rotated[at / kept.groups];
    for (int t = 0; t < kept.length; t++) {
        const int64_t token = at * kept.length + t, run = (at * runs + t / kept.run) * size;
        const int8_t* from = kept.keys + token * size;
        float* key = keys + static_cast<int64_t>(t) * size;
        for (int d = 0; d < size; d += 16)
            store(key + d, load(from + d) * load(kept.key_scales + run + d) + load(kept.key_centers + run + d));
        if (turned) rotate(key, cos + static_cast<int64_t>(t) * size, sin + static_cast<int64_t>(t) * size, size);
        float* value = values + static_cast<int64_t>(t) * size;
        for (int d = 0; d < size; d += 16)
            store(value + d, load(kept.values + token * size + d) * kept.value_scales[token]);
    }
}

// --- all layers -----------------------------------------------------------------------------------------------------

struct Room {
    std::vector<float> hidden, wide, mixed, partial;
    Digits digits;
};

struct Call {
    const Model& m;
    const Heads& heads;
    const Piece* pieces;
    const Plan& plan;
    const std::vector<size_t>& firsts;
    const float* cos;
    const float* sin;
    int tokens;
    int64_t qkv_stride, gate_stride;
};

void run_layer(const Call& call, Room& room, int index, int id, int threads, Barrier& barrier,
               std::vector<float>& own) {
    const Model& m = call.m;
    const Layer& layer = m.layers[index];
    const Span rows = part(call.tokens, id, threads);
    own.resize(std::max({m.hidden, m.intermediate, 1}));
    auto normed = [&](const float* weight) {
        for (int64_t t = rows.first; t < rows.end; t++) {
            rms_norm(room.hidden.data() + t * m.hidden, weight, m.hidden, m.eps, own.data());
            to_digits(own.data(), m.hidden, room.digits, static_cast<int>(t));
        }
    };
    normed(layer.attention_norm);
    barrier.wait(threads);
    product(layer.qkv, room.digits, call.tokens, room.wide.data(), call.qkv_stride, false, id, threads);
    barrier.wait(threads);
    for (int64_t t = rows.first; t < rows.end; t++) {
        const int piece = call.plan.piece_of[t], token = static_cast<int>(t) - call.plan.row_of[piece];
        place_heads(m, layer, index, call.pieces[piece], token, room.wide.data() + t * call.qkv_stride,
                    call.cos + t * m.head_dim, call.sin + t * m.head_dim);
    }
    barrier.wait(threads);
    const Span units = part(static_cast<int64_t>(call.plan.units.size()), id, threads);
    std::vector<float> attention;
    for (int64_t u = units.first; u < units.end; u++) {
        const Unit& unit = call.plan.units[u];
        attend(call.heads, call.pieces[unit.piece], call.plan.row_of[unit.piece], unit, index, room.wide.data(),
               call.qkv_stride, attention, room.partial.data());
    }
    barrier.wait(threads);
    const Span merges = part(static_cast<int64_t>(call.firsts.size()), id, threads);
    for (int64_t f = merges.first; f < merges.end; f++)
        merge(call.heads, call.plan, call.firsts[f], room.partial.data(), room.mixed.data());
    barrier.wait(threads);
    const int heads = m.heads * m.head_dim;
    for (int64_t t = rows.first; t < rows.end; t++)
        to_digits(room.mixed.data() + t * heads, heads, room.digits, static_cast<int>(t));
    barrier.wait(threads);
    product(layer.output, room.digits, call.tokens, room.hidden.data(), m.hidden, true, id, threads);
    barrier.wait(threads);
    normed(layer.mlp_norm);
    barrier.wait(threads);
    product(layer.gate_up, room.digits, call.tokens, room.wide.data(), call.gate_stride, false, id, threads);
    barrier.wait(threads);
    for (int64_t t = rows.first; t < rows.end; t++) {
        gate(room.wide.data() + t * call.gate_stride, m.intermediate, own.data());
        to_digits(own.data(), m.intermediate, room.digits, static_cast<int>(t));
    }
    barrier.wait(threads);
    product(layer.down, room.digits, call.tokens, room.hidden.data(), m.hidden, true, id, threads);
    barrier.wait(threads);
}

// --- encoders -------------------------------------------------------------------------------------------------------

// Mean 0 and variance 1, times a weight [N], plus a bias [N] that follows it.
void layer_norm(float* x, const float* weight, int n, float eps) {
    Lanes sum = {}, squares = {};
    for (int i = 0; i < n; i += 16) sum += load(x + i);
    const float mean = sum_of(sum) / static_cast<float>(n);
    for (int i = 0; i < n; i += 16) squares += (load(x + i) - mean) * (load(x + i) - mean);
    const float scale = 1.0f / std::sqrt(sum_of(squares) / static_cast<float>(n) + eps);
    for (int i = 0; i < n; i += 16) store(x + i, (load(x + i) - mean) * scale * load(weight + i) + load(weight + n + i));
}

// x times the normal distribution's share below x, with erf by Abramowitz and Stegun 7.1.26; error below 2e-7.
void gelu(float* x, int n) {
    for (int i = 0; i < n; i += 16) {
        const Lanes v = load(x + i), z = larger(v, -v) * 0.70710678f, t = 1.0f / (1.0f + 0.3275911f * z);
        Lanes p = Lanes{} + 1.061405429f;
        p = p * t - 1.453152027f;
        p = p * t + 1.421413741f;
        p = p * t - 0.284496736f;
        p = p * t + 0.254829592f;
        const Lanes tail = p * t * fast_exp(-z * z) * 0.5f;  // the share beyond |x|
        store(x + i, v * (v < 0.0f ? tail : 1.0f - tail));
    }
}

struct Encoding {
    const Encoder& e;
    const Heads& heads;
    const std::vector<Piece>& pieces;
    const Plan& plan;
    const std::vector<size_t>& firsts;
    float* x;
    int tokens;
    int64_t wide;
};

// Keys and values of a token, which `qkv` has side by side, to where its text has them by head.
void keep_heads(const Encoding& call, int64_t token, const float* qkv) {
    const int piece = call.plan.piece_of[token], size = call.heads.size;
    const int64_t at = token - call.plan.row_of[piece], length = call.pieces[piece].count;
    for (int h = 0; h < call.heads.count; h++) {
        const float* key = qkv + (call.heads.count + h) * size;
        std::copy_n(key, size, call.pieces[piece].keys + (h * length + at) * size);
        std::copy_n(key + call.heads.count * size, size, call.pieces[piece].values + (h * length + at) * size);
    }
}

void run_encoder_layer(const Encoding& call, Room& room, const EncoderLayer& layer, int id, int threads,
                       Barrier& barrier) {
    const int n = call.e.hidden, inner = call.e.intermediate;
    const Span rows = part(call.tokens, id, threads), units = part(call.plan.units.size(), id, threads);
    float* wide = room.wide.data();
    auto digits_of = [&](const float* x, int width) {
        for (int64_t t = rows.first; t < rows.end; t++) to_digits(x + t * width, width, room.digits, static_cast<int>(t));
    };
    auto normed = [&](const float* weight) {
        for (int64_t t = rows.first; t < rows.end; t++) layer_norm(call.x + t * n, weight, n, call.e.eps);
        digits_of(call.x, n);
    };
    product(layer.qkv, room.digits, call.tokens, wide, call.wide, false, id, threads);
    barrier.wait(threads);
    for (int64_t t = rows.first; t < rows.end; t++) keep_heads(call, t, wide + t * call.wide);
    barrier.wait(threads);
    std::vector<float> own;
    for (int64_t u = units.first; u < units.end; u++) {
        const Unit& unit = call.plan.units[u];
        attend(call.heads, call.pieces[unit.piece], call.plan.row_of[unit.piece], unit, 0, wide, call.wide, own,
               room.partial.data());
    }
    barrier.wait(threads);
    const Span merges = part(static_cast<int64_t>(call.firsts.size()), id, threads);
    for (int64_t f = merges.first; f < merges.end; f++)
        merge(call.heads, call.plan, call.firsts[f], room.partial.data(), room.mixed.data());
    barrier.wait(threads);
    digits_of(room.mixed.data(), n);
    barrier.wait(threads);
    product(layer.output, room.digits, call.tokens, call.x, n, true, id, threads);
    barrier.wait(threads);
    normed(layer.attention_norm);
    barrier.wait(threads);
    product(layer.inner, room.digits, call.tokens, wide, inner, false, id, threads);
    barrier.wait(threads);
    for (int64_t t = rows.first; t < rows.end; t++) gelu(wide + t * inner, inner);
    digits_of(wide, inner);
    barrier.wait(threads);
    product(layer.outer, room.digits, call.tokens, call.x, n, true, id, threads);
    barrier.wait(threads);
    normed(layer.output_norm);
    barrier.wait(threads);
}

std::vector<size_t> firsts_of(const Plan& plan) {
    std::vector<size_t> firsts;
    for (size_t u = 0; u < plan.units.size(); u++)
        if (plan.units[u].chunk == 0) firsts.push_back(u);
    return firsts;
}

thread_local Room kept;  // a caller's room stays reserved: what a step needs is the same as the last one's

}  // namespace

extern "C" {

// Version of this interface, so that a library of another one is never called.
int32_t factform_version() { return 5; }

int32_t factform_vnni() {
#ifdef FACTFORM_VNNI
    return 1;
#else
    return 0;
#endif
}

// States after the last norm, `out` [T, N], of all pieces' tokens one behind the other; `cos` and `sin` are [T, D] with
// the first half of the sines negative. N, D and the intermediate size must be
// multiples of 16.
void factform_read(const Model* model, const int64_t* tokens, const float* cos, const float* sin, const Piece* pieces,
                   int32_t count, int32_t threads, float* out) {
    const Model& m = *model;
    const Heads heads_of{m.heads, m.kv_heads, m.head_dim, true};
    const Plan plan = plan_of(heads_of, pieces, count);
    const std::vector<size_t> firsts = firsts_of(plan);
    const int total = static_cast<int>(plan.piece_of.size()), heads = m.heads * m.head_dim;
    const int64_t qkv_stride = padded(m.layers[0].qkv.out, PANEL), gate_stride = padded(2 * m.intermediate, PANEL);
    Room& room = kept;
    room.hidden.resize(static_cast<size_t>(total) * m.hidden);
    room.wide.resize(total * std::max(qkv_stride, gate_stride));
    room.mixed.resize(static_cast<size_t>(total) * heads);
    room.partial.resize(plan.rows * partial_size(m.head_dim));
    room.digits.size(total, std::max({m.hidden, heads, m.intermediate}), 2);
    for (int t = 0; t < total; t++)
        std::copy_n(m.embedding + tokens[t] * m.hidden, m.hidden, room.hidden.data() + static_cast<int64_t>(t) * m.hidden);
    const Call call{m, heads_of, pieces, plan, firsts, cos, sin, total, qkv_stride, gate_stride};
    auto work = [&](int id, int of, Barrier& barrier) {
        std::vector<float> own;
        for (int index = 0; index < m.layer_count; index++) run_layer(call, room, index, id, of, barrier, own);
        const Span rows = part(total, id, of);
        for (int64_t t = rows.first; t < rows.end; t++)
            rms_norm(room.hidden.data() + t * m.hidden, m.norm, m.hidden, m.eps, out + t * m.hidden);
    };
    in_parallel(threads, work);
}

// Hidden states in place: `x` [T, N], embedded and normed tokens of `count` texts of the given lengths, one behind the other.
// N, the intermediate size and that of a head must be multiples of 16.
void factform_encode(const Encoder* encoder, float* x, const int32_t* lengths, int32_t count, int32_t threads) {
    const Encoder& e = *encoder;
    const Heads heads{e.heads, e.heads, e.hidden / e.heads, false};
    int total = 0;
    for (int p = 0; p < count; p++) total += lengths[p];
    Room& room = kept;
    std::vector<float> keys(static_cast<size_t>(total) * e.hidden), values(keys.size());
    std::vector<Piece> pieces;
    for (int64_t p = 0, at = 0; p < count; at += lengths[p], p++)
        pieces.push_back({keys.data() + at * e.hidden, values.data() + at * e.hidden, nullptr, lengths[p], 0, lengths[p]});
    const Plan plan = plan_of(heads, pieces.data(), count);
    const std::vector<size_t> firsts = firsts_of(plan);
    const int64_t wide = padded(3 * e.hidden, PANEL);
    room.wide.resize(total * std::max<int64_t>(wide, e.intermediate));
    room.mixed.resize(static_cast<size_t>(total) * e.hidden);
    room.partial.resize(plan.rows * partial_size(heads.size));
    room.digits.size(total, std::max(e.hidden, e.intermediate), e.digits);
    const Encoding call{e, heads, pieces, plan, firsts, x, total, wide};
    auto work = [&](int id, int of, Barrier& barrier) {
        const Span rows = part(total, id, of);
        for (int64_t t = rows.first; t < rows.end; t++) to_digits(x + t * e.hidden, e.hidden, room.digits, static_cast<int>(t));
        barrier.wait(of);
        for (int index = 0; index < e.layer_count; index++) run_encoder_layer(call, room, e.layers[index], id, of, barrier);
    };
    in_parallel(threads, work);
}

// Write a block into `keys` and `values` [L, G, capacity, D] from token `start` on; `cos` and `sin` are [length, D].
void factform_place(const Kept* block, const float* cos, const float* sin, float* keys, float* values,
                    int64_t capacity, int64_t start, int32_t threads) {
    const Kept& kept = *block;
    const int64_t groups = static_cast<int64_t>(kept.layers) * kept.groups;
    auto work = [&](int id, int of, Barrier&) {
        const Span mine = part(groups, id, of);
        for (int64_t at = mine.first; at < mine.end; at++) {
            const int64_t to = (at * capacity + start) * kept.size;
            place_group(kept, at, cos, sin, keys + to, values + to);
        }
    };
    in_parallel(threads, work);
}

// Of each row of scores [rows, stride], known up to `off` [width] times the row's length: the places of those that may be the
// largest, at most `most` a row into `found` [rows, most], and how many there are (`most` + 1 for more).
void factform_leaders(const float* scores, int64_t stride, int32_t rows, int32_t width, const float* off,
                      const float* lengths, int32_t most, int32_t* counts, int32_t* found, int32_t threads) {
    auto leaders = [&](int64_t row) {
        const float* score = scores + row * stride;
        const int whole = width / 16 * 16;
        Lanes top = Lanes{} + score[0];
        for (int i = 0; i < whole; i += 16) top = larger(top, load(score + i));
        float best = largest_of(top);
        for (int i = whole; i < width; i++) best = std::max(best, score[i]);
        const int at = static_cast<int>(std::find(score, score + width, best) - score);
        const float length = lengths[row], surely = best - length * off[at];
        int count = 0;
        for (int i = 0; i < width && count <= most; i += 16) {
            if (i + 16 <= width && !reaches(load(score + i) + length * load(off + i), surely)) continue;
            for (int j = i; j < std::min(i + 16, width) && count <= most; j++)
                if (score[j] + length * off[j] >= surely) {
                    if (count < most) found[row * most + count] = j;
                    count++;
                }
        }
        counts[row] = count;
    };
    auto work = [&](int id, int of, Barrier&) {
        const Span mine = part(rows, id, of);
        for (int64_t row = mine.first; row < mine.end; row++) leaders(row);
    };
    in_parallel(threads, work);
}

// `x` [rows, in] times the transposed matrix, plus its bias, into `out` [rows, out padded to 16].
void factform_product(const Matrix* matrix, const float* x, int32_t rows, int32_t threads, float* out) {
    const Matrix& m = *matrix;
    Digits& digits = kept.digits;
    digits.size(rows, m.in, 2);
    auto work = [&](int id, int of, Barrier& barrier) {
        const Span mine = part(rows, id, of);
        for (int64_t t = mine.first; t < mine.end; t++)
            to_digits(x + t * m.in, m.in, digits, static_cast<int>(t));
        barrier.wait(of);
        product(m, digits, rows, out, padded(m.out, PANEL), false, id, of);
    };
    in_parallel(threads, work);
}

// Of each of `count` rows [count, dim] in 8 bit the sum over its entries times `query` [dim], into `out`. In one thread: it
// waits for memory more than it computes. A row has the same bits whatever stands beside it. `dim` is a multiple of 16.
void factform_scan(const int8_t* rows, const float* query, int64_t count, int32_t dim, float* out) {
    for (int64_t row = 0; row < count; row++) {
        const int8_t* at = rows + row * dim;
        Lanes sum{}, other{};
        int i = 0;
        for (; i + 32 <= dim; i += 32) {
            sum += widened(at + i) * load(query + i);
            other += widened(at + i + 16) * load(query + i + 16);
        }
        if (i < dim) sum += widened(at + i) * load(query + i);
        sum += other;
        float total = 0;
        for (int lane = 0; lane < 16; lane++) total += sum[lane];
        out[row] = total;
    }
}
}
