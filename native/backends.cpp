#include "backends.h"

#include "errors.h"
#include "kernel_backend.h"

#include "llama.h"

#include <deque>
#include <mutex>

static std::mutex              log_mutex;
static std::deque<std::string> log_lines;

static void log_keep(ggml_log_level level, const char * text, void *) {
    static thread_local ggml_log_level last = GGML_LOG_LEVEL_NONE;
    const bool continued = level == GGML_LOG_LEVEL_CONT;
    if (!continued) {
        last = level;
    }
    if (last != GGML_LOG_LEVEL_WARN && last != GGML_LOG_LEVEL_ERROR) {
        return;
    }
    std::lock_guard<std::mutex> lock(log_mutex);
    if (continued && !log_lines.empty()) {
        log_lines.back() += text;
    } else {
        log_lines.emplace_back(text);
    }
    if (log_lines.size() > 12) {
        log_lines.pop_front();
    }
}

std::string log_take() {
    std::lock_guard<std::mutex> lock(log_mutex);
    std::string all;
    for (const auto & line : log_lines) {
        all += line;
    }
    log_lines.clear();
    while (!all.empty() && all.back() == '\n') {
        all.pop_back();
    }
    return all;
}

void backends_start() {
    static std::once_flag once;
    std::call_once(once, [] {
        llama_log_set(log_keep, nullptr); // ggml's log goes the same way
        llama_backend_init();
        kernel_backend_register();
    });
}

void backends_load_folder(const std::string & folder) {
    ggml_backend_load_all_from_path(folder.c_str());
}

std::string backends_load_library(const std::string & path) {
    log_take();
    if (ggml_backend_load(path.c_str())) {
        return "";
    }
    const std::string why = log_take();
    return why.empty() ? "the library could not be loaded" : why;
}

static const char * type_name(enum ggml_backend_dev_type type) {
    switch (type) {
        case GGML_BACKEND_DEVICE_TYPE_CPU:  return "cpu";
        case GGML_BACKEND_DEVICE_TYPE_GPU:  return "gpu";
        case GGML_BACKEND_DEVICE_TYPE_IGPU: return "igpu";
        default:                            return "accel";
    }
}

std::vector<device_info> backends_devices() {
    std::vector<device_info> devices;
    for (size_t i = 0; i < ggml_backend_dev_count(); ++i) {
        ggml_backend_dev_t device = ggml_backend_dev_get(i);
        if (device == kernel_device()) {
            continue; // a part of the CPU, nothing to choose
        }
        size_t free = 0, total = 0;
        ggml_backend_dev_memory(device, &free, &total);
        devices.push_back({
            ggml_backend_dev_name(device),
            ggml_backend_dev_description(device),
            ggml_backend_reg_name(ggml_backend_dev_backend_reg(device)),
            type_name(ggml_backend_dev_type(device)),
            free,
            total,
        });
    }
    return devices;
}

std::vector<ggml_backend_dev_t> backends_select(const std::string & wanted) {
    std::vector<ggml_backend_dev_t> selected;
    std::string names;
    bool found = wanted == "auto" || wanted == "cpu";
    for (size_t i = 0; i < ggml_backend_dev_count(); ++i) {
        ggml_backend_dev_t device = ggml_backend_dev_get(i);
        const auto type = ggml_backend_dev_type(device);
        const bool gpu  = type == GGML_BACKEND_DEVICE_TYPE_GPU || type == GGML_BACKEND_DEVICE_TYPE_IGPU;
        const std::string name = ggml_backend_dev_name(device);
        if (device == kernel_device()) {
            continue;
        }
        names += (names.empty() ? "" : ", ") + name;
        if ((wanted == "auto" && gpu) || wanted == name) {
            if (gpu) {
                selected.push_back(device);
            }
            found = true;
        }
    }
    if (!found) {
        throw coded_error("DEVICE_UNKNOWN", "there is no device '" + wanted + "'; this machine has: auto, cpu, " + names);
    }
    selected.push_back(nullptr);
    return selected;
}
