#include "point_finder.h"

#include <algorithm>
#include <cstdlib>

bool is_view(const ggml_tensor * t) {
    return t->op == GGML_OP_VIEW || t->op == GGML_OP_RESHAPE || t->op == GGML_OP_PERMUTE || t->op == GGML_OP_TRANSPOSE;
}

const char * name_of_copied(const ggml_tensor * t) {
    const char * first = t->op == GGML_OP_NONE && !t->view_src ? std::strchr(t->name, '#') : nullptr;
    return first && std::strchr(first + 1, '#') ? first + 1 : nullptr;
}

static bool is_input(const ggml_tensor * t) {
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

bool selects_rows(const ggml_tensor * t) {
    return t->op == GGML_OP_GET_ROWS && t->src[0]->op != GGML_OP_NONE && is_input(t->src[1]);
}

ggml_tensor * behind_views(ggml_tensor * t) {
    while (is_view(t) || t->op == GGML_OP_CONT || t->op == GGML_OP_CPY || t->op == GGML_OP_DUP) {
        t = t->src[0];
    }
    return t;
}

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

// How rows lie in a tensor; `why` where that is not one of the two ways there are.
point point_finder::at(const ggml_tensor * t, int32_t heads) const {
    point p;
    if (t->ne[3] == 1 && t->ne[2] > 1 && is_row_count(t->ne[2])) {
        p.axis  = 2;
        p.heads = static_cast<int32_t>(t->ne[1]);
    } else if (t->ne[3] == 1 && t->ne[2] == 1 && is_row_count(t->ne[1])) {
        p.axis  = 1;
        p.heads = heads;
    } else {
        return missing("llama.cpp computes it in another shape");
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
const ggml_tensor * point_finder::with_heads(const ggml_tensor * t) const {
    while (!(t->ne[2] == PROBE_ROWS && t->ne[3] == 1)) {
        const bool moves = is_view(t) || t->op == GGML_OP_CONT;
        if (!moves || ggml_nelements(t) != ggml_nelements(t->src[0])) {
            return nullptr;
        }
        t = t->src[0];
    }
    return t;
}

bool point_finder::rotated(const ggml_tensor * t) const {
    if (t->op == GGML_OP_ROPE) {
        return true;
    }
    if (!inside(t) || t->op == GGML_OP_MUL_MAT) {
        return false;
    }
    return std::any_of(std::begin(t->src), std::end(t->src), [&](const ggml_tensor * s) { return s && rotated(s); });
}

// What is written to a cache; `store` gets the node that does it.
point point_finder::stored(const ggml_tensor * cache, int32_t * store) const {
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
