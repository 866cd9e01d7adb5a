// The layers of encoders (BERT): every token attends to all of its text, norms follow the sums. Knows nothing of words.
//
// Attention is in whole numbers too, of 12 bits and a sign: a text's queries, keys and values of one head under one
// scale each, and the shares under the largest one. What is added up has the same bits in any order.
#pragma once

#include <atomic>

#include "products.h"
#include "threads.h"

namespace {

constexpr int RUN = 64;            // tokens of short texts that are read in one go, so that a matrix is worth fetching
constexpr int KEYS = 256;          // so many shares times values stay below 2^31
constexpr float SHARES = 4095.0f;  // the largest share,
constexpr float VALUES = 2047.0f;  // value,
constexpr float PLACES = 4095.0f;  // and query or key, of heads of 128 at most

struct EncoderLayer {
    const float* attention_norm;  // weight, then bias: [2, N]
    const float* output_norm;
    Matrix qkv, output, inner, outer;
};

struct Encoder {
    const EncoderLayer* layers;
    int32_t layer_count, hidden, heads, intermediate, digits;
    float eps;
    int head() const { return hidden / heads; }
};

// Rows [first, end) of one text, or of several that follow each other.
struct Rows {
    int first, end;
    int count() const { return end - first; }
};

// Short texts in a row, or a long one.
struct Run {
    std::vector<Rows> texts;
    Rows rows() const { return {texts.front().first, texts.back().end}; }
    Run moved(int64_t rows) const {
        Run run = *this;
        for (Rows& text : run.texts) text = {static_cast<int>(text.first + rows), static_cast<int>(text.end + rows)};
        return run;
    }
};

// What is read together by some threads: states [T, N], their digits, and what attention makes of them, [T, N].
struct Reading {
    float* x = nullptr;
    std::vector<Run> runs;
    Digits digits;
    Numbers<float> mixed;
    int tokens() const { return runs.back().rows().end; }
    void start(const Encoder& e, float* states, std::vector<Run> texts) {
        x = states;
        runs = std::move(texts);
        digits.size(tokens(), e.hidden, e.digits);
        mixed.resize(static_cast<size_t>(tokens()) * e.hidden);
    }
};

// One thread's room.
struct Desk {
    Numbers<float> projected, wide;
    Numbers<int16_t> queries, keys, values, rows, shares;
    Numbers<int32_t> scores;
    Digits digits;
};

// --- attention ------------------------------------------------------------------------------------------------------

// Rows [count, size] of an input, of which one follows another after `stride`.
struct Part {
    const float* at;
    int64_t stride;
    int count, size;
    const float* row(int64_t index) const { return at + index * stride; }
};

// How much one step is worth where `steps` are the largest number.
inline float step_of(const Part& part, float steps) {
    Lanes most = {};
    for (int t = 0; t < part.count; t++)
        for (int d = 0; d < part.size; d += 16) most = larger(most, absolute(load(part.row(t) + d)));
    return std::max(largest_of(most) / steps, std::numeric_limits<float>::min());
}

// The nearest whole numbers, whose low 16 bits these are.
INLINE Whole nearest(Lanes x) {
    return bits_of(x + NEAREST);
}

// Rows in steps, [rows, size], and zeros up to `rows`. Gives the step.
inline float whole_rows(const Part& part, int rows, int16_t* out) {
    const float step = step_of(part, PLACES), steps = 1.0f / step;
    for (int t = 0; t < part.count; t++)
        for (int d = 0; d < part.size; d += 16)
            store_low(out + t * part.size + d, nearest(load(part.row(t) + d) * steps));
    std::fill(out + part.count * part.size, out + rows * part.size, 0);
    return step;
}

// Rows [16, size] to a panel [size / 2][16][2].
inline void to_panel(const int16_t* rows, int size, int16_t* panel) {
    int d = 0;
#if defined(FACTFORM_VNNI) || defined(FACTFORM_AVX2)
    for (; d + 32 <= size; d += 32)
        transpose16((const float*)(rows + d), size / 2, (float*)(panel + d * PANEL), PANEL);
#endif
    for (; d < size; d += 2)
        for (int j = 0; j < PANEL; j++) std::memcpy(panel + d * PANEL + 2 * j, rows + j * size + d, 4);
}

// Values in steps, in panels [size / 16][wide / 2][16][2] of two tokens side by side; zeros up to `wide` tokens.
inline float value_panels(const Part& part, int wide, int16_t* out) {
    const float step = step_of(part, VALUES), steps = 1.0f / step;
    for (int t = 0; t < wide; t += 2)
        for (int d = 0; d < part.size; d += 16) {
            const Whole low = t < part.count ? nearest(load(part.row(t) + d) * steps) & 0xffff : Whole{};
            const Whole high = t + 1 < part.count ? nearest(load(part.row(t + 1) + d) * steps) << 16 : Whole{};
            store(reinterpret_cast<int32_t*>(out + d * wide + t * PANEL), low | high);
        }
    return step;
}

// Of scores [wide] of which `count` are a text's, times `unit`: 2 to the power of what each is beyond the largest, in
// SHARES-ths. Gives their sum. The polynomial is within 8e-5 of 2^f for f from -.5 to .5.
inline float shares_of(int32_t* scores, int count, int wide, float unit, int16_t* shares) {
    std::fill(scores + count, scores + wide, std::numeric_limits<int32_t>::min());
    Whole most = load(scores);
    for (int j = 16; j < wide; j += 16) most = larger(most, load(scores + j));
    const Lanes top = Lanes{} + largest_of(floats(most)) * unit;
    Lanes total = {};
    for (int j = 0; j < wide; j += 16) {
        const Lanes x = larger(floats(load(scores + j)) * unit - top, Lanes{} - 30.0f);
        const Lanes shifted = x + NEAREST, f = x - (shifted - NEAREST);
        Lanes p = Lanes{} + SHARES * 0.0551717746f;
        p = p * f + SHARES * 0.2426113724f;
        p = p * f + SHARES * 0.6932609700f;
        p = p * f + SHARES * 0.9999280273f;
        const Lanes share = of_bits(bits_of(p) + (bits_of(shifted) << 23)) + NEAREST;
        store_low(shares + j, bits_of(share));
        total += share - NEAREST;
    }
    return sum_of(total);
}

// P panels of values, mixed by ROWS rows of shares [ROWS, wide] into `rows` rows of `out`, each times its own unit.
template <int P>
inline void mix_panels(const int16_t* shares, const int16_t* values, int wide, const float* units, int rows, float* out,
                       int64_t stride) {
    Lanes mixed[ROWS][P] = {};
    for (int j = 0; j < wide; j += KEYS) {
        alignas(64) int32_t sums[ROWS][P * PANEL];
        sums_of<Sixteens, ROWS, P>(values + j * PANEL, wide * PANEL, std::min(KEYS, wide - j) / 2, shares + j, wide,
                                   sums[0], P * PANEL);
        UNROLL
        for (int r = 0; r < ROWS; r++)
            UNROLL
            for (int p = 0; p < P; p++) mixed[r][p] += floats(load(sums[r] + p * PANEL));
    }
    UNROLL
    for (int r = 0; r < ROWS; r++)
        if (r < rows)
            UNROLL
            for (int p = 0; p < P; p++) store(out + r * stride + p * PANEL, mixed[r][p] * units[r]);
}

// One head of one text: queries, keys and values [count, size] beside each other in `projected`, into `out`
// [count, stride].
inline void attend_text(const float* projected, int count, int size, Desk& desk, float* out, int64_t stride) {
    const int wide = padded(count, PANEL);
    const auto part = [&](int which) { return Part{projected + which * size, 3 * size, count, size}; };
    for (auto* room : {&desk.keys, &desk.values, &desk.rows}) room->resize(static_cast<size_t>(wide) * size);
    const int asked = padded(count, ROWS);
    desk.queries.resize(static_cast<size_t>(asked) * size);
    desk.scores.resize(ROWS * wide);
    desk.shares.resize(ROWS * wide);
    const float query = whole_rows(part(0), asked, desk.queries.data());
    const float key = whole_rows(part(1), wide, desk.rows.data());
    const float value = value_panels(part(2), wide, desk.values.data());
    for (int64_t t = 0; t < wide; t += PANEL) to_panel(desk.rows.data() + t * size, size, desk.keys.data() + t * size);
    const float unit = query * key * 1.44269504f / std::sqrt(static_cast<float>(size));
    for (int row = 0; row < count; row += ROWS) {
        const int rows = std::min(ROWS, count - row);
        const int16_t* queries = desk.queries.data() + row * size;
        in_threes(wide / PANEL, [&](auto panels, int p) {
            const int16_t* keys = desk.keys.data() + p * PANEL * size;
            int32_t* scores = desk.scores.data() + p * PANEL;
            sums_of<Sixteens, ROWS, panels()>(keys, size * PANEL, size / 2, queries, size, scores, wide);
        });
        float units[ROWS];
        for (int r = 0; r < rows; r++)
            units[r] =
                value / shares_of(desk.scores.data() + r * wide, count, wide, unit, desk.shares.data() + r * wide);
        in_threes(size / PANEL, [&](auto panels, int p) {
            mix_panels<panels()>(desk.shares.data(), desk.values.data() + p * PANEL * wide, wide, units, rows,
                                 out + row * stride + p * PANEL, stride);
        });
    }
}

// One head of all texts of a run.
inline void attend_run(const Encoder& e, const EncoderLayer& layer, Reading& reading, const Run& run, int head,
                       Desk& desk) {
    const int size = e.head(), wide = 3 * size, panels = size / PANEL;
    const Rows rows = run.rows();
    desk.projected.resize(static_cast<size_t>(rows.count()) * wide);
    float* projected = desk.projected.data() - static_cast<int64_t>(rows.first) * wide;
    for (int which = 0; which < 3; which++) {
        const int panel = (which * e.heads + head) * panels;
        float* out = projected + which * size;
        panels_of(layer.qkv, panel, panel + panels, reading.digits, rows.first, rows.end, out, wide, false);
    }
    float* mixed = reading.mixed.data() + head * size;
    for (const Rows& text : run.texts) {
        const int64_t first = text.first;
        attend_text(projected + first * wide, text.count(), size, desk, mixed + first * e.hidden, e.hidden);
    }
}

// --- rows -----------------------------------------------------------------------------------------------------------

// Mean 0 and variance 1, times a weight [N], plus a bias [N] that follows it.
inline void layer_norm(float* x, const float* weight, int n, float eps) {
    Lanes sum = {}, squares = {};
    for (int i = 0; i < n; i += 16) sum += load(x + i);
    const float mean = sum_of(sum) / static_cast<float>(n);
    for (int i = 0; i < n; i += 16) squares += (load(x + i) - mean) * (load(x + i) - mean);
    const float scale = 1.0f / std::sqrt(sum_of(squares) / static_cast<float>(n) + eps);
    for (int i = 0; i < n; i += 16)
        store(x + i, (load(x + i) - mean) * scale * load(weight + i) + load(weight + n + i));
}

// x times the normal distribution's share below x, .5 + x P(x^2 / 8 - 1) within +-4; error below 2e-4.
inline void gelu(float* x, int n) {
    for (int i = 0; i < n; i += 16) {
        const Lanes v = load(x + i), c = smaller(larger(v, Lanes{} - 4.0f), Lanes{} + 4.0f), u = c * c * 0.125f - 1.0f;
        Lanes p = Lanes{} + 0.00592144692f;
        p = p * u - 0.0165345839f;
        p = p * u + 0.0241478156f;
        p = p * u - 0.0354760058f;
        p = p * u + 0.0553951275f;
        p = p * u - 0.0844245625f;
        p = p * u + 0.1759707621f;
        store(x + i, v * (c * p + 0.5f));
    }
}

// --- all layers -----------------------------------------------------------------------------------------------------

// What follows attention, for rows [first, end): of few enough that all of it stays in the core's own cache.
inline void finish_rows(const Encoder& e, const EncoderLayer& layer, Reading& reading, Rows rows, Desk& desk) {
    const int n = e.hidden, inner = e.intermediate, count = rows.count();
    float* x = reading.x + static_cast<int64_t>(rows.first) * n;
    desk.digits.size(count, std::max(n, inner), e.digits);
    desk.wide.resize(static_cast<size_t>(count) * inner);
    const float* mixed = reading.mixed.data() + static_cast<int64_t>(rows.first) * n;
    for (int t = 0; t < count; t++) to_digits(mixed + t * n, n, desk.digits, t);
    product(layer.output, desk.digits, count, x, n, true, 0, 1);
    for (int t = 0; t < count; t++) {
        layer_norm(x + t * n, layer.attention_norm, n, e.eps);
        to_digits(x + t * n, n, desk.digits, t);
    }
    product(layer.inner, desk.digits, count, desk.wide.data(), inner, false, 0, 1);
    for (int t = 0; t < count; t++) {
        gelu(desk.wide.data() + t * inner, inner);
        to_digits(desk.wide.data() + t * inner, inner, desk.digits, t);
    }
    product(layer.outer, desk.digits, count, x, n, true, 0, 1);
    for (int t = 0; t < count; t++) {
        layer_norm(x + t * n, layer.output_norm, n, e.eps);
        to_digits(x + t * n, n, reading.digits, rows.first + t);
    }
}

// Rows [first, end) in blocks of about the same size, all but the last a multiple of ROWS.
inline std::vector<Rows> blocks_of(int first, int end) {
    std::vector<Rows> blocks;
    const int count = end - first, most = (count + ROW_BLOCK - 1) / ROW_BLOCK;
    for (int b = 0, row = first; row < end; row = blocks.back().end, b++)
        blocks.push_back({row, std::min(end, first + padded(count * (b + 1) / most, ROWS))});
    return blocks;
}

// Thread `id` of so many that read the same texts.
inline void read_all(const Encoder& e, Reading& reading, Desk& desk, int id, int threads, Barrier& barrier) {
    const Span mine = part(reading.tokens(), id, threads);
    const Span units = part(static_cast<int64_t>(reading.runs.size()) * e.heads, id, threads);
    for (int64_t t = mine.first; t < mine.end; t++)
        to_digits(reading.x + t * e.hidden, e.hidden, reading.digits, static_cast<int>(t));
    barrier.wait(threads);
    const std::vector<Rows> blocks = blocks_of(static_cast<int>(mine.first), static_cast<int>(mine.end));
    for (int index = 0; index < e.layer_count; index++) {
        const EncoderLayer& layer = e.layers[index];
        for (int64_t u = units.first; u < units.end; u++)
            attend_run(e, layer, reading, reading.runs[u / e.heads], static_cast<int>(u % e.heads), desk);
        barrier.wait(threads);
        for (const Rows& rows : blocks) finish_rows(e, layer, reading, rows, desk);
        barrier.wait(threads);
    }
}

// Texts of these lengths, in runs of no less than RUN tokens but for the last.
inline std::vector<Run> runs_of(const int32_t* lengths, int count) {
    std::vector<Run> runs;
    for (int p = 0, row = 0; p < count; row += lengths[p], p++) {
        if (!lengths[p]) continue;
        if (runs.empty() || runs.back().rows().count() >= RUN) runs.push_back({});
        runs.back().texts.push_back({row, row + lengths[p]});
    }
    return runs;
}

// Whether threads that take one run after the other are all at work nearly all the time. They then never wait for each
// other; where they would idle, all read all runs together.
inline bool shared_evenly(int64_t runs, int64_t threads) {
    const int64_t rounds = (runs + threads - 1) / threads;
    return 4 * runs >= 3 * rounds * threads;
}

}  // namespace
