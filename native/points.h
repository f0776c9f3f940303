#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

struct ggml_cgraph;
struct ggml_tensor;

// Where states can be read and written, in the order of HOOKS in src/hooks/types.ts. `embed` and `final_norm` are one
// place each, at the first and the last layer; all others are one a block.
enum class hook_point : int32_t {
    embed, resid_pre, resid_mid, resid_post, attn_out, mlp_out, z, q, k, v, attn_scores, pattern, mlp_post, router, final_norm,
    count
};

inline constexpr size_t N_HOOKS = static_cast<size_t>(hook_point::count);

// A point in the graph of a context. Nodes are known by their place in the graph: names repeat, or are missing.
struct point {
    int32_t     node  = -1;      // index in the graph; -1: there is none, and `why` says the reason
    int32_t     op    = 0;       // ggml_op of that node, to recognise it by
    int32_t     axis  = 1;       // of the tensor: which one counts the rows of the batch
    int64_t     width = 0;       // numbers a row; 0 where it depends on the prompt (scores, pattern)
    int32_t     heads = 0;       // parts of a row that belong to a head each; 0: it has none
    bool        trimmed = false; // it holds only rows with outputs
    bool        rotated = false; // q, k: a position encoding was applied to them
    bool        input   = false; // embed: the rows of a picture do not pass this node, they are what the batch is given
    std::string why;
};

// The attention operation of a block: a softmax with a mask, or flash attention, which computes no scores that could be read.
struct attention_nodes {
    int32_t node  = -1; // the operation
    int32_t stop  = -1; // what it reads last: all of it has been computed when this node has
    int32_t store = -1; // writes keys to the cache; its indices are the cells of the batch
    int32_t heads = 0;
    bool    flash = false;
};

struct graph_points {
    int32_t                                        n_nodes = 0;
    std::array<std::vector<point>, N_HOOKS>        points;    // by hook and layer
    std::vector<attention_nodes>                   attention; // by layer
    const ggml_tensor *                            table = nullptr; // embeddings of tokens, one of the weights
    float                                          table_scale = 1.0f; // the model's own factor on them
    std::string                                    last_block; // name of the node with the last block's output; empty: there is none

    const point & at(hook_point hook, int32_t layer) const { return points[static_cast<size_t>(hook)][layer]; }
    bool has(hook_point hook, int32_t layer) const {
        const auto & list = points[static_cast<size_t>(hook)];
        return layer >= 0 && layer < static_cast<int32_t>(list.size()) && list[layer].node >= 0;
    }
};

// Sizes of the graph that is searched. No model has as many heads, so that an axis with so many entries is one of rows.
inline constexpr uint32_t PROBE_ROWS = 31, PROBE_OUTPUTS = 29;

// Looks for the points by what the nodes compute from what; only a block's output and the final norm go by llama.cpp's names.
// `graph` is one of PROBE_ROWS tokens and PROBE_OUTPUTS outputs.
graph_points find_points(ggml_cgraph * graph, int32_t n_layer);
