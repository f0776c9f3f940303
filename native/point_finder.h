#pragma once

#include "points.h"

#include "ggml.h"

#include <cstring>
#include <set>
#include <unordered_map>

// What a node of a graph is, by what it computes from what.
bool is_view(const ggml_tensor * t);
bool is_constant(const ggml_tensor * t);
bool is_product(const ggml_tensor * t);

// What the scheduler copied to another device: ggml names it DEVICE#NAME#N. Null for anything else.
const char * name_of_copied(const ggml_tensor * t);

// Picks the rows with outputs.
bool selects_rows(const ggml_tensor * t);

ggml_tensor * behind_views(ggml_tensor * t);

// The number in a name such as "blk.3.attn_q.weight"; -1 for anything else.
int32_t block_of_weight(const ggml_tensor * t);

bool is_row_count(int64_t n);

using tensors = std::set<ggml_tensor *>;

// Searches one graph.
class point_finder {
public:
    point_finder(ggml_cgraph * graph, int32_t n_layer) : graph(graph), n_layer(n_layer) {
        // In the order of the graph, where what a node reads comes before it.
        for (int i = 0; i < ggml_graph_n_nodes(graph); ++i) {
            ggml_tensor * t = ggml_graph_node(graph, i);
            // Where a block reads a copy on another device, it is what was copied that a hook changes. Nobody computes this graph.
            for (ggml_tensor *& s : t->src) {
                if (const char * copied = s ? name_of_copied(s) : nullptr) {
                    const auto original = names.find(std::string(copied, std::strrchr(copied, '#')));
                    if (original != names.end() && ggml_are_same_shape(original->second, s)) {
                        s = original->second;
                    }
                }
            }
            order[t] = i;
            names[t->name] = t;
            int32_t last = -1;
            for (const ggml_tensor * s : t->src) {
                last = s ? std::max(last, block(s)) : last;
            }
            blocks[t] = last;
        }
    }

    graph_points find();

private:
    ggml_cgraph * graph;
    int32_t       n_layer;
    int32_t       il = 0; // block that is searched
    std::unordered_map<const ggml_tensor *, int32_t> order, blocks;
    std::unordered_map<std::string, ggml_tensor *>   names;

    // Of the block that is searched: sums that its output is made of, and their terms.
    tensors sums, terms, inputs;

    // The last block whose weights a tensor was computed with; -1: none.
    int32_t block(const ggml_tensor * t) const {
        const auto it = blocks.find(t);
        return it != blocks.end() ? it->second : block_of_weight(t);
    }
    bool inside(const ggml_tensor * t) const { return block(t) >= il; }

    ggml_tensor * named(const char * name, int32_t layer = -1) const {
        const auto it = names.find(layer < 0 ? name : std::string(name) + "-" + std::to_string(layer));
        return it == names.end() ? nullptr : it->second;
    }

    void expand(ggml_tensor * t) {
        if (!inside(t)) {
            inputs.insert(selects_rows(t) ? t->src[0] : t);
        } else if (selects_rows(t) || ((is_view(t) || t->op == GGML_OP_CONT) && ggml_are_same_shape(t, t->src[0]))) {
            sums.insert(t);
            expand(t->src[0]);
        } else if (t->op == GGML_OP_ADD && ggml_are_same_shape(t->src[0], t->src[1]) && !is_constant(t->src[0]) && !is_constant(t->src[1])) {
            sums.insert(t);
            expand(t->src[0]);
            expand(t->src[1]);
        } else {
            terms.insert(t);
        }
    }

    void leaves(ggml_tensor * t, tensors & out) const {
        if (!inside(t)) {
            out.insert(selects_rows(t) ? t->src[0] : t);
        } else if (sums.contains(t)) {
            leaves(t->src[0], out);
            if (t->op == GGML_OP_ADD) {
                leaves(t->src[1], out);
            }
        } else {
            out.insert(t);
        }
    }

    // The sum of exactly these, the first one in the graph.
    ggml_tensor * sum_of(const tensors & wanted) const {
        ggml_tensor * found = nullptr;
        for (ggml_tensor * s : sums) {
            tensors below;
            leaves(s, below);
            if (s->op == GGML_OP_ADD && below == wanted && (!found || order.at(s) < order.at(found))) {
                found = s;
            }
        }
        return found;
    }

    // Nodes of the block that a tensor is computed from, itself included, without those of the sums.
    void ancestors(ggml_tensor * t, tensors & out) const {
        if (!inside(t) || sums.contains(t) || !order.contains(t) || !out.insert(t).second) {
            return;
        }
        for (ggml_tensor * s : t->src) {
            if (s) {
                ancestors(s, out);
            }
        }
    }

    point at(const ggml_tensor * t, int32_t heads = 0) const;
    point missing(const std::string & why) const { point p; p.why = why; return p; }
    const ggml_tensor * with_heads(const ggml_tensor * t) const;
    bool rotated(const ggml_tensor * t) const;
    void find_block(graph_points & found);
    void find_attention(graph_points & found, ggml_tensor * attention, ggml_tensor * out);
    void find_mlp(graph_points & found, const tensors & mlp, ggml_tensor * out);
    point stored(const ggml_tensor * cache, int32_t * store) const;
};
