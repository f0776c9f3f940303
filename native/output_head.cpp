#include "output_head.h"

#include "backends.h"
#include "errors.h"
#include "logits.h"
#include "kernel_backend.h"

#include "ggml-alloc.h"
#include "ggml-backend.h"
#include "llama-ext.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstring>
#include <system_error>
#include <thread>
#include <unordered_map>

// The tail of no architecture comes near.
static const size_t MAX_NODES = 512;

output_head::tail::~tail() {
    ggml_free(context);
}

output_head::output_head(std::shared_ptr<model> shared, llama_context * context, int32_t n_threads, ggml_threadpool * threadpool,
    std::string last_block)
    : owner(std::move(shared)), context(context), n_threads(n_threads), last_block(std::move(last_block)) {
    std::vector<ggml_backend_dev_t> devices;
    for (int i = 0; i < llama_model_n_devices(owner->handle); ++i) {
        devices.push_back(llama_model_get_device(owner->handle, i));
    }
    if (ggml_backend_dev_t device = kernel_device()) {
        devices.push_back(device);
    }
    devices.push_back(ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU));
    const kernel_threads with(n_threads, threadpool);
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

// Whether a node picks the rows with outputs among those of the batch. Most architectures do so inside their last block, some
// behind it. llama.cpp gives their indices no name; nothing else indexes computed rows with an input of the graph.
bool selects_outputs(const ggml_tensor * node, int64_t n_rows) {
    const ggml_tensor * rows = node->src[1];
    return node->op == GGML_OP_GET_ROWS && node->src[0]->op != GGML_OP_NONE && rows->op == GGML_OP_NONE && !rows->view_src &&
           (rows->flags & GGML_TENSOR_FLAG_INPUT) && rows->type == GGML_TYPE_I32 && ggml_nelements(rows) == n_rows;
}

// Copies the tensors that lead from one node to another. Weights are shared, not copied.
struct cloner {
    ggml_context *       context;
    const ggml_tensor *  first;
    ggml_tensor *        input;
    std::unordered_map<const ggml_tensor *, ggml_tensor *> done;

    ggml_tensor * clone(ggml_tensor * source) {
        if (source == first) {
            return input;
        }
        if (const auto it = done.find(source); it != done.end()) {
            return it->second;
        }
        if (source->op == GGML_OP_NONE && !source->view_src) {
            if (!source->buffer || ggml_backend_buffer_get_usage(source->buffer) != GGML_BACKEND_BUFFER_USAGE_WEIGHTS) {
                throw coded_error("ARCHITECTURE_UNSUPPORTED",
                    std::string("after its last block this architecture reads '") + source->name + "', which depends on the prompt");
            }
            return done[source] = source;
        }
        if (selects_outputs(source, input->ne[1])) {
            return done[source] = clone(source->src[0]); // the states that are read are such rows already
        }
        if (done.size() + 1 >= MAX_NODES) {
            throw coded_error("ARCHITECTURE_UNSUPPORTED", "the logits of this architecture depend on more than its last block's output");
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

std::unique_ptr<output_head::tail> output_head::clone_tail(lens_job::part part, int32_t n_rows) {
    ggml_cgraph * whole = llama_graph_reserve(context, n_rows, 1, n_rows);
    if (!whole) {
        throw coded_error("NATIVE_FAILURE", "the graph of this model could not be built: " + log_take());
    }
    const auto find = [whole](const std::string & name, const char * code, const char * missing) {
        for (int i = ggml_graph_n_nodes(whole) - 1; i >= 0 && !name.empty(); --i) {
            if (name == ggml_graph_node(whole, i)->name) {
                return ggml_graph_node(whole, i);
            }
        }
        throw coded_error(code, std::string("this architecture ") + missing + " in llama.cpp");
    };
    const auto final_norm = [&] { return find("result_norm", "LENS_UNSUPPORTED", "has no node 'result_norm', its final norm,"); };
    ggml_tensor * first = part == lens_job::part::head ? final_norm() : find(last_block, "HOOK_UNSUPPORTED", "does not name its last block's output");
    ggml_tensor * last  = part == lens_job::part::norm ? final_norm() : find("result_output", "LENS_UNSUPPORTED", "does not name its logits");

    auto t = std::make_unique<tail>();
    t->part    = part;
    t->context = ggml_init({ ggml_tensor_overhead() * MAX_NODES + ggml_graph_overhead_custom(MAX_NODES, false), nullptr, true });
    t->input   = ggml_new_tensor_2d(t->context, GGML_TYPE_F32, first->ne[0], n_rows);
    ggml_set_input(t->input);
    t->output = cloner { t->context, first, t->input, {} }.clone(last);
    ggml_set_output(t->output);
    t->graph = ggml_new_graph_custom(t->context, MAX_NODES, false);
    ggml_build_forward_expand(t->graph, t->output);
    for (ggml_tensor * tensor = ggml_get_first_tensor(t->context); tensor; tensor = ggml_get_next_tensor(t->context, tensor)) {
        t->fresh.emplace_back(tensor, *tensor);
    }
    return t;
}

// The loops over every logit of every state, here and in logits.cpp, must not cost more than a fraction of the product that made
// them: no branches, and reductions that the compiler may reorder (-fopenmp-simd).

static int32_t count_above(const float * x, int32_t n, float value) {
    int32_t count = 0;
#pragma omp simd reduction(+ : count)
    for (int32_t i = 0; i < n; ++i) {
        count += x[i] > value;
    }
    return count;
}

// Rows shared out over threads, as many as can be started.
template <typename F>
static void for_each_row(int32_t n_rows, int32_t n_threads, F work) {
    std::vector<std::thread> threads;
    for (int32_t t = 1; t < n_threads; ++t) {
        const auto share = [=] { for (int32_t row = t; row < n_rows; row += n_threads) { work(row); } };
        try {
            threads.emplace_back(share);
        } catch (const std::system_error &) {
            share();
        }
    }
    for (int32_t row = 0; row < n_rows; row += n_threads) {
        work(row);
    }
    for (auto & thread : threads) {
        thread.join();
    }
}

static void measure(const lens_job & job, const float * all, int32_t n_vocab, int32_t n_threads) {
    struct summary { float max; double log_sum, entropy; };
    std::vector<summary> rows(job.n_rows);
    const auto logits_of = [=](size_t row) { return all + row * n_vocab; };

    for_each_row(job.n_rows, n_threads, [&](int32_t row) {
        const float * x   = logits_of(row);
        const float   max = maximum(x, n_vocab);
        const auto    own = expect(x, max, x, max, n_vocab);
        rows[row] = { max, std::log(own.sum), std::log(own.sum) - own.mean };
        job.logsumexp[row] = static_cast<float>(max + rows[row].log_sum);
        job.entropy[row]   = static_cast<float>(rows[row].entropy);
    });
    if (!std::all_of(rows.begin(), rows.end(), [](const summary & r) { return std::isfinite(r.log_sum); })) {
        throw coded_error("NOT_FINITE", "the logits hold NaN or infinity: the states are outside the range of the model's arithmetic");
    }
    for_each_row(job.n_rows, n_threads, [&](int32_t row) {
        const float * x   = logits_of(row);
        const int32_t ref = job.reference[row];
        const auto    mean = ref == row ? 0.0 : expect(logits_of(ref), rows[ref].max, x, rows[row].max, n_vocab).mean;
        // Cross entropy minus entropy of the reference.
        job.kl[row] = ref == row ? 0.0f : static_cast<float>(std::max(0.0, rows[row].log_sum - mean - rows[ref].entropy));
        if (job.top_k > 0) {
            top_k_of(x, n_vocab, job.top_k, job.top_ids + size_t(row) * job.top_k, job.top_logits + size_t(row) * job.top_k);
        }
        for (size_t t = 0, n = job.tokens.size(); t < n; ++t) {
            const float logit = x[job.tokens[t]];
            job.token_logits[row * n + t] = logit;
            job.token_ranks[row * n + t]  = count_above(x, n_vocab, logit);
        }
    });
}

// NaN, infinity and numbers whose squares overflow in a norm, which would make zeros of them.
static void require_states(const lens_job & job, int64_t n_embd) {
    for (int32_t row = 0; row < job.n_rows; ++row) {
        double squares = 0.0;
        for (int64_t i = 0; i < n_embd; ++i) {
            const double x = job.states[row * n_embd + i];
            squares += x * x;
        }
        if (!(squares <= FLT_MAX)) {
            throw coded_error("NOT_FINITE", "the states hold NaN, infinity or numbers outside the range of the model's arithmetic");
        }
    }
}

void output_head::prepare(lens_job::part part, int32_t n_rows) {
    if (!graph || graph->part != part || graph->input->ne[1] != n_rows) {
        graph = clone_tail(part, n_rows);
    }
}

void output_head::compute(const float * states) {
    // A scheduler leaves its marks on the tensors: places, and copies of their inputs on other devices, which are gone by now.
    for (const auto & [tensor, fresh] : graph->fresh) {
        *tensor = fresh;
    }
    ggml_backend_sched_reset(sched);
    if (!ggml_backend_sched_alloc_graph(sched, graph->graph)) {
        throw coded_error("NATIVE_FAILURE", "there is not enough memory for the logits of " + std::to_string(graph->input->ne[1]) + " rows");
    }
    ggml_backend_tensor_set(graph->input, states, 0, ggml_nbytes(graph->input));
    if (ggml_backend_sched_graph_compute(sched, graph->graph) != GGML_STATUS_SUCCESS) {
        throw coded_error("NATIVE_FAILURE", "the output head could not be computed: " + log_take());
    }
}

const float * output_head::logits(const float * states) {
    compute(states);
    const ggml_tensor * output = graph->output;
    if (ggml_backend_buffer_is_host(output->buffer)) {
        return static_cast<const float *>(output->data);
    }
    copied.resize(ggml_nelements(output));
    ggml_backend_tensor_get(output, copied.data(), 0, ggml_nbytes(output));
    return copied.data();
}

void output_head::run(const lens_job & job) {
    prepare(job.tail, job.n_rows);
    require_states(job, graph->input->ne[0]);
    if (job.logsumexp) {
        measure(job, logits(job.states), graph->output->ne[0], n_threads);
        return;
    }
    compute(job.states);
    if (job.tail == lens_job::part::norm) {
        ggml_backend_tensor_get(graph->output, job.normed, 0, ggml_nbytes(graph->output));
    }
}
