#include "hooks.h"

#include "errors.h"

#include "ggml-backend.h"
#include "ggml.h"

#include <cmath>
#include <cstdlib>
#include <cstring>

static const char * const HOOK_NODES[] = { "l_out" };

const char * hook_table::node_name(hook_point hook) {
    return HOOK_NODES[static_cast<int>(hook)];
}

void hook_table::arm(int32_t n_embd, std::vector<int32_t> output_row, std::vector<capture> captures, std::vector<patch> patches) {
    disarm();
    this->n_embd     = n_embd;
    this->output_row = std::move(output_row);
    this->captures   = std::move(captures);
    this->patches    = std::move(patches);
    for (int32_t row : this->output_row) {
        n_output += row >= 0;
    }
    for (const auto & c : this->captures) {
        nodes[{ c.hook, c.layer }].captures.push_back(&c);
    }
    for (const auto & p : this->patches) {
        nodes[{ p.hook, p.layer }].patches.push_back(&p);
    }
}

void hook_table::disarm() {
    nodes.clear();
    captures.clear();
    patches.clear();
    output_row.clear();
    failure.clear();
    n_output = 0;
}

void hook_table::check_fired() const {
    if (!failure.empty()) {
        throw coded_error("NATIVE_FAILURE", failure);
    }
    for (const auto & [key, node] : nodes) {
        if (node.fired != 1) {
            throw coded_error("HOOK_NOT_FIRED",
                std::string("node ") + node_name(key.first) + "-" + std::to_string(key.second) + " fired " +
                    std::to_string(node.fired) + " times in one decode instead of once");
        }
    }
}

hook_table::armed_node * hook_table::find(const char * name) {
    for (int i = 0; i < static_cast<int>(hook_point::count); ++i) {
        const size_t n = std::strlen(HOOK_NODES[i]);
        if (std::strncmp(name, HOOK_NODES[i], n) != 0 || name[n] != '-') {
            continue;
        }
        char *     end   = nullptr;
        const long layer = std::strtol(name + n + 1, &end, 10);
        if (end == name + n + 1 || *end != '\0') {
            continue; // ggml derives names such as "l_out-3 (view)"
        }
        const auto it = nodes.find({ static_cast<hook_point>(i), static_cast<int32_t>(layer) });
        return it == nodes.end() ? nullptr : &it->second;
    }
    return nullptr;
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
            double        delta = 0.0;
            for (int32_t j = 0; j < n_embd; ++j) {
                switch (p->op) {
                    case patch_op::replace: changed[j] = value[j];           break;
                    case patch_op::add:     changed[j] = row[j] + p->factor * value[j]; break;
                    case patch_op::scale:   changed[j] = row[j] * p->factor; break;
                    default:                changed[j] = 0.0f;               break;
                }
                const double d = static_cast<double>(changed[j]) - row[j];
                delta += d * d;
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
    return !nodes.empty() && find(tensor->name) != nullptr;
}

void hook_table::apply(ggml_tensor * tensor) {
    apply(tensor, *find(tensor->name));
}
