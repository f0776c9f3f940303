#include "qk_norm.h"

#include "errors.h"

#include "ggml-backend.h"
#include "ggml.h"

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <string>

qk_norm::qk_norm(std::shared_ptr<const qk_norm_weights> shared) : weights(std::move(shared)) {}

void qk_norm::start() {
    fired.assign(weights ? 2 * weights->n_layer : 0, 0);
}

int32_t qk_norm::slot_of(const ggml_tensor * tensor) const {
    // The product, the sum with the bias and the rotation share one name.
    const char * name = tensor->name;
    if (!weights || tensor->op != GGML_OP_ADD || (name[0] != 'Q' && name[0] != 'K') || std::strncmp(name + 1, "cur-", 4) != 0) {
        return -1;
    }
    char *     end   = nullptr;
    const long layer = std::strtol(name + 5, &end, 10);
    if (end == name + 5 || *end != '\0' || layer < 0 || layer >= weights->n_layer) {
        return -1;
    }
    return static_cast<int32_t>(2 * layer + (name[0] == 'K'));
}

bool qk_norm::wants(const ggml_tensor * tensor) const {
    return slot_of(tensor) >= 0;
}

static void normalise(float * x, int32_t n, const float * weight, const float * bias, float epsilon) {
    double sum = 0.0, squares = 0.0;
    for (int32_t i = 0; i < n; ++i) {
        sum += x[i];
    }
    const float mean = static_cast<float>(sum / n);
    for (int32_t i = 0; i < n; ++i) {
        x[i] -= mean;
        squares += static_cast<double>(x[i]) * x[i];
    }
    const float scale = 1.0f / std::sqrt(static_cast<float>(squares / n) + epsilon);
    for (int32_t i = 0; i < n; ++i) {
        x[i] = x[i] * scale * weight[i] + bias[i];
    }
}

void qk_norm::apply(ggml_tensor * tensor) {
    const int32_t slot = slot_of(tensor);
    const int32_t dim  = weights->head_dim;
    // Left uncounted, which check_fired reports: an exception must not pass through the scheduler.
    if (tensor->type != GGML_TYPE_F32 || !ggml_is_contiguous(tensor) || tensor->ne[0] % dim != 0) {
        return;
    }
    const auto * weight = (slot % 2 ? weights->k_weight : weights->q_weight).data() + slot / 2 * dim;
    const auto * bias   = (slot % 2 ? weights->k_bias : weights->q_bias).data() + slot / 2 * dim;

    const int64_t n      = ggml_nelements(tensor);
    const bool    shared = ggml_backend_buffer_is_host(tensor->view_src ? tensor->view_src->buffer : tensor->buffer);
    float *       values = static_cast<float *>(tensor->data);
    if (!shared) {
        copy.resize(n);
        values = copy.data();
        ggml_backend_tensor_get(tensor, values, 0, n * sizeof(float));
    }
    for (int64_t i = 0; i < n; i += dim) {
        normalise(values + i, dim, weight, bias, weights->epsilon);
    }
    if (!shared) {
        ggml_backend_tensor_set(tensor, values, 0, n * sizeof(float));
    }
    fired[slot]++;
}

void qk_norm::check_fired() const {
    for (size_t slot = 0; slot < fired.size(); ++slot) {
        if (fired[slot] != 1) {
            throw coded_error("HOOK_NOT_FIRED", std::string("the norm of the ") + (slot % 2 ? "keys" : "queries") + " of layer " +
                std::to_string(slot / 2) + " was applied " + std::to_string(fired[slot]) +
                " times in one decode instead of once: the graph of this model is not the one that it was converted for");
        }
    }
}
