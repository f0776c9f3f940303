#include "runtime.h"

#include "backends.h"
#include "errors.h"
#include "kernel_backend.h"
#include "output_head.h"

#include "llama-ext.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <future>
#include <system_error>
#include <thread>

void require_threads(int32_t n_threads) {
    std::promise<void>       all_there;
    const auto               ready = all_there.get_future().share();
    std::vector<std::thread> threads;
    std::string              problem;
    try {
        for (int32_t i = 1; i < n_threads; ++i) {
            threads.emplace_back([ready] { ready.wait(); });
        }
    } catch (const std::system_error & error) {
        problem = error.what();
    }
    all_there.set_value();
    for (auto & thread : threads) {
        thread.join();
    }
    if (!problem.empty()) {
        throw coded_error("NATIVE_FAILURE", std::to_string(n_threads) + " threads could not be started (" + problem +
            "): lower the number of threads, or raise the system's limit");
    }
}

model::model(const options & o) : qk_norm(o.qk_norm), servers(o.rpc) {
    auto params = llama_model_default_params();
    auto devices = backends_select(o.device);
    devices.insert(devices.begin(), servers.devices.begin(), servers.devices.end()); // the last one has the output head
    params.devices      = devices.data();
    params.n_gpu_layers = o.n_gpu_layers;
    params.load_mode    = o.weightless ? LLAMA_LOAD_MODE_NONE : LLAMA_LOAD_MODE_MMAP;
    params.no_alloc     = o.weightless;
    // Layouts of the CPU's own, such as AMX's, are for its own kernels, of which those of floats are slow.
    params.use_extra_bufts = !o.floats || !kernel_device();
    bool aborted = false;
    std::pair<const std::function<bool(float)> *, bool *> progress { &o.progress, &aborted };
    params.progress_callback = [](float fraction, void * data) {
        auto & [report, stopped] = *static_cast<decltype(progress) *>(data);
        *stopped = !(*report)(fraction);
        return !*stopped;
    };
    params.progress_callback_user_data = &progress;

    log_take();
    handle = llama_model_load_from_file(o.path.c_str(), params);
    if (!handle) {
        servers.require();
        throw aborted ? coded_error("ABORTED", "loading was aborted") : coded_error("MODEL_LOAD", log_take());
    }
    owned.reset(handle);
    servers.settle();
    vocab = llama_model_get_vocab(handle);
    text  = std::make_unique<tokenizer>(handle);
    if (qk_norm && (qk_norm->n_layer != llama_model_n_layer(handle) ||
                    qk_norm->head_dim * llama_model_n_head(handle) != llama_model_n_embd(handle))) {
        throw coded_error("GGUF_INVALID", "the norms of its queries and keys do not fit its layers and heads");
    }
    if (o.weightless) {
        stand_ins = give_weightless_memory(handle, o.path);
    }
}

std::string model::metadata(const char * key) const {
    const int32_t n = llama_model_meta_val_str(handle, key, nullptr, 0);
    if (n < 0) {
        return "";
    }
    std::string value(n + 1, '\0');
    llama_model_meta_val_str(handle, key, value.data(), value.size());
    value.resize(n);
    return value;
}

int32_t model::positions_per_embedding() const {
    const auto type = llama_model_rope_type(handle);
    return type == LLAMA_ROPE_TYPE_MROPE || type == LLAMA_ROPE_TYPE_IMROPE ? 4 : 1;
}

std::string model::detokenize(const std::vector<int32_t> & tokens, bool render_special) const {
    if (llama_vocab_type(vocab) == LLAMA_VOCAB_TYPE_NONE) {
        return "";
    }
    // Piece by piece: llama_detokenize trims a leading space, which would differ between a token and its sequence.
    std::string text;
    char        piece[512];
    for (int32_t token : tokens) {
        if (token < 0 || token >= llama_vocab_n_tokens(vocab)) {
            throw coded_error("TOKEN_INVALID", "token id " + std::to_string(token) + " is outside the vocabulary");
        }
        const int32_t n = llama_token_to_piece(vocab, token, piece, sizeof(piece), 0, render_special);
        if (n >= 0) {
            text.append(piece, n);
        } else {
            std::string longer(-n, '\0');
            llama_token_to_piece(vocab, token, longer.data(), longer.size(), 0, render_special);
            text += longer;
        }
    }
    return text;
}

context::context(std::shared_ptr<model> shared, const options & o)
    : owner(std::move(shared)), norm(owner->qk_norm), n_seq(o.n_seq), n_threads(o.n_threads) {
    owner->servers.require();
    auto params = llama_context_default_params();
    params.n_ctx           = o.n_ctx;
    params.n_batch         = o.n_ubatch;
    params.n_ubatch        = o.n_ubatch;
    // A unified cache tells LLAMA_MAX_SEQ sequences apart whatever is asked for here; more would only enlarge buffers.
    params.n_seq_max       = 1;
    params.n_threads       = o.n_threads;
    params.n_threads_batch = o.n_threads;
    params.flash_attn_type = o.flash_attention;
    params.type_k          = o.kv_type;
    params.type_v          = o.kv_type;
    params.kv_unified      = true; // keeps the order of the rows, and makes copying a sequence a matter of metadata
    params.swa_full        = true; // a shared prefix must keep all of its cells
    params.no_perf         = true;
    params.cb_eval           = on_node;
    params.cb_eval_user_data = this;
    params.abort_callback      = [](void * data) { return static_cast<context *>(data)->abort_requested.load(); };
    params.abort_callback_data = this;

    threadpool = make_threadpool(o.n_threads);
    const kernel_threads with(o.n_threads, threadpool.get());

    log_take();
    handle = llama_init_from_model(owner->handle, params);
    if (!handle) {
        owner->servers.require();
        throw coded_error("MODEL_LOAD", "the context could not be created: " + log_take());
    }
    owned.reset(handle);
    if (threadpool) {
        llama_attach_threadpool(handle, threadpool.get(), threadpool.get());
    }
    ggml_cgraph * graph = llama_graph_reserve(handle, PROBE_ROWS, 1, PROBE_OUTPUTS);
    if (!graph) {
        throw coded_error("NATIVE_FAILURE", "the graph of this model could not be built: " + log_take());
    }
    points = find_points(graph, llama_model_n_layer(owner->handle));
    hooks  = std::make_unique<hook_table>(static_cast<int32_t>(n_ctx()));
}

context::~context() {
    head.reset(); // computes on the pool, as the context does
}

unique_threadpool make_threadpool(int32_t n_threads) {
    const auto make = cpu_function<decltype(&ggml_threadpool_new)>("ggml_threadpool_new");
    if (!make || n_threads == 1) {
        return nullptr;
    }
    require_threads(n_threads);
    auto params = ggml_threadpool_params_default(n_threads);
    return unique_threadpool(make(&params));
}

void free_threadpool::operator()(ggml_threadpool * pool) const {
    cpu_function<decltype(&ggml_threadpool_free)>("ggml_threadpool_free")(pool);
}

bool context::on_node(ggml_tensor * tensor, bool ask, void * data) {
    auto &     self   = *static_cast<context *>(data);
    const bool norms  = self.norm.wants(tensor);
    const bool hooked = ask ? self.hooks->wants(tensor) : self.hooks->stopped();
    if (ask) {
        return norms || hooked;
    }
    if (norms) {
        self.norm.apply(tensor);
    }
    if (hooked) {
        self.hooks->apply(tensor);
    }
    return true; // false would end only the current split of the graph
}

double context::embedding_deviation() const {
    const ggml_tensor * table = points.table;
    const auto *        traits = table ? ggml_get_type_traits(table->type) : nullptr;
    if (!traits || (table->type != GGML_TYPE_F32 && !traits->to_float)) {
        throw coded_error("HOOK_UNSUPPORTED", "the embeddings of this model's tokens were not found");
    }
    const int64_t        width = table->ne[0], n = table->ne[1], step = std::max<int64_t>(1, n / 4096);
    std::vector<uint8_t> packed(ggml_row_size(table->type, width));
    std::vector<float>   row(width);
    double sum = 0.0, squares = 0.0;
    int64_t count = 0;
    for (int64_t i = 0; i < n; i += step, count += width) {
        ggml_backend_tensor_get(table, packed.data(), i * table->nb[1], packed.size());
        if (table->type == GGML_TYPE_F32) {
            std::memcpy(row.data(), packed.data(), packed.size());
        } else {
            traits->to_float(packed.data(), row.data(), width);
        }
        for (float x : row) {
            sum += x;
            squares += static_cast<double>(x) * x;
        }
    }
    const double mean = sum / count;
    return std::abs(points.table_scale) * std::sqrt(std::max(0.0, squares / count - mean * mean));
}
