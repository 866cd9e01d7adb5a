// Matrices of 8 bit, rows of input as digits of 8 bit, and their products in whole numbers. Knows nothing of layers.
#pragma once

#include "lanes.h"
#include "threads.h"

namespace {

constexpr int PANEL = 16;      // rows of a matrix that are computed side by side
constexpr int PANELS = 3;      // panels and
#ifdef FACTFORM_AVX2
constexpr int ROWS = 6;  // rows of digits whose sums are kept in registers
#else
constexpr int ROWS = 8;
#endif
constexpr int ROW_BLOCK = 64;  // tokens whose digits stay in the core's own cache while panels go by
constexpr float STEPS = 127.0f;

// A matrix [out, in] packed in panels of 16 rows, four columns of a row side by side: [out / 16][in / 4][16][4]. Rows
// and columns are padded with zeros. `sums` [out] are 128 times each row's sum: digits are stored 128 too large.
struct Matrix {
    const int8_t* packed;
    const float* scales;
    const int32_t* sums;
    const float* bias;  // or null
    int32_t out, in;
};

// Rows of input as two digits each (or one, rounded), 128 too large, and each row's unit.
struct Digits {
    Numbers<uint8_t> values;
    Numbers<float> units;
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

// Two digits of x / unit, of which the first is cut off and the second counts in STEPS-ths.
inline void two_digits(const float* x, int n, float unit, uint8_t* first, uint8_t* second) {
    const int whole = n / 16 * 16;
    for (int i = 0; i < whole; i += 16) {
        const Lanes exact = load(x + i) / unit;
        const Whole digit = cut_off(exact);
        const Whole rest = cut_off((exact - floats(digit)) * STEPS);
        store_low(first + i, digit + 128);
        store_low(second + i, rest + 128);
    }
    for (int i = whole; i < n; i++) {
        const float exact = x[i] / unit;
        const int32_t digit = static_cast<int32_t>(exact);
        first[i] = static_cast<uint8_t>(digit + 128);
        second[i] = static_cast<uint8_t>(static_cast<int32_t>((exact - static_cast<float>(digit)) * STEPS) + 128);
    }
}

// The digit nearest to x / unit: the low bits of a float whose last place is 1.
inline void one_digit(const float* x, int n, float unit, uint8_t* digits) {
    const int whole = n / 16 * 16;
    const float units = 1.0f / unit;
    for (int i = 0; i < whole; i += 16) {
        const Lanes near = load(x + i) * units + (NEAREST + 128.0f);
        store_low(digits + i, bits_of(near));
    }
    for (int i = whole; i < n; i++)
        digits[i] = static_cast<uint8_t>(static_cast<int32_t>(x[i] * units + NEAREST - NEAREST) + 128);
}

// Row `row` of `digits` from `x` [n]. What follows a row up to a multiple of 16 is never read: products end before it.
inline void to_digits(const float* x, int n, Digits& digits, int row) {
    const int whole = n / 16 * 16;
    Lanes most = {};
    for (int i = 0; i < whole; i += 16) most = larger(most, absolute(load(x + i)));
    float largest = largest_of(most);
    for (int i = whole; i < n; i++) largest = std::max(largest, std::fabs(x[i]));
    const float unit = std::max(largest / STEPS, std::numeric_limits<float>::min());
    uint8_t* first = digits.row(row);
    if (digits.each == 2)
        two_digits(x, n, unit, first, first + digits.stride);
    else
        one_digit(x, n, unit, first);
    digits.units[row] = unit;
    for (int each = 0; each < digits.each; each++, first += digits.stride)
        std::fill(first + n, first + padded(n, 4), 128);
}

// --- sums -----------------------------------------------------------------------------------------------------------

// To sums of 16 outputs what a group of four columns adds: one operation where the processor has it.
struct Eights {
    typedef uint8_t Left;
    typedef int8_t Right;
    static constexpr int GROUP = 4;
#ifdef FACTFORM_VNNI
    static INLINE __m512i add(__m512i sum, __m512i x, __m512i w) { return _mm512_dpbusd_epi32(sum, x, w); }
#elif defined(FACTFORM_AVX2)
    // In 16 bit, as two products of 8 bit may exceed it: four outputs in a register, two sums each.
    static constexpr int PARTS = 4;
    static INLINE __m256i columns(const int16_t* x) {
        int64_t group;
        std::memcpy(&group, x, 8);
        return _mm256_set1_epi64x(group);
    }
    static INLINE __m256i outputs(const int8_t* w) {
        return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(w)));
    }
    static INLINE void put(const __m256i* sums, int32_t* out) {
        const __m256i mixed = _mm256_hadd_epi32(sums[0], sums[1]);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm256_permute4x64_epi64(mixed, 0xd8));
    }
#endif
};

// The same of numbers of 16 bit, two columns at a time.
struct Sixteens {
    typedef int16_t Left;
    typedef int16_t Right;
    static constexpr int GROUP = 2;
#ifdef FACTFORM_VNNI
    static INLINE __m512i add(__m512i sum, __m512i x, __m512i w) { return _mm512_dpwssd_epi32(sum, x, w); }
#elif defined(FACTFORM_AVX2)
    static constexpr int PARTS = 2;
    static INLINE __m256i columns(const int16_t* x) {
        int32_t group;
        std::memcpy(&group, x, 4);
        return _mm256_set1_epi32(group);
    }
    static INLINE __m256i outputs(const int16_t* w) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(w)); }
    static INLINE void put(const __m256i* sums, int32_t* out) {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), sums[0]);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + 8), sums[1]);
    }
#endif
};

#ifdef FACTFORM_AVX2
constexpr int AT_ONCE = ROWS;  // two registers each, half a panel at a time

// Rows of bytes in 16 bit, as the products take them. What is made here is valid until the thread's next call.
inline const int16_t* in_shorts(const uint8_t* rows, int64_t& stride, int count, int columns) {
    thread_local Numbers<int16_t> room;
    const int64_t wide = padded(columns, 16);
    room.resize(count * wide);
    for (int r = 0; r < count; r++)
        for (int i = 0; i < columns; i += 16) {
            const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(rows + r * stride + i));
            _mm256_store_si256(reinterpret_cast<__m256i*>(room.data() + r * wide + i), _mm256_cvtepu8_epi16(bytes));
        }
    stride = wide;
    return room.data();
}
inline const int16_t* in_shorts(const int16_t* rows, int64_t&, int, int) { return rows; }

// Sums of R rows with those outputs of a panel that two registers hold.
template <class Kind, int R>
INLINE void sums_of_rows(const typename Kind::Right* panel, int groups, const int16_t* rows, int64_t stride,
                         int32_t* sums, int64_t sums_stride) {
    constexpr int GROUP = Kind::GROUP, APART = PANEL * GROUP / Kind::PARTS;
    __m256i acc[R][2];
    UNROLL
    for (int r = 0; r < R; r++) acc[r][0] = acc[r][1] = _mm256_setzero_si256();
    for (int k = 0; k < groups; k++) {
        const __m256i first = Kind::outputs(panel + k * PANEL * GROUP);
        const __m256i second = Kind::outputs(panel + k * PANEL * GROUP + APART);
        UNROLL
        for (int r = 0; r < R; r++) {
            const __m256i x = Kind::columns(rows + r * stride + GROUP * k);
            acc[r][0] = _mm256_add_epi32(acc[r][0], _mm256_madd_epi16(x, first));
            acc[r][1] = _mm256_add_epi32(acc[r][1], _mm256_madd_epi16(x, second));
            // GCC would have the sums in memory and registers for what it can load again at any time.
            if constexpr (R == AT_ONCE)
                asm volatile(""
                             : "+x"(acc[0][0]), "+x"(acc[1][0]), "+x"(acc[2][0]), "+x"(acc[3][0]), "+x"(acc[4][0]),
                               "+x"(acc[5][0]), "+x"(acc[0][1]), "+x"(acc[1][1]), "+x"(acc[2][1]), "+x"(acc[3][1]),
                               "+x"(acc[4][1]), "+x"(acc[5][1])::"memory");
        }
    }
    UNROLL
    for (int r = 0; r < R; r++) Kind::put(acc[r], sums + r * sums_stride);
}
#endif

// Sums of R rows with P panels [groups][16][GROUP] that lie `apart` from each other, into `sums` [R, sums_stride]. A
// function of its own: what a caller does with the sums would take the registers they are kept in.
template <class Kind, int R, int P>
__attribute__((noinline)) void sums_of(const typename Kind::Right* panels, int64_t apart, int groups,
                                       const typename Kind::Left* rows, int64_t stride, int32_t* sums,
                                       int64_t sums_stride) {
    constexpr int GROUP = Kind::GROUP;
#ifdef FACTFORM_VNNI
    __m512i acc[R][P];
    UNROLL
    for (int r = 0; r < R; r++)
        UNROLL
        for (int p = 0; p < P; p++) acc[r][p] = _mm512_setzero_si512();
    for (int k = 0; k < groups; k++) {
        __m512i w[P];
        UNROLL
        for (int p = 0; p < P; p++) {
            w[p] = _mm512_loadu_si512(panels + p * apart + k * PANEL * GROUP);
            asm("" : "+v"(w[p]));  // GCC would load it again for each row
        }
        UNROLL
        for (int r = 0; r < R; r++) {
            int32_t group;
            std::memcpy(&group, rows + r * stride + GROUP * k, 4);
            const __m512i x = _mm512_set1_epi32(group);
            UNROLL
            for (int p = 0; p < P; p++) acc[r][p] = Kind::add(acc[r][p], x, w[p]);
        }
    }
    UNROLL
    for (int r = 0; r < R; r++)
        UNROLL
        for (int p = 0; p < P; p++) _mm512_storeu_si512(sums + r * sums_stride + p * PANEL, acc[r][p]);
#elif defined(FACTFORM_AVX2)
    constexpr int LEFT = R % AT_ONCE, OUTPUTS = 2 * PANEL / Kind::PARTS;
    const int16_t* x = in_shorts(rows, stride, R, GROUP * groups);
    for (int p = 0; p < P; p++)
        for (int part = 0; part < Kind::PARTS; part += 2) {
            const typename Kind::Right* panel = panels + p * apart + part * PANEL * GROUP / Kind::PARTS;
            int32_t* out = sums + p * PANEL + part / 2 * OUTPUTS;
            for (int r = 0; r + AT_ONCE <= R; r += AT_ONCE)
                sums_of_rows<Kind, AT_ONCE>(panel, groups, x + r * stride, stride, out + r * sums_stride, sums_stride);
            if constexpr (LEFT != 0)
                sums_of_rows<Kind, LEFT>(panel, groups, x + (R - LEFT) * stride, stride,
                                         out + (R - LEFT) * sums_stride, sums_stride);
        }
#else
    for (int r = 0; r < R; r++) std::fill_n(sums + r * sums_stride, P * PANEL, 0);
    for (int p = 0; p < P; p++)
        for (int k = 0; k < groups; k++) {
            const typename Kind::Right* w = panels + p * apart + k * PANEL * GROUP;
            for (int r = 0; r < R; r++) {
                const typename Kind::Left* x = rows + r * stride + GROUP * k;
                int32_t* sum = sums + r * sums_stride + p * PANEL;
                for (int j = 0; j < PANEL; j++)
                    for (int i = 0; i < GROUP; i++) sum[j] += x[i] * w[GROUP * j + i];
            }
        }
#endif
}

// --- products -------------------------------------------------------------------------------------------------------

template <int R, int P, int G>
void tile(const Matrix& m, int panel, Digits& digits, int row, float* out, int64_t stride, bool add) {
    alignas(64) int32_t sums[G * R][P * PANEL];
    const int quads = padded(m.in, 4) / 4;
    const int64_t bytes = static_cast<int64_t>(quads) * 64;
    sums_of<Eights, G * R, P>(m.packed + panel * bytes, bytes, quads, digits.row(row), digits.stride, sums[0],
                              P * PANEL);
    UNROLL
    for (int p = 0; p < P; p++) {
        const int at = (panel + p) * PANEL;
        const Whole extra = load(m.sums + at);
        const Lanes scale = load(m.scales + at), bias = m.bias ? load(m.bias + at) : Lanes{};
        UNROLL
        for (int r = 0; r < R; r++) {
            float* y = out + (row + r) * stride + p * PANEL;
            Lanes value = floats(load(sums[G * r] + p * PANEL) - extra);
            if (G == 2) value += floats(load(sums[G * r + G - 1] + p * PANEL) - extra) * (1.0f / STEPS);
            value = value * digits.units[row + r] * scale + bias;
            store(y, add ? load(y) + value : value);
        }
    }
}

// Rows [row, end) with P panels, into (or added to) `out` [rows, stride], where the panels' first column is.
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

// Call `panels(P, first)` for all of `count` panels, as many at a time as there are registers for.
template <class Panels>
INLINE void in_threes(int count, Panels panels) {
    int p = 0;
    for (; p + PANELS <= count; p += PANELS) panels(std::integral_constant<int, PANELS>(), p);
    if (count - p == 2) panels(std::integral_constant<int, 2>(), p);
    if (count - p == 1) panels(std::integral_constant<int, 1>(), p);
}

// Products of rows [row, end) with panels [panel, last), into (or added to) `out` [end, stride], whose first columns
// are those of `panel`.
inline void panels_of(const Matrix& m, int panel, int last, Digits& digits, int row, int end, float* out,
                      int64_t stride, bool add) {
    in_threes(last - panel, [&](auto panels, int p) {
        tiles<panels()>(m, panel + p, digits, row, end, out + p * PANEL, stride, add);
    });
}

// This thread's part of the product of all rows with `m`, into (or added to) `out` [rows, stride].
inline void product(const Matrix& m, Digits& digits, int rows, float* out, int64_t stride, bool add, int id,
                    int threads) {
    const int panels = padded(m.out, PANEL) / PANEL, groups = (panels + PANELS - 1) / PANELS;
    const int blocks = (rows + ROW_BLOCK - 1) / ROW_BLOCK;
    const Span mine = part(static_cast<int64_t>(groups) * blocks, id, threads);
    for (int64_t unit = mine.first; unit < mine.end; unit++) {
        const int row = static_cast<int>(unit / groups) * ROW_BLOCK, end = std::min(rows, row + ROW_BLOCK);
        const int panel = static_cast<int>(unit % groups) * PANELS;
        panels_of(m, panel, std::min(panels, panel + PANELS), digits, row, end, out + panel * PANEL, stride, add);
    }
}

}  // namespace
