// Sixteen numbers in two registers of AVX2. The compiler would take vectors of sixteen apart here, number by number.
#pragma once

#include <immintrin.h>

namespace {

struct Lanes {
    __m256 low, high;
    INLINE Lanes() : low(_mm256_setzero_ps()), high(_mm256_setzero_ps()) {}
    INLINE Lanes(float x) : low(_mm256_set1_ps(x)), high(low) {}
    INLINE Lanes(__m256 a, __m256 b) : low(a), high(b) {}
};

struct Whole {
    __m256i low, high;
    INLINE Whole() : low(_mm256_setzero_si256()), high(low) {}
    INLINE Whole(int32_t x) : low(_mm256_set1_epi32(x)), high(low) {}
    INLINE Whole(__m256i a, __m256i b) : low(a), high(b) {}
};

INLINE Lanes operator+(Lanes a, Lanes b) { return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)}; }
INLINE Lanes operator-(Lanes a, Lanes b) { return {_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)}; }
INLINE Lanes operator*(Lanes a, Lanes b) { return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)}; }
INLINE Lanes operator/(Lanes a, Lanes b) { return {_mm256_div_ps(a.low, b.low), _mm256_div_ps(a.high, b.high)}; }
INLINE Lanes operator-(Lanes a) { return Lanes(-0.0f) - a; }
INLINE Lanes& operator+=(Lanes& a, Lanes b) { return a = a + b; }
INLINE Whole operator+(Whole a, Whole b) { return {_mm256_add_epi32(a.low, b.low), _mm256_add_epi32(a.high, b.high)}; }
INLINE Whole operator-(Whole a, Whole b) { return {_mm256_sub_epi32(a.low, b.low), _mm256_sub_epi32(a.high, b.high)}; }
INLINE Whole operator&(Whole a, Whole b) { return {_mm256_and_si256(a.low, b.low), _mm256_and_si256(a.high, b.high)}; }
INLINE Whole operator|(Whole a, Whole b) { return {_mm256_or_si256(a.low, b.low), _mm256_or_si256(a.high, b.high)}; }
INLINE Whole operator<<(Whole a, int bits) { return {_mm256_slli_epi32(a.low, bits), _mm256_slli_epi32(a.high, bits)}; }

INLINE Lanes load(const float* at) { return {_mm256_loadu_ps(at), _mm256_loadu_ps(at + 8)}; }
INLINE void store(float* at, Lanes x) {
    _mm256_storeu_ps(at, x.low);
    _mm256_storeu_ps(at + 8, x.high);
}
INLINE Whole load(const int32_t* at) {
    return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(at)),
            _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at + 8))};
}
INLINE void store(int32_t* at, Whole x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(at), x.low);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(at + 8), x.high);
}

INLINE Lanes floats(Whole x) { return {_mm256_cvtepi32_ps(x.low), _mm256_cvtepi32_ps(x.high)}; }
INLINE Whole cut_off(Lanes x) { return {_mm256_cvttps_epi32(x.low), _mm256_cvttps_epi32(x.high)}; }
INLINE Whole bits_of(Lanes x) { return {_mm256_castps_si256(x.low), _mm256_castps_si256(x.high)}; }
INLINE Lanes of_bits(Whole x) { return {_mm256_castsi256_ps(x.low), _mm256_castsi256_ps(x.high)}; }
INLINE Lanes widened(const int8_t* at) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
    return floats({_mm256_cvtepi8_epi32(bytes), _mm256_cvtepi8_epi32(_mm_srli_si128(bytes, 8))});
}

INLINE Lanes larger(Lanes a, Lanes b) { return {_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)}; }
INLINE Lanes smaller(Lanes a, Lanes b) { return {_mm256_min_ps(a.low, b.low), _mm256_min_ps(a.high, b.high)}; }
INLINE Whole larger(Whole a, Whole b) {
    return {_mm256_max_epi32(a.low, b.low), _mm256_max_epi32(a.high, b.high)};
}
// `values` where `x` is above `least`, else 0.
INLINE Lanes where_above(Lanes x, float least, Lanes values) {
    const __m256 limit = _mm256_set1_ps(least);
    return {_mm256_and_ps(values.low, _mm256_cmp_ps(x.low, limit, _CMP_GT_OQ)),
            _mm256_and_ps(values.high, _mm256_cmp_ps(x.high, limit, _CMP_GT_OQ))};
}

// Whole numbers of 16 bit, in order.
INLINE __m256i shorts(Whole x) {
    return _mm256_permute4x64_epi64(_mm256_packus_epi32(x.low, x.high), 0xd8);
}
INLINE void store_low(int16_t* at, Whole x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(at), shorts(x & 0xffff));
}
INLINE void store_low(uint8_t* at, Whole x) {
    const __m256i bytes = shorts(x & 0xff);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(at),
                     _mm_packus_epi16(_mm256_castsi256_si128(bytes), _mm256_extracti128_si256(bytes, 1)));
}

inline float sum_of(Lanes x) {
    const __m256 eight = _mm256_add_ps(x.low, x.high);
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
inline float largest_of(Lanes x) {
    const __m256 eight = _mm256_max_ps(x.low, x.high);
    const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}
// Whether one of the numbers is at least `least`.
inline bool reaches(Lanes x, float least) {
    return _mm256_movemask_ps(_mm256_cmp_ps(_mm256_max_ps(x.low, x.high), _mm256_set1_ps(least), _CMP_GE_OQ)) != 0;
}

// The transposed block of 8 times 8 numbers.
inline void transpose8(const float* from, int64_t stride, float* to, int64_t to_stride) {
    __m256 r[8], t[8];
    for (int i = 0; i < 8; i++) r[i] = _mm256_loadu_ps(from + i * stride);
    for (int i = 0; i < 4; i++) {
        t[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
    }
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 2; j++) {
            const __m256d a = _mm256_castps_pd(t[4 * i + j]), b = _mm256_castps_pd(t[4 * i + 2 + j]);
            r[4 * i + 2 * j] = _mm256_castpd_ps(_mm256_unpacklo_pd(a, b));
            r[4 * i + 2 * j + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(a, b));
        }
    for (int i = 0; i < 4; i++) {
        _mm256_storeu_ps(to + i * to_stride, _mm256_permute2f128_ps(r[i], r[i + 4], 0x20));
        _mm256_storeu_ps(to + (i + 4) * to_stride, _mm256_permute2f128_ps(r[i], r[i + 4], 0x31));
    }
}
inline void transpose16(const float* from, int64_t stride, float* to, int64_t to_stride) {
    for (int i = 0; i < 16; i += 8)
        for (int j = 0; j < 16; j += 8) transpose8(from + i * stride + j, stride, to + j * to_stride + i, to_stride);
}

}  // namespace
