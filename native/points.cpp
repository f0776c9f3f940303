#include "points.h"

#include "ggml.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <set>
#include <unordered_map>

namespace {

using tensors = std::set<ggml_tensor *>;

bool is_view(const ggml_tensor * t) {
    return t->op == GGML_OP_VIEW || t->op == GGML_OP_RESHAPE || t->op == GGML_OP_PERMUTE || t->op == GGML_OP_TRANSPOSE;
}

// What the scheduler copied to another device: ggml names it DEVICE#NAME#N. Null for anything else.
const char * name_of_copied(const ggml_tensor * t) {
    const char * first = t->op == GGML_OP_NONE && !t->view_src ? std::strchr(t->name, '#') : nullptr;
    return first && std::strchr(first + 1, '#') ? first + 1 : nullptr;
}

bool is_input(const ggml_tensor * t) {
    const char * copied = name_of_copied(t);
    const bool   weight = copied && (std::strstr(copied, ".weight") || std::strstr(copied, ".bias") || std::strstr(copied, ".scale"));
    return t->op == GGML_OP_NONE && ((t->flags & GGML_TENSOR_FLAG_INPUT) || (copied && !weight));
}

bool is_constant(const ggml_tensor * t) {
    return t->op == GGML_OP_NONE && !is_input(t);
}

bool is_product(const ggml_tensor * t) {
    return (t->op == GGML_OP_MUL_MAT || t->op == GGML_OP_MUL_MAT_ID) && is_constant(t->src[0]);
}

// Picks the rows with outputs.
bool selects_rows(const ggml_tensor * t) {
    return t->op == GGML_OP_GET_ROWS && t->src[0]->op != GGML_OP_NONE && is_input(t->src[1]);
}

ggml_tensor * behind_views(ggml_tensor * t) {
    while (is_view(t) || t->op == GGML_OP_CONT || t->op == GGML_OP_CPY || t->op == GGML_OP_DUP) {
        t = t->src[0];
    }
    return t;
}

// The number in a name such as "blk.3.attn_q.weight"; -1 for anything else.
int32_t block_of_weight(const ggml_tensor * t) {
    const char * copied = name_of_copied(t);
    const char * name   = copied ? copied : t->name;
    if (std::strncmp(name, "blk.", 4) != 0) {
        return -1;
    }
    char * end = nullptr;
    const long n = std::strtol(name + 4, &end, 10);
    return end != name + 4 && *end == '.' ? static_cast<int32_t>(n) : -1;
}

bool is_row_count(int64_t n) {
    return n == PROBE_ROWS || n == PROBE_OUTPUTS;
}

// Searches one graph.
class finder {
public:
    finder(ggml_cgraph * graph, int32_t n_layer) : graph(graph), n_layer(n_layer) {
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

// How rows lie in a tensor; `why` where that is not one of the two ways there are.
point finder::at(const ggml_tensor * t, int32_t heads) const {
    point p;
    if (t->ne[3] == 1 && t->ne[2] > 1 && is_row_count(t->ne[2])) {
        p.axis  = 2;
        p.heads = static_cast<int32_t>(t->ne[1]);
    } else if (t->ne[3] == 1 && t->ne[2] == 1 && is_row_count(t->ne[1])) {
        p.axis  = 1;
        p.heads = heads;
    } else {
        return missing("llama.cpp computes it in a shape of its own");
    }
    if (t->type != GGML_TYPE_F32 || t->nb[0] != sizeof(float) || !order.contains(t)) {
        return missing("llama.cpp does not compute it as 32-bit numbers of its own");
    }
    p.width   = t->ne[0] * (p.axis == 2 ? t->ne[1] : 1);
    p.trimmed = t->ne[p.axis] == PROBE_OUTPUTS;
    p.node    = order.at(t);
    p.op      = t->op;
    if (p.heads > 0 && p.width % p.heads != 0) {
        return missing("its numbers do not divide into the heads");
    }
    return p;
}

// Back through views to [head size, heads, rows].
const ggml_tensor * finder::with_heads(const ggml_tensor * t) const {
    while (!(t->ne[2] == PROBE_ROWS && t->ne[3] == 1)) {
        const bool moves = is_view(t) || t->op == GGML_OP_CONT;
        if (!moves || ggml_nelements(t) != ggml_nelements(t->src[0])) {
            return nullptr;
        }
        t = t->src[0];
    }
    return t;
}

bool finder::rotated(const ggml_tensor * t) const {
    if (t->op == GGML_OP_ROPE) {
        return true;
    }
    if (!inside(t) || t->op == GGML_OP_MUL_MAT) {
        return false;
    }
    return std::any_of(std::begin(t->src), std::end(t->src), [&](const ggml_tensor * s) { return s && rotated(s); });
}

// What is written to a cache; `store` gets the node that does it.
point finder::stored(const ggml_tensor * cache, int32_t * store) const {
    for (int i = 0; i < ggml_graph_n_nodes(graph); ++i) {
        const ggml_tensor * n = ggml_graph_node(graph, i);
        if (n->op == GGML_OP_SET_ROWS && (n->view_src ? n->view_src : n->src[2]) == cache) {
            if (store) {
                *store = i;
            }
            const ggml_tensor * t = with_heads(n->src[0]);
            if (!t) {
                return missing("llama.cpp stores it in a shape of its own");
            }
            point p = at(t);
            p.rotated = rotated(t);
            return p;
        }
    }
    return missing("this block writes none: it reads those of another one");
}

void finder::find_attention(graph_points & found, ggml_tensor * attention, ggml_tensor * out) {
    const auto put = [&](hook_point hook, point p) { found.points[static_cast<size_t>(hook)][il] = std::move(p); };
    attention_nodes & nodes = found.attention[il];
    nodes.node  = order.at(attention);
    nodes.flash = attention->op == GGML_OP_FLASH_ATTN_EXT;

    ggml_tensor * scores = attention->src[0];
    ggml_tensor * query, * key, * value = nullptr;
    if (nodes.flash) {
        query = attention->src[0];
        key   = attention->src[1];
        value = attention->src[2];
    } else {
        ggml_tensor * product = scores;
        while (product && product->op != GGML_OP_MUL_MAT) {
            product = product->src[0];
        }
        if (!product) {
            return;
        }
        query = product->src[1];
        key   = product->src[0];
        for (const auto & [t, _] : order) {
            if (t->op == GGML_OP_MUL_MAT && t->src[1] == attention) {
                value = t->src[0];
            }
        }
    }
    nodes.stop  = order.at(scores);
    nodes.heads = static_cast<int32_t>(attention->ne[nodes.flash ? 1 : 2]);

    // A factor that goes onto the queries belongs to the scores.
    const ggml_tensor * q = with_heads(query);
    if (const ggml_tensor * scaled = q ? behind_views(const_cast<ggml_tensor *>(q)) : nullptr; scaled && scaled->op == GGML_OP_SCALE) {
        q = with_heads(scaled->src[0]);
    }
    point p = q ? at(q) : missing("llama.cpp computes it in a shape of its own");
    p.rotated = q && rotated(q);
    put(hook_point::q, p);

    const ggml_tensor * key_cache   = behind_views(key);
    const ggml_tensor * value_cache = value ? behind_views(value) : nullptr;
    const point k = stored(key_cache, &nodes.store);
    if (key_cache == value_cache) {
        for (auto hook : { hook_point::k, hook_point::v }) {
            put(hook, missing("keys and values are stored as one compressed vector"));
        }
    } else {
        put(hook_point::k, k);
        put(hook_point::v, value_cache ? stored(value_cache, nullptr) : missing("no product of the pattern with it was found"));
    }

    // The last product with a weight between the attention and the stream.
    point z = missing("no product with a weight was found behind the attention");
    for (ggml_tensor * t = out; t != attention;) {
        const auto leads = [&](ggml_tensor * s) {
            tensors from;
            if (s) {
                ancestors(s, from);
            }
            return from.contains(attention);
        };
        if (is_product(t) && leads(t->src[1])) {
            z = at(t->src[1], nodes.heads);
            break;
        }
        ggml_tensor ** next = std::find_if(std::begin(t->src), std::end(t->src), leads);
        if (next == std::end(t->src)) {
            break;
        }
        t = *next;
    }
    put(hook_point::z, z);

    point inner;
    inner.node  = nodes.node;
    inner.op    = attention->op;
    inner.heads = nodes.heads;
    if (nodes.flash) {
        inner = missing("flash attention does not compute it");
    } else if (attention->ne[3] != 1 || attention->ne[1] != PROBE_ROWS || attention->type != GGML_TYPE_F32 || scores->type != GGML_TYPE_F32 ||
               nodes.store < 0) {
        inner = missing("llama.cpp computes it in a shape of its own");
    }
    put(hook_point::pattern, inner);
    float bias = 0.0f;
    std::memcpy(&bias, &attention->op_params[1], sizeof(bias));
    const bool late = !nodes.flash && bias != 0.0f;
    put(hook_point::attn_scores, late ? missing("the softmax itself adds to them what tells positions apart (ALiBi)") : inner);
}

void finder::find_mlp(graph_points & found, const tensors & mlp, ggml_tensor * out) {
    const auto put = [&](hook_point hook, point p) { found.points[static_cast<size_t>(hook)][il] = std::move(p); };
    tensors nodes;
    for (ggml_tensor * t : mlp) {
        ancestors(t, nodes);
    }
    const auto chosen = std::find_if(nodes.begin(), nodes.end(), [](ggml_tensor * t) { return t->op == GGML_OP_MUL_MAT_ID; });
    if (chosen != nodes.end()) {
        put(hook_point::mlp_post, missing("its neurons are those of the experts that the router chooses, other ones for each token"));
        // From the experts that were chosen back to what they were chosen by.
        tensors from;
        ancestors((*chosen)->src[2], from);
        point router = missing("no product was found that the experts are chosen by");
        int32_t last = -1;
        for (ggml_tensor * t : from) {
            if (t->op == GGML_OP_MUL_MAT && is_constant(t->src[0]) && order.at(t) > last) {
                last   = order.at(t);
                router = at(t);
            }
        }
        for (ggml_tensor * t : from) { // with its bias
            if (t->op == GGML_OP_ADD && router.node >= 0 && t->src[0] == ggml_graph_node(graph, router.node) && is_constant(t->src[1])) {
                router = at(t);
                break;
            }
        }
        put(hook_point::router, router);
        return;
    }
    put(hook_point::router, missing("the block has no experts"));
    point neurons = missing("no product with a weight was found before its output");
    for (ggml_tensor * t = out; t && inside(t);) {
        if (is_product(t)) {
            neurons = at(t->src[1]);
            break;
        }
        // Norms, biases and factors behind the product: one way back.
        ggml_tensor * next = nullptr;
        for (ggml_tensor * s : t->src) {
            if (s && !is_constant(s) && inside(s)) {
                if (next) {
                    next = nullptr;
                    break;
                }
                next = s;
            }
        }
        t = next;
    }
    put(hook_point::mlp_post, neurons);
}

void finder::find_block(graph_points & found) {
    const auto put = [&](hook_point hook, point p) { found.points[static_cast<size_t>(hook)][il] = std::move(p); };
    for (size_t hook = static_cast<size_t>(hook_point::resid_pre); hook < static_cast<size_t>(hook_point::final_norm); ++hook) {
        found.points[hook][il] = missing("llama.cpp does not name the output of this block");
    }
    ggml_tensor * end = named("l_out", il);
    // The models with a deepstack (Qwen3-VL, Granite 4 Vision) add further rows of a picture's encoder to what a block hands
    // on, between its own output and what the next block reads.
    ggml_tensor * handed_on = named("deepstack_in", il + 1);
    handed_on = handed_on ? handed_on : named("deepstack_out", il);
    handed_on = handed_on ? handed_on : end;
    if (!handed_on) {
        return;
    }
    put(hook_point::resid_post, at(handed_on));

    sums.clear();
    terms.clear();
    inputs.clear();
    end = end ? end : handed_on;
    // A factor on all of it (Gemma 4): the parts are those of what it goes onto.
    while ((end->op == GGML_OP_MUL && is_constant(end->src[1])) || end->op == GGML_OP_SCALE) {
        end = end->src[0];
    }
    expand(end);
    const auto refuse = [&](const std::string & why) {
        for (auto hook : { hook_point::resid_pre, hook_point::resid_mid, hook_point::attn_out, hook_point::mlp_out, hook_point::z,
                 hook_point::q, hook_point::k, hook_point::v, hook_point::attn_scores, hook_point::pattern, hook_point::mlp_post, hook_point::router }) {
            put(hook, missing(why));
        }
    };
    if (inputs.size() != 1 || terms.empty()) {
        return refuse("the output of this block is no sum of its input and of what its parts add");
    }
    put(hook_point::resid_pre, at(*inputs.begin()));

    tensors attention, mixing, mlp; // operations; terms that hold one; the others
    for (ggml_tensor * t : terms) {
        tensors from;
        ancestors(t, from);
        bool mixes = false;
        for (ggml_tensor * n : from) {
            // A softmax without a mask is a router's.
            if (n->op == GGML_OP_FLASH_ATTN_EXT || (n->op == GGML_OP_SOFT_MAX && n->src[1])) {
                attention.insert(n);
                mixes = true;
            }
        }
        (mixes ? mixing : mlp).insert(t);
    }
    if (mixing.size() != 1 || attention.size() != 1) {
        for (auto hook : { hook_point::resid_mid, hook_point::attn_out, hook_point::z, hook_point::q, hook_point::k, hook_point::v,
                 hook_point::attn_scores, hook_point::pattern }) {
            put(hook, missing(attention.empty() ? "the block has no attention" : "the block has more than one attention"));
        }
    } else {
        ggml_tensor * out = *mixing.begin();
        put(hook_point::attn_out, at(out));
        ggml_tensor * mid = sum_of({ *inputs.begin(), out });
        put(hook_point::resid_mid, mid && mid != end ? at(mid) : missing("attention and MLP read the same state side by side: there is none between them"));
        find_attention(found, *attention.begin(), out);
    }
    ggml_tensor * out = mlp.size() == 1 ? *mlp.begin() : mlp.empty() ? nullptr : sum_of(mlp);
    if (!out) {
        for (auto hook : { hook_point::mlp_out, hook_point::mlp_post, hook_point::router }) {
            put(hook, missing(mlp.empty() ? "the block has no MLP" : "what its MLP adds is no node of its own"));
        }
        return;
    }
    put(hook_point::mlp_out, at(out));
    find_mlp(found, mlp, out);
}

graph_points finder::find() {
    graph_points found;
    found.n_nodes = ggml_graph_n_nodes(graph);
    found.attention.resize(n_layer);
    for (auto & points : found.points) {
        points.resize(n_layer);
    }
    for (il = 0; il < n_layer; ++il) {
        find_block(found);
    }

    auto & embed = found.points[static_cast<size_t>(hook_point::embed)];
    auto & norms = found.points[static_cast<size_t>(hook_point::final_norm)];
    std::fill(embed.begin(), embed.end(), missing("it is one place, before layer 0"));
    std::fill(norms.begin(), norms.end(), missing("it is one place, behind the last layer"));
    point & first = found.points[static_cast<size_t>(hook_point::resid_pre)].front();
    if (first.node >= 0) {
        const ggml_tensor * t = ggml_graph_node(graph, first.node);
        first.input = t->op == GGML_OP_GET_ROWS && is_constant(t->src[0]);
    }
    embed.front() = first;
    if (first.node >= 0) {
        const ggml_tensor * t = ggml_graph_node(graph, first.node);
        while (t && t->op != GGML_OP_NONE && !(t->op == GGML_OP_GET_ROWS && is_constant(t->src[0]))) {
            float factor = 1.0f;
            if (t->op == GGML_OP_SCALE) {
                std::memcpy(&factor, t->op_params, sizeof(factor));
            }
            found.table_scale *= factor;
            t = t->src[0];
        }
        found.table = t && t->op == GGML_OP_GET_ROWS ? t->src[0] : nullptr;
    }
    if (found.has(hook_point::resid_post, n_layer - 1)) {
        found.last_block = ggml_graph_node(graph, found.at(hook_point::resid_post, n_layer - 1).node)->name;
    }
    const ggml_tensor * norm = named("result_norm");
    norms.back() = norm ? at(norm) : missing("llama.cpp does not name the final norm");
    return found;
}

} // namespace

graph_points find_points(ggml_cgraph * graph, int32_t n_layer) {
    return finder(graph, n_layer).find();
}
