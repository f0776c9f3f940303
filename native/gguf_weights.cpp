#include "gguf_weights.h"

#include "backends.h"
#include "errors.h"
#include "runtime.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>

ggml_tensor * graph_builder::input(ggml_type type, std::initializer_list<int64_t> shape, const void * data, size_t n_bytes) {
    ggml_tensor * tensor = ggml_new_tensor(ctx, type, shape.size(), shape.begin());
    if (ggml_nbytes(tensor) != n_bytes) {
        throw coded_error("NATIVE_FAILURE", "a graph input has " + std::to_string(n_bytes) + " bytes, not " +
            std::to_string(ggml_nbytes(tensor)));
    }
    ggml_set_input(tensor);
    const auto * bytes = static_cast<const uint8_t *>(data);
    inputs.emplace_back(tensor, std::vector<uint8_t>(bytes, bytes + n_bytes));
    return tensor;
}

gguf_weights::gguf_weights(const options & o) : n_threads(o.n_threads) {
    log_take();
    const ggml_backend_dev_t chosen = backends_select(o.device)[0];
    if (chosen) {
        device.reset(ggml_backend_dev_init(chosen, nullptr));
        if (!device) {
            throw coded_error("NATIVE_FAILURE", "the device could not be started: " + log_take());
        }
    }
    cpu.reset(ggml_backend_init_by_type(GGML_BACKEND_DEVICE_TYPE_CPU, nullptr));
    if (!cpu) {
        throw coded_error("NATIVE_FAILURE", "there is no CPU backend: " + log_take());
    }
    cpu_function<ggml_backend_set_n_threads_t>("ggml_backend_set_n_threads")(cpu.get(), o.n_threads);
    const auto aborts = [](void * data) { return static_cast<gguf_weights *>(data)->abort_requested.load(); };
    cpu_function<ggml_backend_set_abort_callback_t>("ggml_backend_set_abort_callback")(cpu.get(), aborts, this);

    ggml_context * made = nullptr;
    file.reset(gguf_init_from_file(o.path.c_str(), { /*no_alloc*/ true, &made }));
    tensors.reset(made);
    if (!file || !tensors) {
        throw coded_error("GGUF_INVALID", "it cannot be read: " + log_take());
    }
    buffer.reset(ggml_backend_alloc_ctx_tensors(tensors.get(), device ? device.get() : cpu.get()));
    if (!buffer) {
        throw coded_error("NATIVE_FAILURE", "there is not enough memory for its tensors: " + log_take());
    }
    ggml_backend_buffer_set_usage(buffer.get(), GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
    read_tensors(o.path);
}

void gguf_weights::read_tensors(const std::string & path) {
    std::ifstream in(std::filesystem::path(reinterpret_cast<const char8_t *>(path.c_str())), std::ios::binary);
    std::vector<char> piece(16 << 20); // a tensor may have gigabytes
    for (int64_t i = 0; i < gguf_get_n_tensors(file.get()); ++i) {
        const char *  name   = gguf_get_tensor_name(file.get(), i);
        ggml_tensor * tensor = ggml_get_tensor(tensors.get(), name);
        const size_t  size   = ggml_nbytes(tensor);
        in.seekg(static_cast<std::streamoff>(gguf_get_data_offset(file.get()) + gguf_get_tensor_offset(file.get(), i)));
        for (size_t at = 0; at < size && !abort_requested; at += piece.size()) {
            const size_t n = std::min(piece.size(), size - at);
            if (!in.read(piece.data(), static_cast<std::streamsize>(n))) {
                throw coded_error("GGUF_INVALID", std::string("it ends inside '") + name + "'");
            }
            ggml_backend_tensor_set(tensor, piece.data(), at, n);
        }
    }
}

ggml_tensor * gguf_weights::tensor(const std::string & name) const {
    ggml_tensor * found = ggml_get_tensor(tensors.get(), name.c_str());
    if (!found) {
        throw coded_error("GGUF_INVALID", "it has no tensor '" + name + "'");
    }
    return found;
}

int64_t gguf_weights::key(const std::string & name, gguf_type type) const {
    const int64_t id = gguf_find_key(file.get(), name.c_str());
    if (id < 0 || gguf_get_kv_type(file.get(), id) != type) {
        throw coded_error("GGUF_INVALID", "it has no " + name + " of type " + gguf_type_name(type));
    }
    return id;
}

uint32_t gguf_weights::u32(const std::string & name) const {
    return gguf_get_val_u32(file.get(), key(name, GGUF_TYPE_UINT32));
}

float gguf_weights::f32(const std::string & name) const {
    return gguf_get_val_f32(file.get(), key(name, GGUF_TYPE_FLOAT32));
}

std::vector<float> gguf_weights::floats(const std::string & name, size_t n) const {
    const int64_t id = key(name, GGUF_TYPE_ARRAY);
    if (gguf_get_arr_type(file.get(), id) != GGUF_TYPE_FLOAT32 || gguf_get_arr_n(file.get(), id) != n) {
        throw coded_error("GGUF_INVALID", name + " is not a list of " + std::to_string(n) + " floats");
    }
    const auto * values = static_cast<const float *>(gguf_get_arr_data(file.get(), id));
    return { values, values + n };
}

std::vector<float> gguf_weights::compute(size_t max_nodes, const std::function<ggml_tensor *(graph_builder &)> & build) {
    require_threads(n_threads); // ggml starts them anew for each graph
    const size_t room = ggml_tensor_overhead() * max_nodes + ggml_graph_overhead_custom(max_nodes, false);
    std::unique_ptr<ggml_context, free_context> ctx(ggml_init({ room, nullptr, /*no_alloc*/ true }));
    graph_builder builder(ctx.get(), device ? device.get() : cpu.get());
    ggml_tensor * result = build(builder);
    ggml_set_output(result);
    ggml_cgraph * graph = ggml_new_graph_custom(ctx.get(), max_nodes, false);
    ggml_build_forward_expand(graph, result);

    struct free_sched { void operator()(ggml_backend_sched * s) const { ggml_backend_sched_free(s); } };
    std::vector<ggml_backend_t> backends;
    if (device) {
        backends.push_back(device.get());
    }
    backends.push_back(cpu.get()); // the last one must be the CPU
    std::unique_ptr<ggml_backend_sched, free_sched> sched(
        ggml_backend_sched_new(backends.data(), nullptr, static_cast<int>(backends.size()), max_nodes, false, true));
    log_take();
    if (!ggml_backend_sched_alloc_graph(sched.get(), graph)) {
        throw coded_error("NATIVE_FAILURE", "there is not enough memory to compute it: " + log_take());
    }
    for (const auto & [tensor, values] : builder.inputs) {
        ggml_backend_tensor_set(tensor, values.data(), 0, values.size());
    }
    const ggml_status status = ggml_backend_sched_graph_compute(sched.get(), graph);
    if (status != GGML_STATUS_SUCCESS) {
        throw status == GGML_STATUS_ABORTED ? coded_error("ABORTED", "it was aborted")
            : coded_error("NATIVE_FAILURE", std::string("computing failed: ") + ggml_status_to_string(status) + " " + log_take());
    }
    std::vector<float> values(ggml_nelements(result));
    ggml_backend_tensor_get(result, values.data(), 0, values.size() * sizeof(float));
    return values;
}
