#include "hooks.h"

#include "errors.h"
#include "kernel_backend.h"

#include "ggml-backend.h"
#include "ggml.h"

#include <algorithm>
#include <cmath>
#include <cstring>

hook_table::stop & hook_table::stop_at(int32_t node) {
    const auto it = std::lower_bound(stops.begin(), stops.end(), node, [](const stop & s, int32_t n) { return s.node < n; });
    if (it != stops.end() && it->node == node) {
        return *it;
    }
    stop made {};
    made.node = node;
    return *stops.insert(it, std::move(made));
}

void hook_table::add(const place & where, const capture * c, const patch * p) {
    if (where.layer < 0 || where.layer >= static_cast<int32_t>(points->attention.size())) {
        throw coded_error("LAYER_OUT_OF_RANGE", "layer " + std::to_string(where.layer) + " is not one of 0.." +
            std::to_string(points->attention.size() - 1));
    }
    const bool attends = of_attention(where.hook);
    const bool cut     = p && p->op == patch_op::cut && points->attention[where.layer].node >= 0;
    if (!points->has(where.hook, where.layer) && !cut) {
        throw coded_error("HOOK_UNSUPPORTED", "layer " + std::to_string(where.layer) + " has no such point: " +
            points->at(where.hook, where.layer).why);
    }
    const attention_nodes & attention = points->attention[where.layer];
    const point &           at        = points->at(where.hook, where.layer);
    const int64_t full = attends ? static_cast<int64_t>(attention.heads) * where.keys : at.width;
    int64_t       n    = 0;
    for (const span & s : where.spans) {
        n += s.count;
        if (s.first < 0 || s.count < 1 || s.first + static_cast<int64_t>(s.count) > full) {
            throw coded_error("INVALID_ARGUMENT", "a part of a row lies outside its " + std::to_string(full) + " numbers");
        }
    }
    if (n != where.width || (attends && (!rows.positions || attention.store < 0)) ||
        (p && p->op == patch_op::cut && where.hook != hook_point::attn_scores)) {
        throw coded_error("INVALID_ARGUMENT", "the requests for a row contradict each other");
    }
    for (int32_t row : where.rows) {
        if (row < 0 || row >= static_cast<int32_t>(rows.output_row.size()) || (at.trimmed && rows.output_row[row] < 0)) {
            throw coded_error("INVALID_ARGUMENT", "row " + std::to_string(row) + " is not in the batch or has no output");
        }
    }
    if (at.input && rows.embeddings) {
        return; // done before the decode
    }
    if (where.hook == hook_point::attn_scores) {
        stop_at(attention.stop);
        stop & s = stop_at(attention.node);
        if (c) {
            s.captures_before.push_back(c);
        } else {
            s.patches_before.push_back(p);
        }
        return;
    }
    stop & s = stop_at(at.node);
    s.op = at.op;
    if (c) {
        s.captures.push_back(c);
    } else {
        s.patches.push_back(p);
    }
}

void hook_table::arm(const graph_points & graph, batch armed, std::vector<capture> captures, std::vector<patch> patches) {
    disarm();
    points         = &graph;
    rows           = std::move(armed);
    this->captures = std::move(captures);
    this->patches  = std::move(patches);
    for (int32_t row : rows.output_row) {
        n_output += row >= 0;
    }
    for (const auto & c : this->captures) {
        add(c, &c, nullptr);
    }
    for (const auto & p : this->patches) {
        add(p, nullptr, &p);
    }
    last = stops.empty() ? rows.needed : std::max(rows.needed, stops.back().node);
    if (rows.positions) {
        cells.resize(graph.attention.size());
        for (size_t layer = 0; layer < graph.attention.size(); ++layer) {
            cells[layer].resize(n_cells, -1);
            if (graph.attention[layer].store >= 0) {
                stores.emplace_back(graph.attention[layer].store, static_cast<int32_t>(layer));
            }
        }
        std::sort(stores.begin(), stores.end());
    }
    if (rows.embeddings) {
        use_input();
    }
}

void hook_table::disarm() {
    points = nullptr;
    for (ggml_tensor * node : left_out) { // llama.cpp uses a graph again
        node->flags |= GGML_TENSOR_FLAG_COMPUTE;
    }
    left_out.clear();
    rows   = {};
    captures.clear();
    patches.clear();
    stops.clear();
    stores.clear();
    masks.clear();
    failure_code = "NATIVE_FAILURE";
    failure.clear();
    n_output = asked = 0;
    next = next_store = 0;
}

void hook_table::fail(const char * code, const std::string & message) {
    if (failure.empty()) {
        failure_code = code;
        failure      = message;
    }
}

void hook_table::check_fired() const {
    if (!failure.empty()) {
        throw coded_error(failure_code, failure);
    }
    if (!points) {
        return;
    }
    const bool same = asked == points->n_nodes && next_store == stores.size();
    if (!left_out.empty() && !same) {
        throw coded_error("HOOK_NOT_FIRED", "nodes were left out of a graph of " + std::to_string(asked) + ", where " +
            std::to_string(points->n_nodes) + " were searched");
    }
    for (const auto & s : stops) {
        if (s.fired != 1 || !same) {
            throw coded_error("HOOK_NOT_FIRED", "node " + std::to_string(s.node) + " fired " + std::to_string(s.fired) +
                " times in one decode instead of once, in a graph of " + std::to_string(asked) + " nodes, where " +
                std::to_string(points->n_nodes) + " were searched");
        }
    }
}

int32_t hook_table::tensor_row(const ggml_tensor * tensor, const point & at, int32_t batch_row) {
    const int64_t n = tensor->ne[at.axis];
    if (n == static_cast<int64_t>(rows.output_row.size())) {
        return batch_row;
    }
    const int32_t row = n == n_output ? rows.output_row[batch_row] : -1;
    if (row < 0) {
        fail("NATIVE_FAILURE", std::string("node ") + tensor->name + " holds " + std::to_string(n) + " rows, row " +
            std::to_string(batch_row) + " of a batch of " + std::to_string(rows.output_row.size()) + " is not among them");
    }
    return row;
}

// What the softmax multiplies the scores with.
static float scale_of(const ggml_tensor * softmax) {
    float scale;
    std::memcpy(&scale, softmax->op_params, sizeof(scale));
    return scale;
}

// Numbers of one row into `before`. Of what a row does not see, a score is -infinity and a pattern 0.
bool hook_table::read(const ggml_tensor * tensor, const place & where, int32_t batch_row) {
    const point & at = points->at(where.hook, where.layer);
    if (of_attention(where.hook)) {
        const int32_t       heads  = points->attention[where.layer].heads;
        const bool          scores = where.hook == hook_point::attn_scores;
        const ggml_tensor * values = scores ? tensor->src[0] : tensor;
        const float         factor = scores ? scale_of(tensor) : 1.0f;
        if (values->ne[1] != static_cast<int64_t>(rows.output_row.size()) || values->ne[2] != heads) {
            fail("NATIVE_FAILURE", std::string("node ") + values->name + " has another shape than when the graph was searched");
            return false;
        }
        if (!read_sight(tensor->src[1], where, batch_row)) {
            return false;
        }
        before.assign(static_cast<size_t>(heads) * where.keys, scores ? -INFINITY : 0.0f);
        piece.resize(values->ne[0]);
        for (int32_t head = 0; head < heads; ++head) {
            ggml_backend_tensor_get(values, piece.data(), batch_row * values->nb[1] + head * values->nb[2], piece.size() * sizeof(float));
            for (size_t i = 0; i < seen.cells.size(); ++i) {
                before[static_cast<size_t>(head) * where.keys + seen.keys[i]] = factor * piece[seen.cells[i]];
            }
        }
        return true;
    }
    if (tensor->type != GGML_TYPE_F32 || tensor->nb[0] != sizeof(float) || tensor->ne[0] * (at.axis == 2 ? tensor->ne[1] : 1) != at.width) {
        fail("NATIVE_FAILURE", std::string("node ") + tensor->name + " is " + ggml_type_name(tensor->type) + " with rows of " +
            std::to_string(tensor->ne[0]) + ", not what it was found with");
        return false;
    }
    const int32_t row = tensor_row(tensor, at, batch_row);
    if (row < 0) {
        return false;
    }
    before.resize(at.width);
    const size_t bytes = tensor->ne[0] * sizeof(float);
    const bool   dense = at.axis == 1 || tensor->nb[1] == bytes;
    for (int64_t part = 0; part < (dense ? 1 : tensor->ne[1]); ++part) {
        ggml_backend_tensor_get(tensor, before.data() + part * tensor->ne[0], row * tensor->nb[at.axis] + part * tensor->nb[1],
            dense ? at.width * sizeof(float) : bytes);
    }
    return true;
}

// `after` in place of `before`.
bool hook_table::write(ggml_tensor * tensor, const place & where, int32_t batch_row) {
    const point & at = points->at(where.hook, where.layer);
    if (of_attention(where.hook)) {
        const int32_t heads  = points->attention[where.layer].heads;
        const bool    scores = where.hook == hook_point::attn_scores;
        ggml_tensor * values = scores ? tensor->src[0] : tensor;
        const float   factor = scores ? scale_of(tensor) : 1.0f;
        piece.resize(values->ne[0]);
        for (int32_t head = 0; head < heads; ++head) {
            const size_t offset = batch_row * values->nb[1] + head * values->nb[2];
            bool         any    = seen.more || !scores;
            ggml_backend_tensor_get(values, piece.data(), offset, piece.size() * sizeof(float));
            for (size_t i = 0; i < seen.cells.size(); ++i) {
                const size_t k = static_cast<size_t>(head) * where.keys + seen.keys[i];
                if (after[k] != before[k]) { // what was not changed keeps its last bits
                    piece[seen.cells[i]] = after[k] / factor;
                }
                any = any || after[k] > -INFINITY;
            }
            if (!any) {
                fail("INTERVENTION_INVALID", "head " + std::to_string(head) + " of layer " + std::to_string(where.layer) +
                    " would see nothing from one of the positions: leave it something, such as the first position");
                return false;
            }
            ggml_backend_tensor_set(values, piece.data(), offset, piece.size() * sizeof(float));
        }
        return true;
    }
    const int32_t row   = tensor_row(tensor, at, batch_row);
    const size_t  bytes = tensor->ne[0] * sizeof(float);
    const bool    dense = at.axis == 1 || tensor->nb[1] == bytes;
    for (int64_t part = 0; part < (dense ? 1 : tensor->ne[1]); ++part) {
        ggml_backend_tensor_set(tensor, after.data() + part * tensor->ne[0], row * tensor->nb[at.axis] + part * tensor->nb[1],
            dense ? at.width * sizeof(float) : bytes);
    }
    return true;
}

void hook_table::capture_rows(const ggml_tensor * tensor, const capture & c) {
    const point & at    = points->at(c.hook, c.layer);
    const bool    whole = !of_attention(c.hook) && c.width == at.width && tensor->nb[at.axis] == c.width * sizeof(float);
    for (size_t i = 0; i < c.rows.size();) {
        // One transfer for a run of rows that are neighbours on both sides: a transfer from a GPU costs its latency.
        const int32_t row = whole ? tensor_row(tensor, at, c.rows[i]) : 0;
        size_t n = 1;
        while (whole && row >= 0 && i + n < c.rows.size() && c.offsets[i + n] == c.offsets[i] + static_cast<int64_t>(n) * c.width &&
               tensor_row(tensor, at, c.rows[i + n]) == row + static_cast<int32_t>(n)) {
            n++;
        }
        if (n > 1) {
            ggml_backend_tensor_get(tensor, c.out + c.offsets[i], row * tensor->nb[at.axis], n * c.width * sizeof(float));
        } else {
            if (!read(tensor, c, c.rows[i])) {
                return;
            }
            float * to = c.out + c.offsets[i];
            for (const span & s : c.spans) {
                to = std::copy_n(before.data() + s.first, s.count, to);
            }
        }
        i += n;
    }
}

void hook_table::run(ggml_tensor * tensor, const std::vector<const patch *> & patches, const std::vector<const capture *> & captures) {
    for (const patch * p : patches) {
        for (int32_t row : p->rows) {
            same_rows_changed(row);
        }
        if (tensor->op == GGML_OP_FLASH_ATTN_EXT && p->op == patch_op::cut) {
            cut_mask(tensor, *p);
            continue;
        }
        for (size_t i = 0; i < p->rows.size(); ++i) {
            if (!failure.empty() || !read(tensor, *p, p->rows[i]) || !change(*p, i) || !write(tensor, *p, p->rows[i])) {
                return;
            }
        }
    }
    // After the patches, so that a capture shows what the later blocks see.
    for (const capture * c : captures) {
        if (!failure.empty()) {
            return;
        }
        capture_rows(tensor, *c);
    }
}

// The rows of a picture come into the graph as they are: at `embed` they are the batch itself.
void hook_table::use_input() {
    const auto at_input = [&](const place & where) { return points->at(where.hook, where.layer).input; };
    const auto row_of   = [&](int32_t row) { return rows.embeddings + row * rows.n_embd_inp; };
    for (const patch & p : patches) {
        for (size_t i = 0; at_input(p) && i < p.rows.size(); ++i) {
            const int64_t width = points->at(p.hook, p.layer).width;
            before.assign(row_of(p.rows[i]), row_of(p.rows[i]) + width);
            if (!change(p, i)) {
                throw coded_error(failure_code, failure);
            }
            std::copy(after.begin(), after.end(), row_of(p.rows[i]));
        }
    }
    for (const capture & c : captures) {
        for (size_t i = 0; at_input(c) && i < c.rows.size(); ++i) {
            float * to = c.out + c.offsets[i];
            for (const span & s : c.spans) {
                to = std::copy_n(row_of(c.rows[i]) + s.first, s.count, to);
            }
        }
    }
}

bool hook_table::wants(ggml_tensor * tensor) {
    if (!points) {
        return false;
    }
    const int32_t node = asked++;
    if (node > last && (tensor->flags & GGML_TENSOR_FLAG_COMPUTE)) {
        tensor->flags &= ~GGML_TENSOR_FLAG_COMPUTE;
        left_out.push_back(tensor);
    }
    if (next_store < stores.size() && stores[next_store].first == node) {
        learn_cells(tensor, stores[next_store++].second);
    }
    if (next == stops.size() || stops[next].node != node) {
        return false;
    }
    const stop & s = stops[next];
    if (s.op >= 0 && s.op != tensor->op) {
        fail("HOOK_NOT_FIRED", std::string("the graph of this model is not the one that was searched: ") + tensor->name +
            " is " + ggml_op_name(tensor->op) + ", not " + ggml_op_name(static_cast<ggml_op>(s.op)));
    }
    run(tensor, s.patches_before, s.captures_before);
    return true;
}

void hook_table::apply(ggml_tensor * tensor) {
    stop & s = stops[next++];
    s.fired++;
    for (const auto & [mask, kept] : masks) {
        ggml_backend_tensor_set(mask, kept.data(), 0, kept.size());
    }
    masks.clear();
    run(tensor, s.patches, s.captures);
}
