#include "output_head.h"

#include "backends.h"
#include "errors.h"

#include "ggml-alloc.h"
#include "ggml-backend.h"
#include "llama-ext.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <thread>
#include <unordered_map>

// The tail of no architecture comes near.
static const size_t MAX_NODES = 512;

output_head::tail::~tail() {
    ggml_free(context);
}

output_head::output_head(std::shared_ptr<model> shared, llama_context * context, int32_t n_threads, ggml_threadpool * threadpool)
    : owner(std::move(shared)), context(context), n_threads(n_threads) {
    std::vector<ggml_backend_dev_t> devices;
    for (int i = 0; i < llama_model_n_devices(owner->handle); ++i) {
        devices.push_back(llama_model_get_device(owner->handle, i));
    }
    devices.push_back(ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU));
    for (ggml_backend_dev_t device : devices) {
        ggml_backend_t backend = ggml_backend_dev_init(device, nullptr);
        if (!backend) {
            throw coded_error("NATIVE_FAILURE", std::string("the device ") + ggml_backend_dev_name(device) + " could not be started");
        }
        backends.push_back(backend);
    }
    if (const auto set = cpu_function<ggml_backend_set_n_threads_t>("ggml_backend_set_n_threads")) {
        set(backends.back(), n_threads);
    }
    if (const auto set = cpu_function<decltype(&ggml_backend_cpu_set_threadpool)>("ggml_backend_cpu_set_threadpool"); set && threadpool) {
        set(backends.back(), threadpool);
    }
    sched = ggml_backend_sched_new(backends.data(), nullptr, backends.size(), MAX_NODES, false, true);
}

output_head::~output_head() {
    ggml_backend_sched_free(sched);
    for (ggml_backend_t backend : backends) {
        ggml_backend_free(backend);
    }
}

namespace {

// Copies the tensors that lead from the last block's output to the logits. Weights are shared, not copied.
struct cloner {
    ggml_context *       context;
    const ggml_tensor *  last_block;
    ggml_tensor *        input;
    std::unordered_map<const ggml_tensor *, ggml_tensor *> done;

    ggml_tensor * clone(ggml_tensor * source) {
        if (source == last_block) {
            return input;
        }
        if (const auto it = done.find(source); it != done.end()) {
            return it->second;
        }
        if (source->op == GGML_OP_NONE && !source->view_src) {
            if (!source->buffer || ggml_backend_buffer_get_usage(source->buffer) != GGML_BACKEND_BUFFER_USAGE_WEIGHTS) {
                throw coded_error("ARCHITECTURE_UNSUPPORTED",
                    std::string("behind its last block this architecture reads '") + source->name + "', which depends on the prompt");
            }
            return done[source] = source;
        }
        ggml_tensor * copy = ggml_new_tensor(context, source->type, GGML_MAX_DIMS, source->ne);
        std::copy(source->nb, source->nb + GGML_MAX_DIMS, copy->nb);
        copy->op    = source->op;
        copy->flags = source->flags;
        std::memcpy(copy->op_params, source->op_params, sizeof(copy->op_params));
        ggml_set_name(copy, source->name);
        done[source] = copy;
        if (source->view_src) {
            copy->view_src  = clone(source->view_src);
            copy->view_offs = source->view_offs;
        }
        for (int i = 0; i < GGML_MAX_SRC; ++i) {
            copy->src[i] = source->src[i] ? clone(source->src[i]) : nullptr;
        }
        return copy;
    }
};

} // namespace

std::unique_ptr<output_head::tail> output_head::clone_tail(int32_t n_rows) {
    ggml_cgraph * whole = llama_graph_reserve(context, n_rows, 1, n_rows);
    if (!whole) {
        throw coded_error("NATIVE_FAILURE", "the graph of this model could not be built: " + log_take());
    }
    const std::string name = std::string(hook_table::node_name(hook_point::resid_post)) + "-" +
        std::to_string(llama_model_n_layer(owner->handle) - 1);
    ggml_tensor * last_block = nullptr;
    ggml_tensor * logits     = nullptr;
    for (int i = 0; i < ggml_graph_n_nodes(whole); ++i) {
        ggml_tensor * node = ggml_graph_node(whole, i);
        if (name == node->name) {
            last_block = node;
        } else if (std::strcmp(node->name, "result_output") == 0) {
            logits = node;
        }
    }
    if (!last_block || !logits) {
        throw coded_error("HOOK_UNSUPPORTED", "this architecture does not name its last block's output or its logits in llama.cpp");
    }

    auto t = std::make_unique<tail>();
    t->context = ggml_init({ ggml_tensor_overhead() * MAX_NODES + ggml_graph_overhead_custom(MAX_NODES, false), nullptr, true });
    t->input   = ggml_new_tensor_2d(t->context, GGML_TYPE_F32, last_block->ne[0], n_rows);
    ggml_set_input(t->input);
    t->output = cloner { t->context, last_block, t->input, {} }.clone(logits);
    ggml_set_output(t->output);
    t->graph = ggml_new_graph_custom(t->context, MAX_NODES, false);
    ggml_build_forward_expand(t->graph, t->output);
    return t;
}

// What is asked of row `row`, whose logits are `all + row * n_vocab`.
static void measure(const lens_job & job, int32_t row, const float * all, const double * lse, int32_t n_vocab) {
    const float * logits = all + static_cast<size_t>(row) * n_vocab;
    const size_t  r      = row;
    const int32_t ref    = job.reference ? job.reference[row] : -1;
    const float * other  = ref < 0 ? nullptr : all + static_cast<size_t>(ref) * n_vocab;
    double entropy = 0.0, kl = 0.0;
    for (int32_t i = 0; i < n_vocab; ++i) {
        const double log_q = logits[i] - lse[row];
        entropy -= std::exp(log_q) * log_q;
        if (other) {
            const double log_p = other[i] - lse[ref];
            kl += std::exp(log_p) * (log_p - log_q);
        }
    }
    job.logsumexp[r] = static_cast<float>(lse[row]);
    job.entropy[r]   = static_cast<float>(entropy);
    job.kl[r]        = other ? static_cast<float>(kl) : std::nanf("");
    if (job.top_k > 0) {
        top_k_of(logits, n_vocab, job.top_k, job.top_ids + r * job.top_k, job.top_logits + r * job.top_k);
    }
    for (size_t t = 0; t < job.tokens.size(); ++t) {
        const float logit = logits[job.tokens[t]];
        job.token_logits[r * job.tokens.size() + t] = logit;
        job.token_ranks[r * job.tokens.size() + t]  = std::count_if(logits, logits + n_vocab, [=](float x) { return x > logit; });
    }
    if (job.logits) {
        std::copy(logits, logits + n_vocab, job.logits + r * n_vocab);
    }
}

// Rows shared out over threads: for a large vocabulary this costs as much as the head itself.
template <typename F>
static void for_each_row(int32_t n_rows, int32_t n_threads, F work) {
    std::vector<std::thread> threads;
    for (int32_t t = 1; t < n_threads; ++t) {
        threads.emplace_back([=] { for (int32_t row = t; row < n_rows; row += n_threads) { work(row); } });
    }
    for (int32_t row = 0; row < n_rows; row += n_threads) {
        work(row);
    }
    for (auto & thread : threads) {
        thread.join();
    }
}

void output_head::run(const lens_job & job) {
    const int32_t n_vocab = llama_vocab_n_tokens(owner->vocab);
    if (!graph || graph->input->ne[1] != job.n_rows) {
        graph = clone_tail(job.n_rows);
    }
    ggml_backend_sched_reset(sched);
    if (!ggml_backend_sched_alloc_graph(sched, graph->graph)) {
        throw coded_error("NATIVE_FAILURE", "no memory for the logits of " + std::to_string(job.n_rows) + " rows");
    }
    ggml_backend_tensor_set(graph->input, job.states, 0, ggml_nbytes(graph->input));
    if (ggml_backend_sched_graph_compute(sched, graph->graph) != GGML_STATUS_SUCCESS) {
        throw coded_error("NATIVE_FAILURE", "the output head could not be computed: " + log_take());
    }
    logits.resize(static_cast<size_t>(job.n_rows) * n_vocab);
    ggml_backend_tensor_get(graph->output, logits.data(), 0, logits.size() * sizeof(float));

    std::vector<double> lse(job.n_rows);
    const float *       all = logits.data();
    for_each_row(job.n_rows, n_threads, [&, all](int32_t row) { lse[row] = log_sum_exp(all + static_cast<size_t>(row) * n_vocab, n_vocab); });
    for (double value : lse) {
        if (!std::isfinite(value)) {
            throw coded_error("NOT_FINITE", "the logits hold NaN or infinity: the states are outside the range of the model's arithmetic");
        }
    }
    for_each_row(job.n_rows, n_threads, [&, all](int32_t row) { measure(job, row, all, lse.data(), n_vocab); });
}
