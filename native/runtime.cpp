#include "runtime.h"

#include "backends.h"
#include "errors.h"
#include "logits.h"
#include "output_head.h"
#include "product_backend.h"

#include "llama-ext.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <future>
#include <mutex>
#include <numeric>
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
        throw coded_error("NATIVE_FAILURE", "no " + std::to_string(n_threads) + " threads could be started (" + problem +
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
    params.use_extra_bufts = !o.floats || !product_device();
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
    try {
        servers.settle();
    } catch (...) {
        llama_model_free(handle);
        throw;
    }
    vocab = llama_model_get_vocab(handle);
    text  = std::make_unique<tokenizer>(handle);
    if (qk_norm && (qk_norm->n_layer != llama_model_n_layer(handle) ||
                    qk_norm->head_dim * llama_model_n_head(handle) != llama_model_n_embd(handle))) {
        llama_model_free(handle);
        throw coded_error("GGUF_INVALID", "the norms of its queries and keys do not fit its layers and heads");
    }
    if (o.weightless) {
        try {
            stand_ins = give_weightless_memory(handle, o.path);
        } catch (...) {
            llama_model_free(handle);
            throw;
        }
    }
}

model::~model() {
    llama_model_free(handle);
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

    // Without a pool of its own the CPU backend makes and frees threads for every graph segment, and hooks cut the graph
    // into as many segments as they have nodes.
    const auto make = cpu_function<decltype(&ggml_threadpool_new)>("ggml_threadpool_new");
    if (make && o.n_threads > 1) {
        require_threads(o.n_threads);
        auto pool_params = ggml_threadpool_params_default(o.n_threads);
        threadpool.reset(make(&pool_params));
    }
    const product_threads with(o.n_threads, threadpool.get());

    log_take();
    handle = llama_init_from_model(owner->handle, params);
    if (!handle) {
        owner->servers.require();
        throw coded_error("MODEL_LOAD", "no context could be made: " + log_take());
    }
    if (threadpool) {
        llama_attach_threadpool(handle, threadpool.get(), threadpool.get());
    }
    ggml_cgraph * graph = llama_graph_reserve(handle, PROBE_ROWS, 1, PROBE_OUTPUTS);
    if (!graph) {
        llama_free(handle);
        throw coded_error("NATIVE_FAILURE", "the graph of this model could not be built: " + log_take());
    }
    points = find_points(graph, llama_model_n_layer(owner->handle));
    hooks  = std::make_unique<hook_table>(static_cast<int32_t>(n_ctx()));
}

context::~context() {
    head.reset(); // computes on the pool
    llama_free(handle); // the pool after it
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

// ggml-rpc remembers which graph a server was given last, and no lock guards that: what uses servers takes turns.
static std::unique_lock<std::mutex> turn_of(const model & owner) {
    static std::mutex using_servers;
    return owner.servers.devices.empty() ? std::unique_lock<std::mutex>() : std::unique_lock<std::mutex>(using_servers);
}

void context::decode(const decode_job & job) {
    const auto turn = turn_of(*owner);
    owner->servers.require();
    llama_memory_t memory = llama_get_memory(handle);
    if (job.clear) {
        // Data too after NaN: masked cells still enter the attention, as 0 * NaN.
        llama_memory_clear(memory, poisoned);
        hooks->forget_cells();
        poisoned = false;
    }
    for (const auto & c : job.cuts) {
        if (!llama_memory_seq_rm(memory, c.seq, c.p0, -1)) {
            throw coded_error("NATIVE_FAILURE", "this model's cache cannot be cut at position " + std::to_string(c.p0));
        }
    }
    for (const auto & c : job.copies) {
        llama_memory_seq_cp(memory, c.src, c.dst, c.p0, c.p1);
    }
    if (job.n_rows == 0) {
        return;
    }

    const int32_t n_vocab = llama_vocab_n_tokens(owner->vocab);

    // llama.cpp asserts on some of these, which would end the process.
    if (job.n_rows > static_cast<int32_t>(llama_n_ubatch(handle))) {
        throw coded_error("INVALID_ARGUMENT", "a decode of " + std::to_string(job.n_rows) + " rows exceeds n_ubatch");
    }
    std::vector<int32_t>        output_row(job.n_rows, -1), seq_count(job.n_rows, 1);
    std::vector<llama_seq_id *> seq_ids(job.n_rows);
    std::vector<int8_t>         outputs(job.n_rows);
    int32_t                     n_output = 0;
    for (int32_t i = 0; i < job.n_rows; ++i) {
        if (job.sequences[i] < 0 || job.sequences[i] >= static_cast<int32_t>(n_seq)) {
            throw coded_error("INVALID_ARGUMENT", "sequence id " + std::to_string(job.sequences[i]) + " is out of range");
        }
        if (job.tokens && (job.tokens[i] < 0 || job.tokens[i] >= n_vocab)) {
            throw coded_error("TOKEN_INVALID", "token id " + std::to_string(job.tokens[i]) + " is outside the vocabulary of " +
                std::to_string(n_vocab));
        }
        seq_ids[i] = const_cast<llama_seq_id *>(job.sequences + i);
        outputs[i] = job.outputs[i] != 0;
        if (outputs[i]) {
            output_row[i] = n_output++;
        }
    }
    const auto require_outputs = [&](const std::vector<int32_t> & rows) {
        for (int32_t row : rows) {
            if (row < 0 || row >= job.n_rows || output_row[row] < 0) {
                throw coded_error("INVALID_ARGUMENT", "row " + std::to_string(row) + " is not in the batch or has no output");
            }
        }
    };
    for (const auto & l : job.logits) {
        require_outputs(l.rows);
    }
    require_outputs(job.top_rows);
    if (!job.top_rows.empty() && (job.top_k < 1 || job.top_k > n_vocab)) {
        throw coded_error("INVALID_ARGUMENT", "top-k of " + std::to_string(job.top_k) + " in a vocabulary of " + std::to_string(n_vocab));
    }

    llama_batch batch {};
    batch.n_tokens = job.n_rows;
    batch.token    = const_cast<llama_token *>(job.tokens);
    batch.embd     = const_cast<float *>(job.embeddings);
    batch.pos      = const_cast<llama_pos *>(job.positions);
    batch.n_seq_id = seq_count.data();
    batch.seq_id   = seq_ids.data();
    batch.logits   = outputs.data();

    log_take();
    norm.start();
    struct restore_at_exit {
        context & self;
        ~restore_at_exit() {
            self.hooks->disarm();
            llama_set_causal_attn(self.handle, true);
        }
    } restore { *this };
    std::vector<float> embeddings;
    if (!job.captures.empty() || !job.patches.empty() || job.places) {
        hook_table::batch armed { std::move(output_row), job.places, nullptr, llama_model_n_embd_inp(owner->handle) };
        if (job.embeddings) { // a copy, as patches may write into it
            embeddings.assign(job.embeddings, job.embeddings + job.n_rows * armed.n_embd_inp);
            armed.embeddings = batch.embd = embeddings.data();
        }
        hooks->arm(points, std::move(armed), job.captures, job.patches);
    }
    llama_set_causal_attn(handle, !job.non_causal);
    const int32_t status = llama_decode(handle, batch);
    llama_synchronize(handle);
    owner->servers.count_decode();
    owner->servers.require();

    switch (status) {
        case 0:  break;
        case 1:  throw coded_error("CONTEXT_OVERFLOW", "no room in the KV cache for a batch of " + std::to_string(job.n_rows) + " rows");
        case 2:  throw coded_error("ABORTED", "the decode was aborted");
        default: throw coded_error("NATIVE_FAILURE", "llama_decode returned " + std::to_string(status) + ": " + log_take());
    }
    norm.check_fired();
    hooks->check_fired();

    const auto require_finite = [&](const float * values, size_t n, const std::string & what) {
        for (size_t i = 0; i < n; ++i) {
            if (std::isnan(values[i]) || values[i] == INFINITY) { // -inf is how some models rule a token out
                poisoned = true;
                throw coded_error("NOT_FINITE", what + " hold NaN or infinity: the model's file is damaged, "
                    "or an intervention drove its states out of the range of its arithmetic");
            }
        }
    };
    for (const auto & c : job.captures) {
        for (int64_t offset : c.offsets) {
            require_finite(c.out + offset, c.width, "the hidden states of layer " + std::to_string(c.layer));
        }
    }

    const auto logits_of = [&](int32_t row) {
        const float * logits = llama_get_logits_ith(handle, row);
        if (!logits) {
            throw coded_error("NATIVE_FAILURE", "no logits for row " + std::to_string(row));
        }
        return logits;
    };
    for (const auto & l : job.logits) {
        for (size_t i = 0; i < l.rows.size(); ++i) {
            const float * logits = logits_of(l.rows[i]);
            require_finite(logits, n_vocab, "the logits");
            std::copy(logits, logits + n_vocab, l.out + l.offsets[i]);
        }
    }
    for (size_t i = 0; i < job.top_rows.size(); ++i) {
        const float * logits = logits_of(job.top_rows[i]);
        require_finite(logits, n_vocab, "the logits");
        top_k_of(logits, n_vocab, job.top_k, job.top_ids + i * job.top_k, job.top_logits + i * job.top_k);
        job.top_logsumexp[i] = static_cast<float>(log_sum_exp(logits, n_vocab));
    }
}

void context::lens(const lens_job & job) {
    const auto turn = turn_of(*owner);
    if (!head) {
        head = std::make_unique<output_head>(owner, handle, n_threads, threadpool.get(), points.last_block);
    }
    head->run(job);
    owner->servers.require();
}
