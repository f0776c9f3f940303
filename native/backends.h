#pragma once

#include "ggml-backend.h"

#include <cstdint>
#include <string>
#include <vector>

struct device_info {
    std::string name;
    std::string description;
    std::string backend;
    std::string type; // "cpu", "gpu", "igpu" or "accel"
    uint64_t    memory_free;
    uint64_t    memory_total;
};

// Starts llama.cpp once a process and routes its log lines into a short memory of the latest warnings and errors.
void backends_start();

// Loads every backend library of a folder, e.g. the CPU variants beside libllama; the best variant registers itself.
void backends_load_folder(const std::string & folder);

// Loads one backend library, e.g. libggml-vulkan.so. Returns an empty string, or why it could not be loaded.
std::string backends_load_library(const std::string & path);

std::vector<device_info> backends_devices();

// The devices for `llama_model_params::devices`, terminated by nullptr. "auto" = every GPU there is, "cpu" = none,
// anything else is the name of one device. Throws coded_error DEVICE_UNKNOWN.
std::vector<ggml_backend_dev_t> backends_select(const std::string & device);

// The warnings and errors that llama.cpp logged on any thread since the last call, newest last.
std::string log_take();
