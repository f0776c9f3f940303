#pragma once

#include <cstdint>
#include <memory>
#include <vector>

struct ggml_tensor;

// LayerNorm of the queries and keys of each head before their rotation, shared by the heads of a layer. Persimmon has it;
// llama.cpp's architecture "nemotron", which is Persimmon in everything else, has not.
struct qk_norm_weights {
    int32_t            n_layer  = 0;
    int32_t            head_dim = 0;
    float              epsilon  = 0.0f;
    std::vector<float> q_weight, q_bias, k_weight, k_bias; // n_layer * head_dim each
};

// Applies it inside the eval callback of one context, to the node that the projection's bias is added in. A graph that
// runs without it gives plausible nonsense, so a decode in which it did not happen everywhere is an error.
class qk_norm {
public:
    // `weights` null: the model has none, and nothing is done.
    explicit qk_norm(std::shared_ptr<const qk_norm_weights> weights);

    // Before every decode.
    void start();

    bool wants(const ggml_tensor * tensor) const;
    void apply(ggml_tensor * tensor);

    // Throws coded_error HOOK_NOT_FIRED unless the queries and keys of every layer were normalised once.
    void check_fired() const;

private:
    // Queries of layer i at 2 * i, its keys at 2 * i + 1; -1 for any other node.
    int32_t slot_of(const ggml_tensor * tensor) const;

    std::shared_ptr<const qk_norm_weights> weights;
    std::vector<int32_t>                   fired;
    std::vector<float>                     copy; // of a node in the memory of a device
};
