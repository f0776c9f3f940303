#pragma once

#include "points.h"

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

struct ggml_tensor;

// What is done to the numbers of a row; in the order of NATIVE_OPS in src/hooks/types.ts.
enum class patch_op : int32_t {
    replace, // x = value
    add,     // x += factor * value
    scale,   // x *= factor
    zero,    // x = 0
    remove,  // x -= factor * (x . value) value, where value has length 1
    keep,    // x -= factor * (x - (x . value) value)
    clamp,   // x = min(max(x, factor), upper)
    cut,     // attn_scores: nothing is seen of these positions
    count
};

inline bool of_attention(hook_point hook) {
    return hook == hook_point::attn_scores || hook == hook_point::pattern;
}

// Numbers of a row: `count` from `first` on. With attention scores and patterns a row has one block of `keys` numbers a head,
// one for each position in the prompt.
struct span { int32_t first, count; };

// Rows of a batch at a point, and which of their numbers.
struct place {
    hook_point           hook;
    int32_t              layer;
    std::vector<int32_t> rows;
    std::vector<span>    spans;     // what of a row; never empty
    int64_t              width = 0; // numbers in the spans
    int32_t              keys  = 0; // scores and pattern: positions that a row has numbers for
};

// Copies rows into caller-owned memory: batch row `rows[i]` goes to `out + offsets[i]`, `width` floats.
struct capture : place {
    std::vector<int64_t> offsets;
    float *              out;
};

// Overwrites rows. `values` holds rows.size() * width floats for the operations that take some, nothing otherwise.
// `deltas[i]` receives the L2 norm of the change of row i, so that a patch without effect can be told; of a cut, how many
// positions were seen before.
struct patch : place {
    patch_op             op;
    const float *        values;
    float                factor, upper;
    float *              deltas;
};

// What the eval callback of a context reads and overwrites during one decode.
class hook_table {
public:
    explicit hook_table(int32_t n_cells) : n_cells(n_cells) {}

    // output_row[i] is the index of batch row i among the rows with outputs, or -1. `positions`:
    // where in its prompt each row is; null: nobody asked for scores or patterns in this call.
    struct batch {
        std::vector<int32_t> output_row;
        const int32_t *      positions = nullptr;
        float *              embeddings = nullptr; // of rows of pictures
        int64_t              n_embd_inp = 0;
        int32_t              needed = WHOLE_GRAPH; // the last node that is, whatever is read or changed
    };
    static constexpr int32_t WHOLE_GRAPH = std::numeric_limits<int32_t>::max();

    // Nothing is computed behind the node that is needed and the last one where something is read or changed.
    // Throws coded_error HOOK_UNSUPPORTED for a point that the graph has not, INVALID_ARGUMENT for rows that are not there.
    void arm(const graph_points & points, batch batch, std::vector<capture> captures, std::vector<patch> patches);
    void disarm();

    // Throws coded_error when an armed hook did not fire exactly once, the graph was not the one that was searched, a tensor
    // was one that it cannot handle, or a state to write was one that the model cannot compute with, which it leaves unwritten.
    void check_fired() const;

    // Nothing is known any more of where in the cache positions are.
    void forget_cells() { cells.clear(); }

    // The two halves of the eval callback: whether a node is to be computed and shown, and what is done with it then.
    bool wants(ggml_tensor * tensor);
    bool stopped() const { return points && next < stops.size() && stops[next].node == asked - 1; }
    void apply(ggml_tensor * tensor);

private:
    // A node at which the graph is cut, and what is done there: before it is computed, or when it has been.
    struct stop {
        int32_t node;
        int32_t op = -1; // -1: whichever it is
        std::vector<const patch *>   patches_before, patches;
        std::vector<const capture *> captures_before, captures;
        int32_t fired = 0;
    };

    // What a row of the attention sees: cells of the cache and the positions in them.
    struct sight {
        std::vector<int32_t> cells, keys; // keys below place::keys
        bool                 more = false; // it sees others
    };

    stop & stop_at(int32_t node);
    void   add(const place & where, const capture * c, const patch * p);
    void   fail(const char * code, const std::string & message);

    int32_t tensor_row(const ggml_tensor * tensor, const point & at, int32_t batch_row);
    bool    read(const ggml_tensor * tensor, const place & where, int32_t batch_row);
    bool    write(ggml_tensor * tensor, const place & where, int32_t batch_row);
    bool    read_sight(const ggml_tensor * mask, const place & where, int32_t batch_row);
    bool    change(const patch & p, size_t i);
    void    run(ggml_tensor * tensor, const std::vector<const patch *> & patches, const std::vector<const capture *> & captures);
    void    capture_rows(const ggml_tensor * tensor, const capture & c);
    void    cut_mask(ggml_tensor * attention, const patch & p);
    void    use_input();
    void    learn_cells(const ggml_tensor * store, int32_t layer);

    int32_t                 n_cells;
    const graph_points *    points = nullptr; // null: nothing is armed
    batch                   rows;
    int32_t                 n_output = 0;
    std::vector<capture>    captures;
    std::vector<patch>      patches;
    std::vector<stop>       stops;            // by node
    size_t                  next  = 0;        // of them
    int32_t                 asked = 0;        // nodes
    int32_t                 last  = WHOLE_GRAPH; // node that is computed
    std::vector<ggml_tensor *> left_out;      // nodes behind it
    std::vector<std::vector<int32_t>> cells;  // layer -> cell -> position in its prompt
    std::vector<std::pair<ggml_tensor *, std::vector<char>>> masks; // to be restored behind the attention
    std::vector<std::pair<int32_t, int32_t>> stores; // node and layer where keys are stored
    size_t                  next_store = 0;
    // Of the row that is being read or changed: its numbers before and after, and what it sees.
    std::vector<float>      before, after, piece;
    sight                   seen;
    const char *            failure_code = "NATIVE_FAILURE";
    std::string             failure;
};
