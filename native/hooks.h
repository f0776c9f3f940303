#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

struct ggml_tensor;

struct ggml_cgraph;

// Points of a decoder block that a hook can attach to. The order is the one of NODES in hooks.cpp.
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

// Names of the nodes where hooks attach, by point and layer; empty where the graph has none.
using hook_nodes = std::array<std::vector<std::string>, static_cast<size_t>(hook_point::count)>;

// Looks for them in a graph of the model.
hook_nodes find_hook_nodes(ggml_cgraph * graph, int32_t n_layer);

// What the eval callback of a context reads and overwrites during one decode.
class hook_table {
public:
    // `n_rows` rows in the batch; output_row[i] is the index of batch row i among the rows with outputs, or -1:
    // the last block keeps only those rows.
    void arm(const hook_nodes & names, int32_t n_embd, std::vector<int32_t> output_row, std::vector<capture> captures, std::vector<patch> patches);
    void disarm();

    // Throws coded_error when an armed hook did not fire exactly once, met a tensor that it cannot handle, or had a state to
    // write that the model cannot compute with, which it leaves unwritten.
    void check_fired() const;

    // The two halves of the eval callback: whether a node is to be computed and shown, and what is done with it then.
    bool wants(const ggml_tensor * tensor);
    void apply(ggml_tensor * tensor);

private:
    struct armed_node {
        std::vector<const capture *> captures;
        std::vector<const patch *>   patches;
        int32_t                      fired = 0;
    };

    armed_node & node_of(const hook_nodes & names, hook_point hook, int32_t layer);
    void         apply(ggml_tensor * tensor, armed_node & node);
    int64_t      row_offset(const ggml_tensor * tensor, int32_t batch_row);

    int32_t                                               n_embd   = 0;
    int32_t                                               n_output = 0;
    std::vector<int32_t>                                  output_row;
    std::vector<capture>                                  captures;
    std::vector<patch>                                    patches;
    std::map<std::string, armed_node, std::less<>>        nodes; // by name
    std::vector<float>                                    row, changed;
    const char *                                          failure_code = "NATIVE_FAILURE";
    std::string                                           failure;
};
