#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

// One thread that runs jobs in order. Decodes take seconds: on libuv's pool they would starve file and network calls.
class worker {
public:
    worker() : thread([this] { run(); }) {}

    ~worker() { stop(); }

    // Runs what is queued, then ends the thread.
    void stop() {
        if (!thread.joinable()) {
            return;
        }
        {
            std::lock_guard<std::mutex> lock(mutex);
            stopping = true;
        }
        wake.notify_one();
        thread.join();
    }
    worker(const worker &) = delete;

    void post(std::function<void()> job) {
        {
            std::lock_guard<std::mutex> lock(mutex);
            jobs.push_back(std::move(job));
        }
        wake.notify_one();
    }

private:
    void run() {
        for (;;) {
            std::function<void()> job;
            {
                std::unique_lock<std::mutex> lock(mutex);
                wake.wait(lock, [this] { return stopping || !jobs.empty(); });
                if (jobs.empty()) {
                    return;
                }
                job = std::move(jobs.front());
                jobs.pop_front();
            }
            job();
        }
    }

    std::mutex                        mutex;
    std::condition_variable           wake;
    std::deque<std::function<void()>> jobs;
    bool                              stopping = false;
    std::thread                       thread; // last: starts when all else is ready
};
