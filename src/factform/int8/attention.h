// Attention in fp32 through keys in chunks of fixed size, merged in order. Knows nothing of matrices or layers.
#pragma once

#include "lanes.h"

namespace {

constexpr int TILE = 64;     // keys turned at once
constexpr int CHUNK = 256;   // keys whose softmax is computed by itself
#ifdef FACTFORM_AVX2
constexpr int WIDE = 1;  // times sixteen numbers of four rows are kept in registers
#else
constexpr int WIDE = 4;
#endif
constexpr int QUERIES = 96;  // query rows (heads of a group times tokens) that share a pass over a chunk

// Tokens of one text. `keys` and `values` are [L, G, capacity, D] and hold `held` tokens; `raw` [L, G, count, D], or
// null, receives the keys before rotation.
struct Piece {
    float* keys;
    float* values;
    float* raw;
    int64_t capacity;
    int32_t held, count;
};

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
    for (int j = 0; j < TILE; j += 16 * WIDE) {
        Lanes acc[R][WIDE] = {};
        for (int d = 0; d < size; d++) {
            Lanes k[WIDE];
            UNROLL
            for (int i = 0; i < WIDE; i++) k[i] = load(turned + d * TILE + j + 16 * i);
            UNROLL
            for (int r = 0; r < R; r++)
                UNROLL
                for (int i = 0; i < WIDE; i++) acc[r][i] += queries[r * size + d] * k[i];
        }
        UNROLL
        for (int r = 0; r < R; r++)
            UNROLL
            for (int i = 0; i < WIDE; i++) store(scores + r * CHUNK + j + 16 * i, acc[r][i]);
    }
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
    for (; d + 16 * WIDE <= size; d += 16 * WIDE)
        mix_lanes<R, WIDE>(shares, values + d, count, size, out + d, stride);
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
        const Lanes score = load(scores + j), share = where_above(score, -3e38f, fast_exp(score - top));
        store(scores + j, share);
        total += share;
    }
    std::fill(scores + whole, scores + CHUNK, 0.0f);
    *largest = top;
    *sum = sum_of(total);
}

// The heads of a model. A token sees itself and those before it.
struct Heads {
    int count, groups, size;
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
            int64_t qkv_stride, Numbers<float>& room, float* partial) {
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
    const int count = std::min(CHUNK, piece.held + unit.token + unit.tokens - first);
    for (int j = 0; j < count; j += TILE) {
        turn_tile(piece.keys + (at + j) * size, std::min(TILE, count - j), size, turned);
        in_fours(rows, [&](auto fours, int r) {
            score_rows<fours()>(queries + r * size, turned, size, scores + r * CHUNK + j);
        });
    }
    for (int t = 0; t < unit.tokens; t++)
        for (int s = 0; s < shared; s++) {
            const int r = t * shared + s, seen = std::clamp(piece.held + unit.token + t + 1 - first, 0, count);
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
            const int chunks = (pieces[p].held + token + tokens + CHUNK - 1) / CHUNK;
            for (int group = 0; group < heads.groups; group++)
                for (int chunk = 0; chunk < chunks; chunk++, plan.rows += shared * tokens)
                    plan.units.push_back({p, group, token, tokens, chunk, plan.rows});
        }
    }
    return plan;
}

// Merge the chunks of one unit's rows, in order (Milakov and Gimelshein 2018), into `mixed` [T, H D]. `first` is chunk
// 0's.
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

std::vector<size_t> firsts_of(const Plan& plan) {
    std::vector<size_t> firsts;
    for (size_t u = 0; u < plan.units.size(); u++)
        if (plan.units[u].chunk == 0) firsts.push_back(u);
    return firsts;
}

}  // namespace
