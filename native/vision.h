#pragma once

#include "runtime.h"

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

struct ggml_tensor;
struct mtmd_context;

// A piece of an encoded picture: either text tokens that the model wants around it, or rows of embeddings.
struct image_chunk {
    std::vector<int32_t> tokens;
    std::vector<float>   embeddings;    // n_rows * n_embd_inp
    int32_t              n_rows      = 0;
    int32_t              n_positions = 0; // by how much the position counter advances
    bool                 non_causal  = false;
    // Per row the positions (t, y, x, z) relative to the first, for M-RoPE; empty otherwise. Columns first.
    std::vector<int32_t> positions;

    // What the encoder read, after mtmd's preprocessing, and by what rule its pixels became rows.
    std::vector<uint8_t> seen; // 8-bit RGB, row by row
    int32_t              seen_width  = 0;
    int32_t              seen_height = 0;
    std::string          projector;
    int32_t              patch_size  = 0; // side, pixels
    int32_t              merge       = 0; // patches a row has in each direction

    std::map<int32_t, std::vector<float>> states; // behind the encoder's blocks that were asked for, patches * state_width
    int32_t                               state_width = 0;
};

// The picture encoder of an mmproj file. The only place that knows mtmd.
class vision {
public:
    struct options {
        std::string path;
        std::string device;
        int32_t     n_threads;
    };

    vision(std::shared_ptr<model> owner, const options & options);
    ~vision();
    vision(const vision &) = delete;

    // `rgb` holds width * height * 3 bytes. With `layout_only` nothing is computed: chunks lack embeddings and what was seen.
    // States behind `blocks` are read where the encoder's graph has them. Not thread-safe.
    std::vector<image_chunk> encode(
        const uint8_t * rgb, uint32_t width, uint32_t height, bool layout_only, const std::vector<int32_t> & blocks);

private:
    static bool on_node(ggml_tensor * node, bool ask, void * self);
    image_chunk read_chunk(const struct mtmd_input_chunk * chunk, bool layout_only);

    std::shared_ptr<model> owner;
    unique_threadpool      threadpool;
    mtmd_context *         handle = nullptr;
    // Of the picture that is being encoded.
    std::vector<int32_t>   blocks;
    image_chunk *          reading = nullptr;
};
