#include "kernel_backend.h"

#include "kernels.h"
#include "runtime.h"

#include "ggml-backend-impl.h"
#include "ggml-cpu.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <new>
#include <vector>

#if defined(__x86_64__) && defined(__GNUC__)
static const kernels * find_kernels() {
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f")) {
        return &kernels_avx512;
    }
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? &kernels_avx2 : nullptr;
}
#else
static const kernels * find_kernels() { return nullptr; }
#endif

static const kernels * const KERNELS = find_kernels();

// With fewer rows the weights, or keys and values, are read once for little work, and llama.cpp's kernels are as good.
static const int64_t FEWEST_ROWS = 4;

namespace {

struct threads { int n = 1; ggml_threadpool * pool = nullptr; };
thread_local threads current;
thread_local bool    starting = false; // a context
thread_local std::vector<int32_t> same; // of each row of the batch the one that is computed for it; none: there is no such

struct free_scratch { void operator()(float * p) const { ::operator delete[](p, std::align_val_t(64)); } };

// A node in parts, each of which one thread computes at a time.
struct shared_work {
    std::function<void(int64_t part, float * scratch)> compute;
    int64_t              n_parts = 1;
    std::atomic<int64_t> next { 0 };
    float *              scratch = nullptr;

    void work(int thread) {
        float * const own = scratch + thread * (kernel_scratch / sizeof(float));
        for (int64_t part = next++; part < n_parts; part = next++) {
            compute(part, own);
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
        scratch.reset(static_cast<float *>(::operator new[](size_t(on.n) * kernel_scratch, std::align_val_t(64))));
        cpu_function<ggml_backend_set_n_threads_t>("ggml_backend_set_n_threads")(cpu, on.n);
        cpu_function<decltype(&ggml_backend_cpu_set_threadpool)>("ggml_backend_cpu_set_threadpool")(cpu, on.pool);
    }
    ~backend_state() { ggml_backend_free(cpu); }
};

} // namespace

static float_type type_of(const ggml_tensor * t) {
    return t->type == GGML_TYPE_F32 ? float_32 : t->type == GGML_TYPE_F16 ? float_16 : float_b16;
}

static product product_of(const ggml_tensor * node) {
    const ggml_tensor * w = node->src[0], * x = node->src[1];
    product p;
    p.type     = type_of(w);
    p.w        = w->data;
    p.w_stride = w->nb[1] / w->nb[0];
    p.m        = w->ne[1];
    p.k        = w->ne[0];
    p.x        = static_cast<const float *>(x->data);
    p.x_stride = x->nb[1] / sizeof(float);
    p.n        = x->ne[1];
    p.c        = static_cast<float *>(node->data);
    p.c_stride = node->nb[1] / sizeof(float);
    return p;
}

static void divide_product(std::deque<shared_work> & jobs, const product & p, int n_threads) {
    const int64_t m_parts = (p.m + product_columns - 1) / product_columns;
    // A few parts for each thread, so that none waits long for the last one; no more, as each part turns its weights anew.
    const int64_t wanted  = n_threads == 1 ? 1 : (4 * n_threads + m_parts - 1) / m_parts;
    const int64_t most    = std::clamp<int64_t>(wanted, 1, std::max<int64_t>(1, p.n / 48));
    const int64_t n       = std::max<int64_t>(1, (p.n + most - 1) / most);
    const int64_t n_parts = (p.n + n - 1) / n; // none of them empty
    shared_work & job = jobs.emplace_back();
    job.n_parts = m_parts * n_parts;
    job.compute = [=](int64_t part, float * scratch) {
        const int64_t m0 = part / n_parts * product_columns, n0 = part % n_parts * n;
        KERNELS->multiply(&p, m0, std::min<int64_t>(product_columns, p.m - m0), n0, std::min(n, p.n - n0), scratch);
    };
}

// A product of weights, if some rows are the same: of one of each.
static bool divide_same(std::deque<shared_work> & jobs, const ggml_tensor * node, int n_threads) {
    const ggml_backend_buffer_t buffer = node->src[0]->buffer;
    const product all = product_of(node);
    if (all.n != static_cast<int64_t>(same.size()) || !buffer || ggml_backend_buffer_get_usage(buffer) != GGML_BACKEND_BUFFER_USAGE_WEIGHTS) {
        return false; // the rows are no rows of the batch, or see each other
    }
    struct rows {
        std::vector<int32_t> computed, place; // rows of the batch; of each row of it, where its numbers are among those
        std::vector<float>   x, c;
    };
    const auto few = std::make_shared<rows>();
    for (int32_t i = 0; i < all.n; ++i) {
        if (same[i] == i) {
            few->computed.push_back(i);
        }
        few->place.push_back(same[i] == i ? static_cast<int32_t>(few->computed.size()) - 1 : few->place[same[i]]);
    }
    if (few->computed.size() == same.size()) {
        return false;
    }
    few->x.resize(few->computed.size() * all.k);
    few->c.resize(few->computed.size() * all.m);
    product p = all;
    p.x        = few->x.data();
    p.x_stride = all.k;
    p.n        = few->computed.size();
    p.c        = few->c.data();
    p.c_stride = all.m;
    shared_work & gather = jobs.emplace_back();
    gather.compute = [=](int64_t, float *) {
        for (size_t i = 0; i < few->computed.size(); ++i) {
            std::copy_n(all.x + few->computed[i] * all.x_stride, all.k, few->x.data() + i * all.k);
        }
    };
    divide_product(jobs, p, n_threads);
    shared_work & scatter = jobs.emplace_back();
    scatter.compute = [=](int64_t, float *) {
        for (int64_t i = 0; i < all.n; ++i) {
            std::copy_n(few->c.data() + few->place[i] * all.m, all.m, all.c + i * all.c_stride);
        }
    };
    return true;
}

static void divide_attention(std::deque<shared_work> & jobs, const ggml_tensor * node) {
    const ggml_tensor * q = node->src[0], * k = node->src[1], * v = node->src[2], * mask = node->src[3];
    attention a;
    a.q        = static_cast<const char *>(q->data);
    a.k        = static_cast<const char *>(k->data);
    a.v        = static_cast<const char *>(v->data);
    a.mask     = static_cast<const char *>(mask->data);
    a.q_row    = q->nb[1];
    a.q_head   = q->nb[2];
    a.k_cell   = k->nb[1];
    a.k_head   = k->nb[2];
    a.v_cell   = v->nb[1];
    a.v_head   = v->nb[2];
    a.mask_row = mask->nb[1];
    a.n_cells  = k->ne[1];
    a.n_head   = q->ne[2];
    a.group    = q->ne[2] / k->ne[2];
    a.k_width  = k->ne[0];
    a.v_width  = v->ne[0];
    a.out      = static_cast<float *>(node->data);
    std::memcpy(&a.scale, node->op_params, sizeof(a.scale));
    const int64_t n = attention_rows / a.group, n_rows = q->ne[1], n_parts = (n_rows + n - 1) / n;
    shared_work & job = jobs.emplace_back();
    job.n_parts = k->ne[2] * n_parts;
    job.compute = [=](int64_t part, float * scratch) {
        const int64_t n0 = part % n_parts * n;
        KERNELS->attend(&a, part / n_parts, n0, std::min(n, n_rows - n0), scratch);
    };
}

static ggml_status compute_graph(ggml_backend_t backend, ggml_cgraph * graph) {
    auto & state = *static_cast<backend_state *>(backend->context);
    std::deque<shared_work> jobs;
    for (int i = 0; i < ggml_graph_n_nodes(graph); ++i) {
        const ggml_tensor * node = ggml_graph_node(graph, i);
        if (!(node->flags & GGML_TENSOR_FLAG_COMPUTE) || ggml_is_empty(node)) {
            continue;
        }
        if (node->op == GGML_OP_FLASH_ATTN_EXT) {
            divide_attention(jobs, node);
        } else if (node->op == GGML_OP_MUL_MAT && !divide_same(jobs, node, state.on.n)) {
            divide_product(jobs, product_of(node), state.on.n);
        }
    }
    for (auto & job : jobs) {
        job.scratch = state.scratch.get();
    }
    if (state.on.n == 1) {
        for (auto & job : jobs) {
            job.work(0);
        }
    }
    if (state.on.n == 1 || jobs.empty()) {
        return GGML_STATUS_SUCCESS;
    }
    // On ggml's own threads, one job after the other: others would compete with them, as they wait by spinning.
    const size_t bytes = jobs.size() * ggml_tensor_overhead() + ggml_graph_overhead_custom(jobs.size(), false);
    const std::unique_ptr<ggml_context, decltype(&ggml_free)> context(ggml_init({ bytes, nullptr, true }), ggml_free);
    ggml_cgraph * const shared = ggml_new_graph_custom(context.get(), jobs.size(), false);
    for (auto & job : jobs) {
        const auto work = [](ggml_tensor *, int ith, int, void * job) { static_cast<shared_work *>(job)->work(ith); };
        ggml_tensor * task = ggml_custom_4d(context.get(), GGML_TYPE_F32, 1, 1, 1, 1, nullptr, 0, work, GGML_N_TASKS_MAX, &job);
        task->data  = &job; // it writes where its nodes are
        task->flags |= GGML_TENSOR_FLAG_COMPUTE;
        ggml_graph_add_node(shared, task);
    }
    return ggml_backend_graph_compute(state.cpu, shared);
}

static bool is_rows_of(const ggml_tensor * t, ggml_type type) {
    return t->type == type && t->nb[0] == ggml_type_size(type) && t->ne[3] == 1;
}

static bool supports_product(const ggml_tensor * node) {
    const ggml_tensor * w = node->src[0], * x = node->src[1];
    return (w->type == GGML_TYPE_F32 || w->type == GGML_TYPE_F16 || w->type == GGML_TYPE_BF16) && is_rows_of(w, w->type) &&
           w->ne[2] == 1 && w->ne[0] % 8 == 0 && is_rows_of(x, GGML_TYPE_F32) && x->ne[2] == 1 && x->ne[1] >= FEWEST_ROWS &&
           is_rows_of(node, GGML_TYPE_F32);
}

// Without position biases (ALiBi), caps of scores and sinks: few models have them.
static bool supports_attention(const ggml_tensor * node) {
    const ggml_tensor * q = node->src[0], * k = node->src[1], * v = node->src[2], * mask = node->src[3];
    float params[3]; // scale, bias, cap
    std::memcpy(params, node->op_params, sizeof(params));
    const auto width = [](const ggml_tensor * t) { return t->ne[0] % 8 == 0 && t->ne[0] <= attention_width; };
    return params[1] == 0 && params[2] == 0 && !node->src[4] && mask && is_rows_of(mask, GGML_TYPE_F16) && mask->ne[2] == 1 &&
           is_rows_of(k, GGML_TYPE_F16) && is_rows_of(v, GGML_TYPE_F16) && is_rows_of(q, GGML_TYPE_F32) &&
           q->ne[1] >= FEWEST_ROWS && k->ne[1] % 8 == 0 && k->ne[2] == v->ne[2] &&
           width(k) && width(v) && q->ne[2] / k->ne[2] <= attention_rows;
}

static bool supports(ggml_backend_dev_t, const ggml_tensor * node) {
    switch (node->op) {
        case GGML_OP_RESHAPE:
        case GGML_OP_VIEW:
        case GGML_OP_PERMUTE:
        case GGML_OP_TRANSPOSE:
        case GGML_OP_NONE:    return true;
        case GGML_OP_MUL_MAT: return supports_product(node);
        // Where llama.cpp is to find out whether there is flash attention, it looks for it on the device that has the layer.
        case GGML_OP_FLASH_ATTN_EXT: return !starting && supports_attention(node);
        default: return false;
    }
}

static ggml_backend_t make_backend(ggml_backend_dev_t device, const char *) {
    static ggml_guid guid = { 'x', 'p', 'a', 't', 'c', 'h', ' ', 'p', 'r', 'o', 'd', 'u', 'c', 't', 's', '1' };
    ggml_backend_i iface {};
    iface.get_name      = [](ggml_backend_t) { return "kernels"; };
    iface.free          = [](ggml_backend_t backend) {
        delete static_cast<backend_state *>(backend->context);
        delete backend;
    };
    iface.graph_compute = compute_graph;
    return new ggml_backend { &guid, iface, device, new backend_state };
}

static ggml_backend_device make_device(ggml_backend_reg_t reg) {
    ggml_backend_device_i iface {};
    iface.get_name        = [](ggml_backend_dev_t) { return "kernels"; };
    iface.get_description = [](ggml_backend_dev_t) { return "products of float weights, and attention, of many rows"; };
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
            [](ggml_backend_reg_t) { return "kernels"; },
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

void kernel_backend_register() {
    if (KERNELS) {
        ggml_backend_register(registration());
    }
}

ggml_backend_dev_t kernel_device() { return KERNELS ? ggml_backend_reg_dev_get(registration(), 0) : nullptr; }

kernel_threads::kernel_threads(int n_threads, ggml_threadpool * pool) { 
    current  = { n_threads, pool };
    starting = true;
}

kernel_threads::~kernel_threads() {
    current  = {};
    starting = false;
}

same_rows::same_rows(std::vector<int32_t> first) { same = std::move(first); }

same_rows::~same_rows() { same.clear(); }

void same_rows_changed(int32_t row) {
    if (same.empty()) {
        return;
    }
    // The next of those that it stood for stands for the others.
    int32_t heir = -1;
    for (int32_t i = row + 1; same[row] == row && i < static_cast<int32_t>(same.size()); ++i) {
        if (same[i] == row) {
            heir = heir < 0 ? i : heir;
            same[i] = heir;
        }
    }
    same[row] = row;
}
