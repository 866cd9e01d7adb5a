// Sixteen numbers at a time: vectors, what is taken of all of them, exp. Knows nothing of matrices or models.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <new>
#include <type_traits>
#include <vector>

#ifdef __AVX2__
#include <immintrin.h>
#endif
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VNNI__)
#define FACTFORM_VNNI 1
#elif defined(__AVX2__)
#define FACTFORM_AVX2 1
#endif

// Small loops over sums that are to stay in registers, and what has to be part of its caller for that.
#define UNROLL _Pragma("GCC unroll 32")
#define INLINE inline __attribute__((always_inline))

#ifdef FACTFORM_AVX2
#include "pairs.h"
#endif

namespace {

constexpr float NEAREST = 12582912.0f;  // added and taken away, it leaves the nearest whole number

#ifndef FACTFORM_AVX2
typedef float Lanes __attribute__((vector_size(64), aligned(4), may_alias));
typedef int32_t Whole __attribute__((vector_size(64), aligned(4), may_alias));
typedef uint8_t Bytes __attribute__((vector_size(16), aligned(1), may_alias));
typedef int8_t Signed __attribute__((vector_size(16), aligned(1), may_alias));
typedef int16_t Shorts __attribute__((vector_size(32), aligned(2), may_alias));

INLINE Lanes load(const float* at) { return *reinterpret_cast<const Lanes*>(at); }
INLINE void store(float* at, Lanes x) { *reinterpret_cast<Lanes*>(at) = x; }
INLINE Whole load(const int32_t* at) { return *reinterpret_cast<const Whole*>(at); }
INLINE void store(int32_t* at, Whole x) { *reinterpret_cast<Whole*>(at) = x; }
INLINE Lanes floats(Whole x) { return __builtin_convertvector(x, Lanes); }
INLINE Whole cut_off(Lanes x) { return __builtin_convertvector(x, Whole); }
INLINE Whole bits_of(Lanes x) { return reinterpret_cast<const Whole&>(x); }
INLINE Lanes of_bits(Whole x) { return reinterpret_cast<const Lanes&>(x); }
// `values` where `x` is above `least`, else 0.
INLINE Lanes where_above(Lanes x, float least, Lanes values) { return x > least ? values : Lanes{}; }

// What the compiler makes of plain vectors is slower here: bytes to floats one by one, the larger one by a mask, the
// low bits of numbers in steps.
#ifdef FACTFORM_VNNI
INLINE Lanes widened(const int8_t* at) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
    return (Lanes)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes));
}
INLINE Lanes larger(Lanes a, Lanes b) { return (Lanes)_mm512_max_ps((__m512)a, (__m512)b); }
INLINE Whole larger(Whole a, Whole b) { return (Whole)_mm512_max_epi32((__m512i)a, (__m512i)b); }
INLINE Lanes smaller(Lanes a, Lanes b) { return (Lanes)_mm512_min_ps((__m512)a, (__m512)b); }
INLINE void store_low(uint8_t* at, Whole x) { *(Bytes*)at = (Bytes)_mm512_cvtepi32_epi8((__m512i)x); }
INLINE void store_low(int16_t* at, Whole x) { *(Shorts*)at = (Shorts)_mm512_cvtepi32_epi16((__m512i)x); }
#else
INLINE Lanes widened(const int8_t* at) {
    return __builtin_convertvector(*reinterpret_cast<const Signed*>(at), Lanes);
}
INLINE Lanes larger(Lanes a, Lanes b) { return a > b ? a : b; }
INLINE Whole larger(Whole a, Whole b) { return a > b ? a : b; }
INLINE Lanes smaller(Lanes a, Lanes b) { return a < b ? a : b; }
INLINE void store_low(uint8_t* at, Whole x) { *(Bytes*)at = __builtin_convertvector(x, Bytes); }
INLINE void store_low(int16_t* at, Whole x) { *(Shorts*)at = __builtin_convertvector(x, Shorts); }
#endif

#ifdef FACTFORM_VNNI
inline float sum_of(Lanes x) { return _mm512_reduce_add_ps((__m512)x); }
inline float largest_of(Lanes x) { return _mm512_reduce_max_ps((__m512)x); }
// Whether one of the numbers is at least `least`.
inline bool reaches(Lanes x, float least) {
    return _mm512_cmp_ps_mask((__m512)x, _mm512_set1_ps(least), _CMP_GE_OQ) != 0;
}
#else
// Halves that are folded onto each other.
inline float sum_of(Lanes x) {
    x += __builtin_shufflevector(x, x, 8, 9, 10, 11, 12, 13, 14, 15, 8, 9, 10, 11, 12, 13, 14, 15);
    x += __builtin_shufflevector(x, x, 4, 5, 6, 7, 4, 5, 6, 7, 4, 5, 6, 7, 4, 5, 6, 7);
    return (x[0] + x[2]) + (x[1] + x[3]);
}
inline float largest_of(Lanes x) {
    x = larger(x, __builtin_shufflevector(x, x, 8, 9, 10, 11, 12, 13, 14, 15, 8, 9, 10, 11, 12, 13, 14, 15));
    x = larger(x, __builtin_shufflevector(x, x, 4, 5, 6, 7, 4, 5, 6, 7, 4, 5, 6, 7, 4, 5, 6, 7));
    return std::max(std::max(x[0], x[1]), std::max(x[2], x[3]));
}
inline bool reaches(Lanes x, float least) { return largest_of(x) >= least; }
#endif

// The transposed block of 16 times 16 numbers.
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
#endif

INLINE Lanes absolute(Lanes x) {
    return of_bits(bits_of(x) & 0x7fffffff);
}

// exp by 2^n times a polynomial (Cephes' expf), of numbers taken to lie within +-87; relative error below 2e-7.
INLINE Lanes fast_exp(Lanes x) {
    x = smaller(larger(x, Lanes{} - 87.0f), Lanes{} + 87.0f);
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
    return p * of_bits((bits_of(shifted) + 127) << 23);
}

// Memory that begins where a line of the cache does: sixteen numbers across two lines are read at half the speed.
template <class T>
struct Aligned {
    typedef T value_type;
    static constexpr std::align_val_t LINE{64};
    Aligned() = default;
    template <class Other>
    Aligned(const Aligned<Other>&) {}
    T* allocate(size_t n) { return static_cast<T*>(::operator new(n * sizeof(T), LINE)); }
    void deallocate(T* at, size_t) { ::operator delete(at, LINE); }
    bool operator==(const Aligned&) const { return true; }
    bool operator!=(const Aligned&) const { return false; }
};
template <class T>
using Numbers = std::vector<T, Aligned<T>>;

inline int padded(int n, int to) { return (n + to - 1) / to * to; }

}  // namespace
