#pragma once

// Between JavaScript and the threads of the addon: handles, and promises that a thread settles.
#include <napi.h>

#include "errors.h"
#include "gguf_weights.h"
#include "runtime.h"
#include "vision.h"
#include "worker.h"

#include <atomic>
#include <functional>
#include <memory>
#include <set>
#include <string>

struct handle_base;

// Per environment (a Node.js process or worker thread): the way from a native thread back to JavaScript, and what must
// end before the environment does.
struct environment {
    napi_threadsafe_function to_js   = nullptr;
    int                      pending = 0;
    std::set<handle_base *>  handles;
    std::atomic<bool>        ending { false };

    // Ends what runs and waits for its threads, which would outlive what llama.cpp and Node.js take down next. May be
    // called twice.
    void stop();
};

inline environment & environment_of(Napi::Env env) {
    return *env.GetInstanceData<environment>();
}

struct handle_base {
    explicit handle_base(environment & e) : e(e) { e.handles.insert(this); } // behind `thread`, which may not start
    virtual ~handle_base() { e.handles.erase(this); }
    virtual void abort() {}

    environment & e;
    worker        thread;
    int           pending = 0; // calls whose promise is not settled yet
};

inline void environment::stop() {
    ending = true;
    for (auto * h : handles) {
        h->abort();
    }
    for (auto * h : handles) { // behind all of them: a pass waits for a server that its model hangs up on
        h->thread.stop();
    }
}

// What JavaScript holds: an external with a type tag, so that a wrong handle throws instead of crashing.
template <typename T>
struct handle : handle_base {
    using handle_base::handle_base;

    void abort() override {
        if constexpr (std::is_same_v<T, context> || std::is_same_v<T, gguf_weights>) {
            if (value) {
                value->abort_requested = true;
            }
        }
        if constexpr (std::is_same_v<T, model>) {
            if (value) {
                value->servers.hang_up();
            }
        }
    }

    std::shared_ptr<T> value; // null after dispose

    static const napi_type_tag tag;
};
template <> inline const napi_type_tag handle<model>::tag   = { 0x7870617463680001, 0x6d6f64656c000000 };
template <> inline const napi_type_tag handle<context>::tag = { 0x7870617463680002, 0x636f6e7465787400 };
template <> inline const napi_type_tag handle<vision>::tag  = { 0x7870617463680003, 0x766973696f6e0000 };
template <> inline const napi_type_tag handle<gguf_weights>::tag = { 0x7870617463680004, 0x7765696768747300 };

inline Napi::Error js_error(Napi::Env env, const std::string & code, const std::string & message) {
    auto error = Napi::Error::New(env, message);
    error.Value().Set("code", code);
    return error;
}

template <typename T>
inline handle<T> & unwrap_any(const Napi::Value & value) {
    if (!value.IsExternal() || !value.As<Napi::External<handle<T>>>().CheckTypeTag(&handle<T>::tag)) {
        throw js_error(value.Env(), "INVALID_ARGUMENT", "wrong kind of native handle");
    }
    return *value.As<Napi::External<handle<T>>>().Data();
}

template <typename T>
inline handle<T> & unwrap(const Napi::Value & value) {
    auto & h = unwrap_any<T>(value);
    if (!h.value) {
        throw js_error(value.Env(), "DISPOSED", "used after dispose");
    }
    return h;
}

using js_task = std::function<void(Napi::Env)>;

inline void run_js_task(napi_env env, napi_value, void *, void * data) {
    std::unique_ptr<js_task> task(static_cast<js_task *>(data));
    if (!env) { // the environment is torn down: references must not be released any more
        task.release();
        return;
    }
    Napi::HandleScope scope(env);
    try {
        (*task)(env);
    } catch (const Napi::Error & error) { // a callback threw where nobody waits for it: as if a timer's had
        napi_fatal_exception(env, error.Value());
    }
}

inline void post_to_js(environment & e, js_task task) {
    napi_call_threadsafe_function(e.to_js, new js_task(std::move(task)), napi_tsfn_nonblocking);
}

// Something of JavaScript's that a job on another thread holds on to. Whichever thread lets go of it last, it is deleted on
// JavaScript's: references may not be touched on others.
template <typename T>
inline std::shared_ptr<T> owned_by_js(environment & e, T && value) {
    return { new T(std::move(value)), [&e](T * held) { post_to_js(e, [held](Napi::Env) { delete held; }); } };
}

// Runs `work` on the thread of the handle in `owner` and settles the promise with `result`. Neither the handle nor `keep`,
// what the work points into, is collected until then. A handle without a value, because it was disposed or never got one,
// gives its thread up with its last call instead of with the garbage collection.
template <typename T, typename R>
inline Napi::Value run_async(const Napi::Value & owner, const Napi::Value & keep, std::function<R()> work,
    std::function<Napi::Value(Napi::Env, R &)> result) {
    auto   env = owner.Env();
    auto & h   = unwrap_any<T>(owner);
    auto & e   = environment_of(env);
    if (e.pending++ == 0) {
        napi_ref_threadsafe_function(env, e.to_js);
    }
    ++h.pending;
    auto deferred = std::make_shared<Napi::Promise::Deferred>(env);
    auto pair     = Napi::Array::New(env, 2);
    pair.Set(0u, owner);
    pair.Set(1u, keep);
    auto kept = owned_by_js(e, Napi::Persistent(pair.As<Napi::Object>()));
    h.thread.post([&e, &h, deferred, kept, work = std::move(work), result = std::move(result)] {
        std::shared_ptr<R> value;
        std::string code, message;
        try {
            value = std::make_shared<R>(work());
        } catch (const coded_error & error) {
            code = error.code, message = error.what();
        } catch (const std::bad_alloc &) {
            code = "NATIVE_FAILURE", message = "out of memory";
        } catch (const std::exception & error) {
            code = "NATIVE_FAILURE", message = error.what();
        }
        post_to_js(e, [&e, &h, deferred, kept, value, code, message, result](Napi::Env env) {
            if (--e.pending == 0) {
                napi_unref_threadsafe_function(env, e.to_js);
            }
            Napi::Value settled;
            bool        done = value != nullptr;
            try {
                settled = done ? result(env, *value) : js_error(env, code, message).Value(); // may give the handle its value
            } catch (const Napi::Error & error) { // no memory for what JavaScript is given
                settled = error.Value();
                done    = false;
            }
            if (--h.pending == 0 && !h.value) {
                h.thread.stop();
            }
            if (done) {
                deferred->Resolve(settled);
            } else {
                deferred->Reject(settled);
            }
        });
    });
    return deferred->Promise();
}

// Makes an object on the thread of a new handle; the promise gives the handle.
template <typename T>
inline Napi::Value create_async(Napi::Env env, const Napi::Value & keep, std::function<std::shared_ptr<T>()> make) {
    auto * h      = new handle<T>(environment_of(env));
    auto external = Napi::External<handle<T>>::New(env, h, [](Napi::Env, handle<T> * h) { delete h; });
    external.TypeTag(&handle<T>::tag);
    auto made = owned_by_js(environment_of(env), Napi::Persistent(external.template As<Napi::Object>()));
    return run_async<T, std::shared_ptr<T>>(external, keep, std::move(make),
        [h, made](Napi::Env, std::shared_ptr<T> & value) -> Napi::Value {
            h->value = std::move(value);
            return made->Value();
        });
}
