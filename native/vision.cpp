#include "vision.h"

#include "backends.h"
#include "errors.h"
#include "kernel_backend.h"

#include "clip-impl.h"
#include "clip-model.h"
#include "ggml-cpu.h"
#include "mtmd.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

// Added to mtmd's own files by install/corrections.mjs.
const clip_image_f32_batch & xpatch_preprocessed(const mtmd_image_tokens * image);
const clip_ctx *             xpatch_encoder(const mtmd_context * ctx);
ggml_backend_t               xpatch_encoder_cpu(const clip_ctx * ctx);

static void keep_log(ggml_log_level level, const char * text, void *) {
    // mtmd reports through a logger of its own; llama.cpp's leads to the same memory of lines.
    ggml_log_callback callback;
    void *            data;
    llama_log_get(&callback, &data);
    callback(level, text, data);
}

vision::vision(std::shared_ptr<model> shared, const options & o)
    : owner(std::move(shared)), threadpool(make_threadpool(o.n_threads)) {
    auto params      = mtmd_context_params_default();
    auto devices     = backends_select(o.device);
    params.device    = devices[0] ? devices[0] : kernel_device();
    params.use_gpu   = params.device != nullptr;
    params.n_threads = o.n_threads;
    if (!devices[0]) {
        params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED; // mtmd looks for it on the device above, and the CPU has it
    }
    params.warmup    = false;
    params.print_timings = false;
    params.cb_eval           = on_node;
    params.cb_eval_user_data = this;

    const kernel_threads with(o.n_threads, threadpool.get());
    mtmd_log_set(keep_log, nullptr);
    log_take();
    handle = mtmd_init_from_file(o.path.c_str(), owner->handle, params);
    if (!handle) {
        throw coded_error("MMPROJ_INVALID", log_take());
    }
    if (!mtmd_support_vision(handle)) {
        mtmd_free(handle);
        throw coded_error("MMPROJ_INVALID", "the mmproj has no image encoder");
    }
    if (const auto set = cpu_function<decltype(&ggml_backend_cpu_set_threadpool)>("ggml_backend_cpu_set_threadpool"); set && threadpool) {
        set(xpatch_encoder_cpu(xpatch_encoder(handle)), threadpool.get());
    }
}

vision::~vision() {
    mtmd_free(handle);
}

// The block whose output a node is by mtmd's name for it, the later one where a factor follows; -1 for all others.
static int32_t block_of(const ggml_tensor * node) {
    for (const char * name : { "layer_out-", "layer_out_scaled-" }) {
        if (strncmp(node->name, name, strlen(name)) == 0) {
            return atoi(node->name + strlen(name));
        }
    }
    return -1;
}

bool vision::on_node(ggml_tensor * node, bool ask, void * data) {
    auto & self = *static_cast<vision *>(data);
    if (!self.reading || self.blocks.empty()) {
        return !ask;
    }
    const int32_t block = block_of(node);
    if (std::find(self.blocks.begin(), self.blocks.end(), block) == self.blocks.end()) {
        return !ask;
    }
    if (!ask && node->type == GGML_TYPE_F32 && ggml_is_contiguous(node)) {
        auto & state = self.reading->states[block];
        state.resize(ggml_nelements(node));
        ggml_backend_tensor_get(node, state.data(), 0, ggml_nbytes(node));
        self.reading->state_width = node->ne[0];
    }
    return true;
}

static const char * projector_name(projector_type type) {
    if (type == PROJECTOR_TYPE_MLP_NORM) {
        return "mlp_norm"; // what a file calls mlp, told apart by its tensors
    }
    const auto found = PROJECTOR_TYPE_NAMES.find(type);
    return found == PROJECTOR_TYPE_NAMES.end() ? "unknown" : found->second.c_str();
}

// Undoes the last step of every preprocessor of mtmd, (pixel / 255 - mean) / std.
static void read_seen(image_chunk & result, mtmd_context * handle, const mtmd_image_tokens * image) {
    const clip_ctx *     encoder = xpatch_encoder(handle);
    const clip_hparams & hparams = *clip_get_hparams(encoder);
    const auto &         batch   = xpatch_preprocessed(image).entries;
    if (batch.size() != 1) {
        throw coded_error("IMAGE_UNSUPPORTED", "this projector reads several pictures at once");
    }
    const auto & pixels = batch[0].get_ro_buf();
    result.seen_width   = batch[0].nx();
    result.seen_height  = batch[0].ny();
    if (pixels.size() != size_t(3) * result.seen_width * result.seen_height) {
        throw coded_error("IMAGE_UNSUPPORTED", "the preprocessed picture of this projector is not RGB");
    }
    result.seen.resize(pixels.size());
    for (size_t i = 0; i < pixels.size(); ++i) {
        const float value = (pixels[i] * hparams.image_std[i % 3] + hparams.image_mean[i % 3]) * 255.0f + 0.5f;
        result.seen[i]    = value >= 255.0f ? 255 : value > 0.0f ? static_cast<uint8_t>(value) : 0; // NaN: 0
    }
    result.projector  = projector_name(clip_get_projector_type(encoder));
    result.patch_size = hparams.patch_size;
    result.merge      = hparams.n_merge;
}

// One chunk of mtmd's list, which is either text or a picture.
image_chunk vision::read_chunk(const mtmd_input_chunk * chunk, bool layout_only) {
    image_chunk result;
    result.n_rows      = mtmd_input_chunk_get_n_tokens(chunk);
    result.n_positions = mtmd_input_chunk_get_n_pos(chunk);
    if (mtmd_input_chunk_get_type(chunk) == MTMD_INPUT_CHUNK_TYPE_TEXT) {
        size_t       n      = 0;
        const auto * tokens = mtmd_input_chunk_get_tokens_text(chunk, &n);
        result.tokens.assign(tokens, tokens + n);
        return result;
    }

    const auto * image = mtmd_input_chunk_get_tokens_image(chunk);
    if (!layout_only) {
        reading          = &result;
        const int status = mtmd_encode_chunk(handle, chunk);
        reading          = nullptr;
        if (status != 0) {
            throw coded_error("NATIVE_FAILURE", "the picture could not be encoded: " + log_take());
        }
        read_seen(result, handle, image);
        const float * embeddings = mtmd_get_output_embd(handle);
        result.embeddings.assign(embeddings, embeddings + static_cast<size_t>(result.n_rows) * llama_model_n_embd_inp(owner->handle));
    }
    result.non_causal = mtmd_decode_use_non_causal(handle, chunk);

    if (mtmd_decode_use_mrope(handle)) {
        const size_t n = result.n_rows;
        result.positions.resize(4 * n);
        for (size_t i = 0; i < n; ++i) {
            const auto at_0 = mtmd_image_tokens_get_decoder_pos(image, 0, i);
            const auto at_1 = mtmd_image_tokens_get_decoder_pos(image, 1, i);
            // The caller shifts t, y and x to where the picture is; a layout with absolute ones would come out wrong.
            if (at_1.t != at_0.t + 1 || at_1.y != at_0.y + 1 || at_1.x != at_0.x + 1 || at_0.z != 0) {
                throw coded_error("IMAGE_UNSUPPORTED", "the image positions of this projector are not relative to the picture");
            }
            result.positions[i]         = at_0.t;
            result.positions[n + i]     = at_0.y;
            result.positions[2 * n + i] = at_0.x;
            result.positions[3 * n + i] = at_0.z;
        }
    }
    return result;
}

std::vector<image_chunk> vision::encode(
        const uint8_t * rgb, uint32_t width, uint32_t height, bool layout_only, const std::vector<int32_t> & asked) {
    blocks = asked;
    struct free_at_exit {
        mtmd_bitmap *       bitmap;
        mtmd_input_chunks * chunks;
        ~free_at_exit() {
            mtmd_input_chunks_free(chunks);
            mtmd_bitmap_free(bitmap);
        }
    } owned { mtmd_bitmap_init(width, height, rgb), mtmd_input_chunks_init() };

    // Only the marker: text around the picture is tokenised by our own prompt builder, piece by piece as mtmd does it.
    const std::string     marker = mtmd_get_marker(handle);
    const mtmd_input_text text { marker.c_str(), marker.size(), false, true };
    const mtmd_bitmap *   bitmaps[] = { owned.bitmap };

    log_take();
    const int32_t status = mtmd_tokenize(handle, owned.chunks, &text, bitmaps, 1);
    if (status != 0) {
        throw coded_error("IMAGE_INVALID", "the picture of " + std::to_string(width) + "x" + std::to_string(height) +
            " pixels could not be preprocessed: " + log_take());
    }
    std::vector<image_chunk> chunks;
    for (size_t i = 0; i < mtmd_input_chunks_size(owned.chunks); ++i) {
        chunks.push_back(read_chunk(mtmd_input_chunks_get(owned.chunks, i), layout_only));
    }
    return chunks;
}
