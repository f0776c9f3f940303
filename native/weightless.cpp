#include "weightless.h"

#include "errors.h"

#include "gguf.h"
#include "llama-model.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#ifdef __linux__
#include <sys/mman.h>
#endif

// Larger ones are not read. Norms, biases and factors of rotary embeddings are small in models of any size.
static const size_t small_bytes = 1 << 20;
// From this size on memory of the C library comes from the system, as zeros; below, it may have been used before.
static const size_t fresh_bytes = 64 << 20;

static void add_buffer(backend_buffers & buffers, ggml_backend_buffer_type * type, const std::vector<ggml_tensor *> & tensors, size_t size) {
    ggml_backend_buffer * buffer = ggml_backend_buft_alloc_buffer(type, size);
    if (!buffer) {
        throw coded_error("MODEL_LOAD", "there is not enough memory for its weights");
    }
    buffers.emplace_back(buffer);
    ggml_backend_buffer_set_usage(buffer, GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
    ggml_backend_device * device = ggml_backend_buft_get_device(type);
    const bool            fresh  = size >= fresh_bytes && device && ggml_backend_dev_type(device) == GGML_BACKEND_DEVICE_TYPE_CPU;
    if (!fresh) {
        ggml_backend_buffer_clear(buffer, 0);
    }
    auto *       base      = static_cast<uint8_t *>(ggml_backend_buffer_get_base(buffer));
    const size_t alignment = ggml_backend_buft_get_alignment(type);
#ifdef __linux__
    if (fresh) {
        // One page of zeros for 2 MB. Only a wish; whole pages inside, as the first may hold what is before the buffer.
        const uintptr_t page = 4096, from = (reinterpret_cast<uintptr_t>(base) + page - 1) / page * page;
        madvise(reinterpret_cast<void *>(from), reinterpret_cast<uintptr_t>(base) + size - from, MADV_HUGEPAGE);
    }
#endif
    size_t       at        = 0;
    for (ggml_tensor * tensor : tensors) {
        tensor->buffer = nullptr; // the one without memory
        if (ggml_backend_tensor_alloc(buffer, tensor, base + at) != GGML_STATUS_SUCCESS) {
            throw coded_error("MODEL_LOAD", std::string("'") + tensor->name + "' could not be placed in memory");
        }
        at += GGML_PAD(ggml_backend_buft_get_alloc_size(type, tensor), alignment);
    }
}

// Of a model in several files only what is in the first: the others stay zeros.
static void read_small(const std::vector<std::pair<std::string, ggml_tensor *>> & tensors, const std::string & path) {
    struct free_gguf { void operator()(gguf_context * g) const { gguf_free(g); } };
    std::unique_ptr<gguf_context, free_gguf> file(gguf_init_from_file(path.c_str(), { /*no_alloc*/ true, nullptr }));
    if (!file) {
        throw coded_error("MODEL_LOAD", "its header cannot be read");
    }
    std::ifstream in(std::filesystem::path(reinterpret_cast<const char8_t *>(path.c_str())), std::ios::binary);
    std::vector<char> bytes;
    for (const auto & [name, tensor] : tensors) {
        const int64_t id   = gguf_find_tensor(file.get(), name.c_str());
        const size_t  size = ggml_nbytes(tensor);
        if (id < 0 || size > small_bytes || gguf_get_tensor_size(file.get(), id) != size) {
            continue;
        }
        bytes.resize(size);
        in.clear();
        in.seekg(static_cast<std::streamoff>(gguf_get_data_offset(file.get()) + gguf_get_tensor_offset(file.get(), id)));
        if (in.read(bytes.data(), static_cast<std::streamsize>(size))) {
            ggml_backend_tensor_set(tensor, bytes.data(), 0, size);
        }
    }
}

backend_buffers give_weightless_memory(llama_model * model, const std::string & path) {
    if (!model->hparams.no_alloc || static_cast<int32_t>(model->hparams.n_embd) != llama_model_n_embd(model)) {
        throw coded_error("MODEL_LOAD", "llama.cpp lays out its models differently from the version this was compiled for");
    }
    const auto & tensors = llama_internal_get_tensor_map(model);
    std::map<ggml_backend_buffer_type *, std::vector<ggml_tensor *>> by_type;
    for (const auto & [name, tensor] : tensors) {
        by_type[ggml_backend_buffer_get_type(tensor->buffer)].push_back(tensor);
    }
    backend_buffers buffers;
    for (const auto & [type, all] : by_type) {
        const size_t alignment = ggml_backend_buft_get_alignment(type);
        const size_t most      = ggml_backend_buft_get_max_size(type);
        std::vector<ggml_tensor *> together;
        size_t size = 0;
        for (ggml_tensor * tensor : all) {
            const size_t more = GGML_PAD(ggml_backend_buft_get_alloc_size(type, tensor), alignment);
            if (!together.empty() && size + more > most) {
                add_buffer(buffers, type, together, size);
                together.clear();
                size = 0;
            }
            together.push_back(tensor);
            size += more;
        }
        if (!together.empty()) {
            add_buffer(buffers, type, together, size);
        }
    }
    read_small(tensors, path);
    model->hparams.no_alloc = false; // contexts of such a model compute nothing
    return buffers;
}
