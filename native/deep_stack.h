#pragma once

// Runs work on a thread of its own with a stack of the size that the work needs. std::regex goes one level deeper for
// every character that a pattern takes in, and whoever calls may be on any stack: a worker's, or of a small `ulimit -s`.
#include "errors.h"

#include <cstddef>
#include <exception>
#include <functional>
#include <memory>

#ifdef _WIN32
#include <process.h>
#include <windows.h>
#else
#include <pthread.h>
#endif

struct deep_stack_job {
    const std::function<void()> & work;
    std::exception_ptr            error;

    void run() {
        try {
            work();
        } catch (...) {
            error = std::current_exception();
        }
    }
};

// `bytes` are reserved, and used only as far as the work goes.
inline void run_on_deep_stack(size_t bytes, const std::function<void()> & work) {
    deep_stack_job job { work, nullptr };
    const coded_error failed("NATIVE_FAILURE", "no thread with a stack of " + std::to_string(bytes >> 20) + " MiB could be "
        "started, which a text this long needs: shorten it, or give the process more memory");
#ifdef _WIN32
    const auto run = [](void * data) -> unsigned { static_cast<deep_stack_job *>(data)->run(); return 0; };
    const auto thread = reinterpret_cast<HANDLE>(
        _beginthreadex(nullptr, static_cast<unsigned>(bytes), run, &job, STACK_SIZE_PARAM_IS_A_RESERVATION, nullptr));
    if (!thread) {
        throw failed;
    }
    WaitForSingleObject(thread, INFINITE);
    CloseHandle(thread);
#else
    const auto run = [](void * data) -> void * { static_cast<deep_stack_job *>(data)->run(); return nullptr; };
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_t  thread;
    const bool started = pthread_attr_setstacksize(&attributes, bytes) == 0 && pthread_create(&thread, &attributes, run, &job) == 0;
    pthread_attr_destroy(&attributes);
    if (!started) {
        throw failed;
    }
    pthread_join(thread, nullptr);
#endif
    if (job.error) {
        std::rethrow_exception(job.error);
    }
}
