#include "product_backend.h"

#include "product.h"
#include "runtime.h"

#include "ggml-backend-impl.h"
#include "ggml-cpu.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

#if defined(__x86_64__) && defined(__GNUC__)
static product_kernel find_kernel() {
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f")) {
        return product_avx512;
    }
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? product_avx2 : nullptr;
}
#else
static product_kernel find_kernel() { return nullptr; }
#endif

static const product_kernel KERNEL = find_kernel();

// With fewer rows the weights are read once for little work, and llama.cpp's kernels are as good.
static const int64_t FEWEST_ROWS = 4;

namespace {

struct threads { int n = 1; ggml_threadpool * pool = nullptr; };
thread_local threads current;

struct free_scratch { void operator()(float * p) const { ::operator delete[](p, std::align_val_t(64)); } };

// What one thread computes at a time: a block of columns for some of the rows.
struct shared_product {
    product              p;
    int64_t              n_per_part, m_parts, n_parts;
    std::atomic<int64_t> next { 0 };
    float *              scratch;

    void work(int thread) {
        float * const own = scratch + thread * (product_scratch / sizeof(float));
        for (int64_t i = next++; i < m_parts * n_parts; i = next++) {
            const int64_t m0 = i / n_parts * product_columns, n0 = i % n_parts * n_per_part;
            KERNEL(&p, m0, std::min<int64_t>(product_columns, p.m - m0), n0, std::min(n_per_part, p.n - n0), own);
        }
    }
};

struct backend_state {
    threads        on = current;
    ggml_backend_t cpu; // for its threads
    std::unique_ptr<float, free_scratch> scratch;

    backend_state() : cpu(ggml_backend_init_by_type(GGML_BACKEND_DEVICE_TYPE_CPU, nullptr)) {
        if (!on.pool) {
            on.n = 1;
        }
        scratch.reset(static_cast<float *>(::operator new[](size_t(on.n) * product_scratch, std::align_val_t(64))));
        cpu_function<ggml_backend_set_n_threads_t>("ggml_backend_set_n_threads")(cpu, on.n);
        cpu_function<decltype(&ggml_backend_cpu_set_threadpool)>("ggml_backend_cpu_set_threadpool")(cpu, on.pool);
    }
    ~backend_state() { ggml_backend_free(cpu); }
};

} // namespace

static void fill(shared_product & job, const ggml_tensor * node, const backend_state & state) {
    const ggml_tensor * w = node->src[0], * x = node->src[1];
    job.p.type     = w->type == GGML_TYPE_F32 ? product_f32 : w->type == GGML_TYPE_F16 ? product_f16 : product_bf16;
    job.p.w        = w->data;
    job.p.w_stride = w->nb[1] / w->nb[0];
    job.p.m        = w->ne[1];
    job.p.k        = w->ne[0];
    job.p.x        = static_cast<const float *>(x->data);
    job.p.x_stride = x->nb[1] / sizeof(float);
    job.p.n        = x->ne[1];
    job.p.c        = static_cast<float *>(node->data);
    job.p.c_stride = node->nb[1] / sizeof(float);
    job.scratch    = state.scratch.get();
    job.m_parts    = (job.p.m + product_columns - 1) / product_columns;
    // A few parts for each thread, so that none waits long for the last one; no more, as each part turns its weights anew.
    const int64_t wanted = state.on.n == 1 ? 1 : (4 * state.on.n + job.m_parts - 1) / job.m_parts;
    job.n_parts    = std::clamp<int64_t>(wanted, 1, std::max<int64_t>(1, job.p.n / 48));
    job.n_per_part = (job.p.n + job.n_parts - 1) / job.n_parts;
}

static ggml_status compute_graph(ggml_backend_t backend, ggml_cgraph * graph) {
    auto & state = *static_cast<backend_state *>(backend->context);
    std::vector<const ggml_tensor *> nodes;
    for (int i = 0; i < ggml_graph_n_nodes(graph); ++i) {
        const ggml_tensor * node = ggml_graph_node(graph, i);
        if (node->op == GGML_OP_MUL_MAT && (node->flags & GGML_TENSOR_FLAG_COMPUTE)) {
            nodes.push_back(node);
        }
    }
    if (nodes.empty()) {
        return GGML_STATUS_SUCCESS;
    }
    std::vector<shared_product> jobs(nodes.size());
    for (size_t i = 0; i < nodes.size(); ++i) {
        fill(jobs[i], nodes[i], state);
    }
    if (state.on.n == 1) {
        for (auto & job : jobs) {
            job.work(0);
        }
        return GGML_STATUS_SUCCESS;
    }
    // On ggml's own threads: others would compete with them, as they wait by spinning.
    const size_t bytes = nodes.size() * ggml_tensor_overhead() + ggml_graph_overhead_custom(nodes.size(), false);
    const std::unique_ptr<ggml_context, decltype(&ggml_free)> context(ggml_init({ bytes, nullptr, true }), ggml_free);
    ggml_cgraph * const shared = ggml_new_graph_custom(context.get(), nodes.size(), false);
    for (size_t i = 0; i < nodes.size(); ++i) {
        const auto work = [](ggml_tensor *, int ith, int, void * job) { static_cast<shared_product *>(job)->work(ith); };
        ggml_tensor * task = ggml_custom_4d(context.get(), GGML_TYPE_F32, nodes[i]->ne[0], nodes[i]->ne[1], 1, 1, nullptr, 0, work,
            GGML_N_TASKS_MAX, &jobs[i]);
        task->data  = nodes[i]->data;
        task->flags |= GGML_TENSOR_FLAG_COMPUTE;
        ggml_graph_add_node(shared, task);
    }
    return ggml_backend_graph_compute(state.cpu, shared);
}

static bool supports(ggml_backend_dev_t, const ggml_tensor * node) {
    if (ggml_is_empty(node) || node->op == GGML_OP_RESHAPE || node->op == GGML_OP_VIEW || node->op == GGML_OP_PERMUTE ||
        node->op == GGML_OP_TRANSPOSE || node->op == GGML_OP_NONE) {
        return true;
    }
    if (node->op != GGML_OP_MUL_MAT) {
        return false;
    }
    const ggml_tensor * w = node->src[0], * x = node->src[1];
    const bool floats = w->type == GGML_TYPE_F32 || w->type == GGML_TYPE_F16 || w->type == GGML_TYPE_BF16;
    return floats && w->nb[0] == ggml_type_size(w->type) && w->ne[2] * w->ne[3] == 1 && w->ne[0] % 8 == 0 &&
           x->type == GGML_TYPE_F32 && x->nb[0] == sizeof(float) && x->ne[2] * x->ne[3] == 1 && x->ne[1] >= FEWEST_ROWS &&
           node->type == GGML_TYPE_F32 && node->nb[0] == sizeof(float);
}

static ggml_backend_t make_backend(ggml_backend_dev_t device, const char *) {
    static ggml_guid guid = { 'x', 'p', 'a', 't', 'c', 'h', ' ', 'p', 'r', 'o', 'd', 'u', 'c', 't', 's', '1' };
    ggml_backend_i iface {};
    iface.get_name      = [](ggml_backend_t) { return "products"; };
    iface.free          = [](ggml_backend_t backend) {
        delete static_cast<backend_state *>(backend->context);
        delete backend;
    };
    iface.graph_compute = compute_graph;
    return new ggml_backend { &guid, iface, device, new backend_state };
}

static ggml_backend_device make_device(ggml_backend_reg_t reg) {
    ggml_backend_device_i iface {};
    iface.get_name        = [](ggml_backend_dev_t) { return "products"; };
    iface.get_description = [](ggml_backend_dev_t) { return "products of float weights with many rows"; };
    iface.get_memory      = [](ggml_backend_dev_t, size_t * free, size_t * total) { *free = *total = 0; };
    iface.get_type        = [](ggml_backend_dev_t) { return GGML_BACKEND_DEVICE_TYPE_ACCEL; };
    iface.get_props       = [](ggml_backend_dev_t device, ggml_backend_dev_props * props) {
        *props             = {};
        props->name        = device->iface.get_name(device);
        props->description = device->iface.get_description(device);
        props->type        = device->iface.get_type(device);
    };
    iface.init_backend    = make_backend;
    iface.get_buffer_type = [](ggml_backend_dev_t) { return ggml_backend_cpu_buffer_type(); };
    iface.supports_op     = supports;
    iface.supports_buft   = [](ggml_backend_dev_t, ggml_backend_buffer_type_t type) { return ggml_backend_buft_is_host(type); };
    return { iface, reg, nullptr };
}

static ggml_backend_reg_t registration() {
    static ggml_backend_reg reg = {
        GGML_BACKEND_API_VERSION,
        {
            [](ggml_backend_reg_t) { return "products"; },
            [](ggml_backend_reg_t) -> size_t { return 1; },
            [](ggml_backend_reg_t owner, size_t) {
                static ggml_backend_device device = make_device(owner);
                return &device;
            },
            [](ggml_backend_reg_t, const char *) -> void * { return nullptr; },
        },
        nullptr,
    };
    return &reg;
}

void product_backend_register() {
    if (KERNEL) {
        ggml_backend_register(registration());
    }
}

ggml_backend_dev_t product_device() { return KERNEL ? ggml_backend_reg_dev_get(registration(), 0) : nullptr; }

product_threads::product_threads(int n_threads, ggml_threadpool * pool) { current = { n_threads, pool }; }

product_threads::~product_threads() { current = {}; }
