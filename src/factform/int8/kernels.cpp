// Forward passes with matrices in 8 bit, fused: what Python calls. One call reads the next tokens of several texts.
//
// Products are those of quantize.py: a row of the input is two digits of 8 bit (or one), sums are whole numbers. So a
// token's result has the same bits whatever is read beside it, in however many pieces and threads. Sizes: T tokens, N
// hidden, H query heads, G key/value heads, D head size.

#include "decoder.h"
#include "encoder.h"

namespace {

thread_local Room kept;  // a caller's room stays reserved: what a step needs is the same as the last one's
thread_local Desk desk;
thread_local Reading alone;

}  // namespace

extern "C" {

// Version of this interface, so that a library of another one is never called.
int32_t factform_version() { return 7; }

// Whether it was made for a processor with operations on many small whole numbers at a time.
int32_t factform_wide() {
#if defined(FACTFORM_VNNI) || defined(FACTFORM_AVX2)
    return 1;
#else
    return 0;
#endif
}

// States after the last norm, `out` [T, N], of all pieces' tokens one behind the other; `cos` and `sin` are [T, D] with
// the first half of the sines negative. N, D and the intermediate size must be multiples of 16.
void factform_read(const Model* model, const int64_t* tokens, const float* cos, const float* sin, const Piece* pieces,
                   int32_t count, int32_t threads, float* out) {
    const Model& m = *model;
    const Heads heads_of{m.heads, m.kv_heads, m.head_dim};
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
        std::copy_n(m.embedding + tokens[t] * m.hidden, m.hidden,
                    room.hidden.data() + static_cast<int64_t>(t) * m.hidden);
    const Call call{m, heads_of, pieces, plan, firsts, cos, sin, total, qkv_stride, gate_stride};
    auto work = [&](int id, int of, Barrier& barrier) {
        Numbers<float> own;
        for (int index = 0; index < m.layer_count; index++) run_layer(call, room, index, id, of, barrier, own);
        const Span rows = part(total, id, of);
        for (int64_t t = rows.first; t < rows.end; t++)
            rms_norm(room.hidden.data() + t * m.hidden, m.norm, m.hidden, m.eps, out + t * m.hidden);
    };
    in_parallel(threads, work);
}

// Hidden states in place: `x` [T, N], embedded and normed tokens of `count` texts of the given lengths, one behind the
// other. N, the intermediate size and that of a head must be multiples of 16, the last no more than 128.
void factform_encode(const Encoder* encoder, float* x, const int32_t* lengths, int32_t count, int32_t threads) {
    const Encoder& e = *encoder;
    std::vector<Run> runs = runs_of(lengths, count);
    if (runs.empty()) return;
    if (!shared_evenly(static_cast<int64_t>(runs.size()), threads)) {
        Reading& all = alone;
        all.start(e, x, std::move(runs));
        return in_parallel(threads, [&](int id, int of, Barrier& barrier) { read_all(e, all, desk, id, of, barrier); });
    }
    std::atomic<size_t> taken{0};
    in_parallel(threads, [&](int, int, Barrier&) {
        Barrier nobody;
        for (size_t next; (next = taken.fetch_add(1)) < runs.size();) {
            const int64_t first = runs[next].rows().first;
            alone.start(e, x + first * e.hidden, {runs[next].moved(-first)});
            read_all(e, alone, desk, 0, 1, nobody);
        }
    });
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

// Of each row of scores [rows, stride], known up to `off` [width] times the row's length: the places of those that may
// be the largest, at most `most` a row into `found` [rows, most], and how many there are (`most` + 1 for more).
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

// Of each of `count` rows [count, dim] in 8 bit its scale times the sum over its entries times `query` [dim]. With AVX2 the
// query is taken in 15 bits: an entry is off by at most its largest / 2 / 16383, and a sum by sqrt(dim) times that times
// the row's length. In one thread: it waits for memory. A row has the same bits whatever stands beside it. `dim` is a
// multiple of 16, and at most 8192.
void factform_scan(const int8_t* rows, const float* scales, const float* query, int64_t count, int32_t dim, float* out) {
#ifdef __AVX2__
    float largest = 1e-30f;
    for (int i = 0; i < dim; i++) largest = std::max(largest, std::fabs(query[i]));
    alignas(32) int16_t whole[8192];
    for (int i = 0; i < dim; i++) whole[i] = static_cast<int16_t>(std::lrint(query[i] / largest * 16383.0f));
    const float unit = largest / 16383.0f;
    for (int64_t row = 0; row < count; row++) {
        const int8_t* at = rows + row * dim;
        __m256i sum = _mm256_setzero_si256(), other = sum;
        // Eight rows ahead, which may be behind the end: that reads nothing and harms nothing.
        for (int i = 0; i < dim; i += 64) _mm_prefetch(reinterpret_cast<const char*>(at + 8 * dim + i), _MM_HINT_NTA);
        const auto pairs = [&](int i) {
            const __m256i entries = _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at + i)));
            return _mm256_madd_epi16(entries, _mm256_load_si256(reinterpret_cast<const __m256i*>(whole + i)));
        };
        int i = 0;
        for (; i + 32 <= dim; i += 32) {
            sum = _mm256_add_epi32(sum, pairs(i));
            other = _mm256_add_epi32(other, pairs(i + 16));
        }
        if (i < dim) sum = _mm256_add_epi32(sum, pairs(i));
        alignas(32) int32_t lanes[8];
        _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), _mm256_add_epi32(sum, other));
        int64_t total = 0;
        for (int32_t lane : lanes) total += lane;
        out[row] = static_cast<float>(total) * unit * scales[row];
    }
#else
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
        float lanes[16], total = 0;
        store(lanes, sum);
        for (float lane : lanes) total += lane;
        out[row] = total * scales[row];
    }
#endif
}

// To `scores` of each of `n` rows in which a word stands `counts` times its part of BM25: `weight` times
// count / (count + norm of the row).
void factform_word(const int32_t* rows, const uint16_t* counts, int64_t n, const float* norms, double weight,
                   double* scores) {
    for (int64_t i = 0; i < n; i++) {
        const float often = counts[i];
        scores[rows[i]] += weight * static_cast<double>(often / (often + norms[rows[i]]));
    }
}
}
