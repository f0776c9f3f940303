#include "point_finder.h"

#include <algorithm>

void point_finder::find_attention(graph_points & found, ggml_tensor * attention, ggml_tensor * out) {
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
    point p = q ? at(q) : missing("llama.cpp computes it in another shape");
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
    point z = missing("no multiplication by a weight was found after the attention");
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
        inner = missing("llama.cpp computes it in another shape");
    }
    put(hook_point::pattern, inner);
    float bias = 0.0f;
    std::memcpy(&bias, &attention->op_params[1], sizeof(bias));
    const bool late = !nodes.flash && bias != 0.0f;
    put(hook_point::attn_scores, late ? missing("the softmax itself adds the position biases (ALiBi)") : inner);
}

void point_finder::find_mlp(graph_points & found, const tensors & mlp, ggml_tensor * out) {
    const auto put = [&](hook_point hook, point p) { found.points[static_cast<size_t>(hook)][il] = std::move(p); };
    tensors nodes;
    for (ggml_tensor * t : mlp) {
        ancestors(t, nodes);
    }
    const auto chosen = std::find_if(nodes.begin(), nodes.end(), [](ggml_tensor * t) { return t->op == GGML_OP_MUL_MAT_ID; });
    if (chosen != nodes.end()) {
        put(hook_point::mlp_post, missing("its neurons belong to the experts that the router chooses, which differ by token"));
        // From the experts that were chosen back to what they were chosen by.
        tensors from;
        ancestors((*chosen)->src[2], from);
        point router = missing("the product that chooses the experts was not found");
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
    point neurons = missing("no multiplication by a weight was found before its output");
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

void point_finder::find_block(graph_points & found) {
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
        return refuse("the output of this block is not the sum of its input and what its parts add");
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
        put(hook_point::resid_mid, mid && mid != end ? at(mid) : missing("attention and MLP read the same state in parallel: there is none between them"));
        find_attention(found, *attention.begin(), out);
    }
    ggml_tensor * out = mlp.size() == 1 ? *mlp.begin() : mlp.empty() ? nullptr : sum_of(mlp);
    if (!out) {
        for (auto hook : { hook_point::mlp_out, hook_point::mlp_post, hook_point::router }) {
            put(hook, missing(mlp.empty() ? "the block has no MLP" : "what its MLP adds is not a separate node"));
        }
        return;
    }
    put(hook_point::mlp_out, at(out));
    find_mlp(found, mlp, out);
}

graph_points point_finder::find() {
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
    std::fill(embed.begin(), embed.end(), missing("it exists only once, before layer 0"));
    std::fill(norms.begin(), norms.end(), missing("it exists only once, after the last layer"));
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


graph_points find_points(ggml_cgraph * graph, int32_t n_layer) {
    return point_finder(graph, n_layer).find();
}
