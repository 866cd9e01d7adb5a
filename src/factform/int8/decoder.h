// The layers of Llama-shaped models, and kept blocks put where a text holds its keys. Knows nothing of vocabularies.
#pragma once

#include "attention.h"
#include "products.h"
#include "threads.h"

namespace {

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

// A block's keys before rotation and values as they are kept, [L, G, length, D]: a key is key_scales * keys +
// key_centers, [L, G, runs, D], one for each run of tokens; a value is value_scales [L, G, length] * values.
struct Kept {
    const int8_t* keys;
    const int8_t* values;
    const float* key_scales;
    const float* key_centers;
    const float* value_scales;
    const uint8_t* rotated;  // [L]
    int32_t layers, groups, size, length, run;
};

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
            store(key + d, widened(from + d) * load(kept.key_scales + run + d) + load(kept.key_centers + run + d));
        if (turned) rotate(key, cos + static_cast<int64_t>(t) * size, sin + static_cast<int64_t>(t) * size, size);
        float* value = values + static_cast<int64_t>(t) * size;
        for (int d = 0; d < size; d += 16)
            store(value + d, widened(kept.values + token * size + d) * kept.value_scales[token]);
    }
}

// --- all layers -----------------------------------------------------------------------------------------------------

struct Room {
    Numbers<float> hidden, wide, mixed, partial;
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
               Numbers<float>& own) {
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
    Numbers<float> attention;
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

}  // namespace
