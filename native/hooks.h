#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

struct ggml_tensor;

// Points of a decoder block that a hook can attach to. The order is the one of HOOK_NODES in hooks.cpp.
enum class hook_point : int32_t { resid_post, count };

enum class patch_op : int32_t { replace, add, scale, zero, count };

// Copies rows of a node into caller-owned memory: batch row `rows[i]` goes to `out + offsets[i]`, n_embd floats.
struct capture {
    hook_point           hook;
    int32_t              layer;
    std::vector<int32_t> rows;
    std::vector<int64_t> offsets;
    float *              out;
};

// Overwrites rows of a node. `values` holds rows.size() * n_embd floats for replace and add, nothing otherwise.
// `deltas[i]` receives the L2 norm of the change of row i, so that a patch without effect can be told.
struct patch {
    hook_point           hook;
    int32_t              layer;
    std::vector<int32_t> rows;
    patch_op             op;
    const float *        values;
    float                factor;
    float *              deltas;
};

// What the eval callback of a context reads and overwrites during one decode.
class hook_table {
public:
    // `n_rows` rows in the batch; output_row[i] is the index of batch row i among the rows with outputs, or -1:
    // the last block keeps only those rows.
    void arm(int32_t n_embd, std::vector<int32_t> output_row, std::vector<capture> captures, std::vector<patch> patches);
    void disarm();

    // Throws coded_error when an armed hook did not fire exactly once, or met a tensor that it cannot handle.
    void check_fired() const;

    // The two halves of the eval callback: whether a node is to be computed and shown, and what is done with it then.
    bool wants(const ggml_tensor * tensor);
    void apply(ggml_tensor * tensor);

    // Node name of llama.cpp for a hook point, e.g. "l_out".
    static const char * node_name(hook_point hook);

private:
    struct armed_node {
        std::vector<const capture *> captures;
        std::vector<const patch *>   patches;
        int32_t                      fired = 0;
    };

    armed_node * find(const char * name);
    void         apply(ggml_tensor * tensor, armed_node & node);
    int64_t      row_offset(const ggml_tensor * tensor, int32_t batch_row);

    int32_t                                               n_embd   = 0;
    int32_t                                               n_output = 0;
    std::vector<int32_t>                                  output_row;
    std::vector<capture>                                  captures;
    std::vector<patch>                                    patches;
    std::map<std::pair<hook_point, int32_t>, armed_node>  nodes;
    std::vector<float>                                    row, changed;
    std::string                                           failure;
};
