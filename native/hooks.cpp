#include "hooks.h"

#include "errors.h"

#include "ggml-backend.h"
#include "ggml.h"

#include <cfloat>
#include <cmath>
#include <cstdio>
#include <string_view>

// Where a state stands, in the order of hook_point. `shift` is added to the layer: a node "in" belongs to the block before.
struct node_kind {
    hook_point   hook;
    const char * name;
    int32_t      shift;
};

// Later ones win: the models with a deepstack (Qwen3-VL, Granite 4 Vision) add further rows of a picture's encoder to what a
// block hands on, between l_out and what the next block reads.
static const node_kind NODES[] = {
    { hook_point::resid_post, "l_out",         0 },
    { hook_point::resid_post, "deepstack_out", 0 },
    { hook_point::resid_post, "deepstack_in", -1 },
};

hook_nodes find_hook_nodes(ggml_cgraph * graph, int32_t n_layer) {
    hook_nodes found;
    for (auto & names : found) {
        names.resize(n_layer);
    }
    for (const auto & kind : NODES) {
        const std::string format = std::string(kind.name) + "-%d%c"; // ggml derives names such as "l_out-3 (view)"
        for (int i = 0; i < ggml_graph_n_nodes(graph); ++i) {
            const char * name  = ggml_graph_node(graph, i)->name;
            int          layer = -1;
            char         rest  = 0;
            if (std::sscanf(name, format.c_str(), &layer, &rest) == 1 && layer + kind.shift >= 0 && layer + kind.shift < n_layer) {
                found[static_cast<size_t>(kind.hook)][layer + kind.shift] = name;
            }
        }
    }
    return found;
}

hook_table::armed_node & hook_table::node_of(const hook_nodes & names, hook_point hook, int32_t layer) {
    const std::string & name = names[static_cast<size_t>(hook)][layer];
    if (name.empty()) {
        throw coded_error("HOOK_UNSUPPORTED", "the graph of this model has no node for the output of layer " + std::to_string(layer));
    }
    return nodes[name];
}

void hook_table::arm(const hook_nodes & names, int32_t n_embd, std::vector<int32_t> output_row, std::vector<capture> captures, std::vector<patch> patches) {
    disarm();
    this->n_embd     = n_embd;
    this->output_row = std::move(output_row);
    this->captures   = std::move(captures);
    this->patches    = std::move(patches);
    for (int32_t row : this->output_row) {
        n_output += row >= 0;
    }
    for (const auto & c : this->captures) {
        node_of(names, c.hook, c.layer).captures.push_back(&c);
    }
    for (const auto & p : this->patches) {
        node_of(names, p.hook, p.layer).patches.push_back(&p);
    }
}

void hook_table::disarm() {
    nodes.clear();
    captures.clear();
    patches.clear();
    output_row.clear();
    failure_code = "NATIVE_FAILURE";
    failure.clear();
    n_output = 0;
}

void hook_table::check_fired() const {
    if (!failure.empty()) {
        throw coded_error(failure_code, failure);
    }
    for (const auto & [name, node] : nodes) {
        if (node.fired != 1) {
            throw coded_error("HOOK_NOT_FIRED",
                "node " + name + " fired " + std::to_string(node.fired) + " times in one decode instead of once");
        }
    }
}

int64_t hook_table::row_offset(const ggml_tensor * tensor, int32_t batch_row) {
    const int64_t n_rows = ggml_nrows(tensor);
    int32_t       row    = -1;
    if (n_rows == static_cast<int64_t>(output_row.size())) {
        row = batch_row;
    } else if (n_rows == n_output) {
        row = output_row[batch_row];
    }
    if (row < 0 || tensor->ne[2] != 1 || tensor->ne[3] != 1) {
        failure = std::string("node ") + tensor->name + " holds " + std::to_string(n_rows) + " rows, row " +
                  std::to_string(batch_row) + " of a batch of " + std::to_string(output_row.size()) + " is not among them";
        return -1;
    }
    return row * static_cast<int64_t>(tensor->nb[1]);
}

void hook_table::apply(ggml_tensor * tensor, armed_node & node) {
    node.fired++;
    if (tensor->type != GGML_TYPE_F32 || tensor->ne[0] != n_embd || tensor->nb[0] != sizeof(float)) {
        failure = std::string("node ") + tensor->name + " is " + ggml_type_name(tensor->type) + " with rows of " +
                  std::to_string(tensor->ne[0]) + ", expected f32 with rows of " + std::to_string(n_embd);
        return;
    }
    const size_t row_bytes = n_embd * sizeof(float);
    row.resize(n_embd);
    changed.resize(n_embd);

    for (const patch * p : node.patches) {
        for (size_t i = 0; i < p->rows.size(); ++i) {
            const int64_t offset = row_offset(tensor, p->rows[i]);
            if (offset < 0) {
                return;
            }
            ggml_backend_tensor_get(tensor, row.data(), offset, row_bytes);
            const float * value = p->values ? p->values + i * n_embd : nullptr;
            double        delta = 0.0, squares = 0.0;
            for (int32_t j = 0; j < n_embd; ++j) {
                switch (p->op) {
                    case patch_op::replace: changed[j] = value[j];           break;
                    case patch_op::add:     changed[j] = row[j] + p->factor * value[j]; break;
                    case patch_op::scale:   changed[j] = row[j] * p->factor; break;
                    default:                changed[j] = 0.0f;               break;
                }
                const double d = static_cast<double>(changed[j]) - row[j];
                delta += d * d;
                squares += static_cast<double>(changed[j]) * changed[j];
            }
            // Numbers whose squares overflow in the next norm come out of it as zeros. Unwritten, so that nothing of it gets
            // into the cache.
            if (!(squares <= FLT_MAX)) {
                failure_code = "NOT_FINITE";
                failure = "an intervention at layer " + std::to_string(p->layer) +
                          " makes NaN, infinity or numbers outside the range of the model's arithmetic";
                return;
            }
            ggml_backend_tensor_set(tensor, changed.data(), offset, row_bytes);
            p->deltas[i] = static_cast<float>(std::sqrt(delta));
        }
    }

    // After the patches, so that a capture shows what the later blocks see.
    for (const capture * c : node.captures) {
        for (size_t i = 0; i < c->rows.size();) {
            const int64_t offset = row_offset(tensor, c->rows[i]);
            if (offset < 0) {
                return;
            }
            // One transfer for a run of rows that are neighbours on both sides: a transfer from a GPU costs its latency.
            size_t n = 1;
            while (i + n < c->rows.size() && tensor->nb[1] == row_bytes &&
                   c->offsets[i + n] == c->offsets[i] + static_cast<int64_t>(n) * n_embd &&
                   row_offset(tensor, c->rows[i + n]) == offset + static_cast<int64_t>(n * row_bytes)) {
                n++;
            }
            ggml_backend_tensor_get(tensor, c->out + c->offsets[i], offset, n * row_bytes);
            i += n;
        }
    }
}

bool hook_table::wants(const ggml_tensor * tensor) {
    return !nodes.empty() && nodes.contains(std::string_view(tensor->name));
}

void hook_table::apply(ggml_tensor * tensor) {
    apply(tensor, nodes.find(std::string_view(tensor->name))->second);
}
