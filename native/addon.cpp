// The N-API surface. It only converts and schedules: what it does with llama.cpp stands in the other files, what it is
// for in src/native/addon.ts, whose interface names every function registered at the end of this file.
#include <napi.h>

#include "backends.h"
#include "errors.h"
#include "runtime.h"
#include "vision.h"
#include "worker.h"

#include <memory>
#include <set>

// ---- handles and the environment -------------------------------------------------------------------------------------

struct handle_base;

// Per environment (a Node.js process or worker thread): the way from a native thread back to JavaScript, and what must
// end before the environment does.
struct environment {
    napi_threadsafe_function to_js   = nullptr;
    int                      pending = 0;
    std::set<handle_base *>  handles;
};

static environment & environment_of(Napi::Env env) {
    return *env.GetInstanceData<environment>();
}

struct handle_base {
    explicit handle_base(environment & e) : e(e) { e.handles.insert(this); }
    virtual ~handle_base() { e.handles.erase(this); }
    virtual void abort() {}

    environment & e;
    worker        thread;
};

// What JavaScript holds: an external with a type tag, so that a wrong handle throws instead of crashing.
template <typename T>
struct handle : handle_base {
    using handle_base::handle_base;

    void abort() override {
        if constexpr (std::is_same_v<T, context>) {
            if (value) {
                value->abort_requested = true;
            }
        }
    }

    std::shared_ptr<T> value; // null after dispose

    static const napi_type_tag tag;
};
template <> const napi_type_tag handle<model>::tag   = { 0x7870617463680001, 0x6d6f64656c000000 };
template <> const napi_type_tag handle<context>::tag = { 0x7870617463680002, 0x636f6e7465787400 };
template <> const napi_type_tag handle<vision>::tag  = { 0x7870617463680003, 0x766973696f6e0000 };

static Napi::Error js_error(Napi::Env env, const std::string & code, const std::string & message) {
    auto error = Napi::Error::New(env, message);
    error.Value().Set("code", code);
    return error;
}

template <typename T>
static handle<T> & unwrap_any(const Napi::Value & value) {
    if (!value.IsExternal() || !value.As<Napi::External<handle<T>>>().CheckTypeTag(&handle<T>::tag)) {
        throw js_error(value.Env(), "INVALID_ARGUMENT", "wrong kind of native handle");
    }
    return *value.As<Napi::External<handle<T>>>().Data();
}

template <typename T>
static handle<T> & unwrap(const Napi::Value & value) {
    auto & h = unwrap_any<T>(value);
    if (!h.value) {
        throw js_error(value.Env(), "DISPOSED", "used after dispose");
    }
    return h;
}

// ---- promises --------------------------------------------------------------------------------------------------------

using js_task = std::function<void(Napi::Env)>;

static void run_js_task(napi_env env, napi_value, void *, void * data) {
    std::unique_ptr<js_task> task(static_cast<js_task *>(data));
    if (!env) { // the environment is torn down: references must not be released any more
        task.release();
        return;
    }
    Napi::HandleScope scope(env);
    (*task)(env);
}

static void post_to_js(environment & e, js_task task) {
    napi_call_threadsafe_function(e.to_js, new js_task(std::move(task)), napi_tsfn_nonblocking);
}

// Something of JavaScript's that a job on another thread holds on to. Whichever thread lets go of it last, it is deleted on
// JavaScript's: references may not be touched on others.
template <typename T>
static std::shared_ptr<T> owned_by_js(environment & e, T && value) {
    return { new T(std::move(value)), [&e](T * held) { post_to_js(e, [held](Napi::Env) { delete held; }); } };
}

// Runs `work` on the handle's thread and settles the promise with `result`, which also gets `keep`: what the work points
// into, not collected until then.
template <typename T, typename R>
static Napi::Value run_async(Napi::Env env, handle<T> & h, const Napi::Value & keep, std::function<R()> work,
    std::function<Napi::Value(Napi::Env, R &, const Napi::Value &)> result) {
    auto & e = environment_of(env);
    if (e.pending++ == 0) {
        napi_ref_threadsafe_function(env, e.to_js);
    }
    auto deferred = std::make_shared<Napi::Promise::Deferred>(env);
    auto kept     = owned_by_js(e, Napi::Reference<Napi::Value>::New(keep, 1));
    h.thread.post([&e, deferred, kept, work = std::move(work), result = std::move(result)] {
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
        post_to_js(e, [&e, deferred, kept, value, code, message, result](Napi::Env env) {
            if (--e.pending == 0) {
                napi_unref_threadsafe_function(env, e.to_js);
            }
            if (value) {
                deferred->Resolve(result(env, *value, kept->Value()));
            } else {
                deferred->Reject(js_error(env, code, message).Value());
            }
        });
    });
    return deferred->Promise();
}

// Makes an object on the thread of a new handle; the promise gives the handle.
template <typename T>
static Napi::Value create_async(Napi::Env env, const Napi::Value & keep, std::function<std::shared_ptr<T>()> make) {
    auto * h      = new handle<T>(environment_of(env));
    auto external = Napi::External<handle<T>>::New(env, h, [](Napi::Env, handle<T> * h) { delete h; });
    external.TypeTag(&handle<T>::tag);
    auto kept = Napi::Array::New(env, 2);
    kept.Set(0u, external);
    kept.Set(1u, keep);
    return run_async<T, std::shared_ptr<T>>(env, *h, kept, std::move(make),
        [h](Napi::Env, std::shared_ptr<T> & made, const Napi::Value & kept) -> Napi::Value {
            h->value = std::move(made);
            return kept.As<Napi::Array>().Get(0u);
        });
}

// ---- reading arguments -----------------------------------------------------------------------------------------------

template <typename T>
static const T * array_data(const Napi::Value & value, size_t & n) {
    using js_array = std::conditional_t<std::is_same_v<T, int32_t>, Napi::Int32Array,
        std::conditional_t<std::is_same_v<T, uint8_t>, Napi::Uint8Array,
        std::conditional_t<std::is_same_v<T, double>, Napi::Float64Array, Napi::Float32Array>>>;
    static const napi_typedarray_type type = std::is_same_v<T, int32_t> ? napi_int32_array
        : std::is_same_v<T, uint8_t> ? napi_uint8_array : std::is_same_v<T, double> ? napi_float64_array : napi_float32_array;
    if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != type) {
        throw js_error(value.Env(), "INVALID_ARGUMENT", "expected a typed array of another type");
    }
    auto array = value.As<js_array>();
    n = array.ElementLength();
    return array.Data();
}

template <typename T>
static T * array_of(const Napi::Value & value, size_t n_expected, const char * what) {
    size_t n = 0;
    auto * data = const_cast<T *>(array_data<T>(value, n));
    if (n != n_expected) {
        throw js_error(value.Env(), "INVALID_ARGUMENT", std::string(what) + " has " + std::to_string(n) +
            " elements, expected " + std::to_string(n_expected));
    }
    return data;
}

static std::vector<int32_t> int_vector(const Napi::Value & value) {
    size_t n = 0;
    const int32_t * data = array_data<int32_t>(value, n);
    return { data, data + n };
}

// Offsets into `out` of rows of `width` floats; all must lie inside.
static std::vector<int64_t> offsets_into(const Napi::Value & value, size_t n_rows, const Napi::Value & out, size_t width) {
    size_t n_out = 0;
    array_data<float>(out, n_out);
    const double * data = array_of<double>(value, n_rows, "offsets");
    std::vector<int64_t> offsets(data, data + n_rows);
    for (int64_t offset : offsets) {
        if (offset < 0 || static_cast<size_t>(offset) + width > n_out) {
            throw js_error(value.Env(), "INVALID_ARGUMENT", "an offset lies outside its buffer");
        }
    }
    return offsets;
}

static std::string string_of(const Napi::Object & o, const char * key) {
    return o.Get(key).As<Napi::String>().Utf8Value();
}

static int32_t int_of(const Napi::Object & o, const char * key) {
    return o.Get(key).As<Napi::Number>().Int32Value();
}

static bool has(const Napi::Object & o, const char * key) {
    return o.Has(key) && !o.Get(key).IsUndefined();
}

// ---- backends --------------------------------------------------------------------------------------------------------

static Napi::Value load_backends(const Napi::CallbackInfo & info) {
    backends_start();
    backends_load_folder(info[0].As<Napi::String>().Utf8Value());
    return info.Env().Undefined();
}

static Napi::Value load_backend_library(const Napi::CallbackInfo & info) {
    backends_start();
    return Napi::String::New(info.Env(), backends_load_library(info[0].As<Napi::String>().Utf8Value()));
}

static Napi::Value list_devices(const Napi::CallbackInfo & info) {
    backends_start();
    const auto devices = backends_devices();
    auto list = Napi::Array::New(info.Env(), devices.size());
    for (size_t i = 0; i < devices.size(); ++i) {
        auto d = Napi::Object::New(info.Env());
        d.Set("name", devices[i].name);
        d.Set("description", devices[i].description);
        d.Set("backend", devices[i].backend);
        d.Set("type", devices[i].type);
        d.Set("memoryFree", static_cast<double>(devices[i].memory_free));
        d.Set("memoryTotal", static_cast<double>(devices[i].memory_total));
        list.Set(i, d);
    }
    return list;
}

static Napi::Value llama_version_string(const Napi::CallbackInfo & info) {
    return Napi::String::New(info.Env(), llama_version());
}

// ---- model -----------------------------------------------------------------------------------------------------------

// modelLoad(options, onProgress(fraction), abort: Int32Array of one element, set to 1 to abort) -> promise of a handle
static Napi::Value model_load(const Napi::CallbackInfo & info) {
    auto env = info.Env();
    auto o   = info[0].As<Napi::Object>();
    model::options options;
    options.path         = string_of(o, "path");
    options.device       = string_of(o, "device");
    options.n_gpu_layers = int_of(o, "gpuLayers");
    options.use_mmap     = o.Get("useMmap").As<Napi::Boolean>();

    auto & e = environment_of(env);
    auto on_progress = owned_by_js(e, Napi::Persistent(info[1].As<Napi::Function>()));
    const int32_t * abort = array_of<int32_t>(info[2], 1, "abort flag");
    options.progress = [&e, on_progress, abort, last = -1](float fraction) mutable {
        const int percent = static_cast<int>(fraction * 100);
        if (percent != last) {
            last = percent;
            post_to_js(e, [on_progress, fraction](Napi::Env env) { on_progress->Call({ Napi::Number::New(env, fraction) }); });
        }
        return *static_cast<const volatile int32_t *>(abort) == 0;
    };

    return create_async<model>(env, info[2], [options] { return std::make_shared<model>(options); });
}

static Napi::Value model_info(const Napi::CallbackInfo & info) {
    auto env       = info.Env();
    const auto & m = *unwrap<model>(info[0]).value;
    char description[256] = "";
    llama_model_desc(m.handle, description, sizeof(description));
    auto o = Napi::Object::New(env);
    o.Set("architecture", m.metadata("general.architecture"));
    o.Set("name", m.metadata("general.name"));
    o.Set("description", description);
    o.Set("nLayers", llama_model_n_layer(m.handle));
    o.Set("nEmbd", llama_model_n_embd(m.handle));
    o.Set("nEmbdInput", llama_model_n_embd_inp(m.handle));
    o.Set("nVocab", llama_vocab_n_tokens(m.vocab));
    o.Set("nCtxTrain", llama_model_n_ctx_train(m.handle));
    o.Set("positionsPerEmbedding", m.positions_per_embedding());
    o.Set("slidingWindow", llama_model_n_swa(m.handle));
    o.Set("recurrent", llama_model_is_recurrent(m.handle) || llama_model_is_hybrid(m.handle));
    o.Set("hasEncoder", llama_model_has_encoder(m.handle));
    o.Set("hasDecoder", llama_model_has_decoder(m.handle));
    o.Set("hasTokenizer", llama_vocab_type(m.vocab) != LLAMA_VOCAB_TYPE_NONE);
    o.Set("bosToken", llama_vocab_bos(m.vocab));
    o.Set("addsBos", llama_vocab_get_add_bos(m.vocab));
    o.Set("sizeBytes", static_cast<double>(llama_model_size(m.handle)));
    return o;
}

static Napi::Value model_tokenize(const Napi::CallbackInfo & info) {
    const auto & m = *unwrap<model>(info[0]).value;
    std::vector<int32_t> tokens;
    try {
        tokens = m.tokenize(info[1].As<Napi::String>().Utf8Value(), info[2].As<Napi::Boolean>(), info[3].As<Napi::Boolean>());
    } catch (const coded_error & error) {
        throw js_error(info.Env(), error.code, error.what());
    } catch (const std::exception & error) { // llama.cpp's vocabulary throws where a token is missing
        throw js_error(info.Env(), "NATIVE_FAILURE", error.what());
    }
    auto array = Napi::Int32Array::New(info.Env(), tokens.size());
    std::copy(tokens.begin(), tokens.end(), array.Data());
    return array;
}

// Bytes, not a string: a token may be a part of a UTF-8 character.
static Napi::Value model_detokenize(const Napi::CallbackInfo & info) {
    const auto & m = *unwrap<model>(info[0]).value;
    std::string text;
    try {
        text = m.detokenize(int_vector(info[1]), info[2].As<Napi::Boolean>());
    } catch (const coded_error & error) {
        throw js_error(info.Env(), error.code, error.what());
    } catch (const std::exception & error) { // llama.cpp's vocabulary throws where a token is missing
        throw js_error(info.Env(), "NATIVE_FAILURE", error.what());
    }
    auto array = Napi::Uint8Array::New(info.Env(), text.size());
    std::copy(text.begin(), text.end(), array.Data());
    return array;
}

static Napi::Value model_is_end(const Napi::CallbackInfo & info) {
    const auto & m = *unwrap<model>(info[0]).value;
    return Napi::Boolean::New(info.Env(), llama_vocab_is_eog(m.vocab, info[1].As<Napi::Number>().Int32Value()));
}

// ---- context ---------------------------------------------------------------------------------------------------------

static Napi::Value context_create(const Napi::CallbackInfo & info) {
    auto env    = info.Env();
    auto shared = unwrap<model>(info[0]).value;
    auto o      = info[1].As<Napi::Object>();
    context::options options;
    options.n_ctx     = int_of(o, "nCtx");
    options.n_ubatch  = int_of(o, "nUbatch");
    options.n_seq     = int_of(o, "nSeq");
    options.n_threads = int_of(o, "threads");
    const std::string flash = string_of(o, "flashAttention");
    options.flash_attention = flash == "on" ? LLAMA_FLASH_ATTN_TYPE_ENABLED
        : flash == "off" ? LLAMA_FLASH_ATTN_TYPE_DISABLED : LLAMA_FLASH_ATTN_TYPE_AUTO;
    options.kv_type = string_of(o, "kvType") == "f32" ? GGML_TYPE_F32 : GGML_TYPE_F16;

    return create_async<context>(env, info[0], [shared, options] { return std::make_shared<context>(shared, options); });
}

static Napi::Value context_size(const Napi::CallbackInfo & info) {
    return Napi::Number::New(info.Env(), unwrap<context>(info[0]).value->n_ctx());
}

static Napi::Value context_hook_layers(const Napi::CallbackInfo & info) {
    auto & h  = unwrap<context>(info[0]);
    auto hook = static_cast<hook_point>(info[1].As<Napi::Number>().Int32Value());
    if (hook < hook_point::resid_post || hook >= hook_point::count) {
        throw js_error(info.Env(), "INVALID_ARGUMENT", "unknown hook point");
    }
    auto shared = h.value;
    return run_async<context, std::vector<int32_t>>(info.Env(), h, info[0],
        [shared, hook] { return shared->hook_layers(hook); },
        [](Napi::Env env, std::vector<int32_t> & layers, const Napi::Value &) -> Napi::Value {
            auto array = Napi::Int32Array::New(env, layers.size());
            std::copy(layers.begin(), layers.end(), array.Data());
            return array;
        });
}

static std::vector<decode_job::seq_range> read_ranges(const Napi::Value & value) {
    const auto flat = int_vector(value);
    std::vector<decode_job::seq_range> ranges;
    for (size_t i = 0; i + 3 < flat.size(); i += 4) {
        ranges.push_back({ flat[i], flat[i + 1], flat[i + 2], flat[i + 3] });
    }
    return ranges;
}

static void read_hook(const Napi::Object & o, hook_point & hook, int32_t & layer, std::vector<int32_t> & rows) {
    hook  = static_cast<hook_point>(int_of(o, "hook"));
    layer = int_of(o, "layer");
    rows  = int_vector(o.Get("rows"));
    if (hook < hook_point::resid_post || hook >= hook_point::count) {
        throw js_error(o.Env(), "INVALID_ARGUMENT", "unknown hook point");
    }
}

static decode_job read_job(const Napi::Object & o, const model & owner) {
    const size_t n_embd  = llama_model_n_embd(owner.handle);
    const size_t n_vocab = llama_vocab_n_tokens(owner.vocab);
    decode_job job;
    job.clear = has(o, "clear") && o.Get("clear").As<Napi::Boolean>();
    if (has(o, "removes")) { job.removes = read_ranges(o.Get("removes")); }
    if (has(o, "copies"))  { job.copies  = read_ranges(o.Get("copies")); }
    if (!has(o, "sequences")) {
        return job;
    }

    size_t n = 0;
    job.sequences = array_data<int32_t>(o.Get("sequences"), n);
    job.n_rows    = static_cast<int32_t>(n);
    job.outputs   = array_of<uint8_t>(o.Get("outputs"), n, "outputs");
    if (has(o, "tokens")) {
        job.tokens    = array_of<int32_t>(o.Get("tokens"), n, "tokens");
        job.positions = array_of<int32_t>(o.Get("positions"), n, "positions");
    } else {
        job.embeddings = array_of<float>(o.Get("embeddings"), n * llama_model_n_embd_inp(owner.handle), "embeddings");
        job.positions  = array_of<int32_t>(o.Get("positions"), n * owner.positions_per_embedding(), "positions");
        job.non_causal = has(o, "nonCausal") && o.Get("nonCausal").As<Napi::Boolean>();
    }

    if (has(o, "captures")) {
        auto list = o.Get("captures").As<Napi::Array>();
        for (uint32_t i = 0; i < list.Length(); ++i) {
            auto item = list.Get(i).As<Napi::Object>();
            capture c;
            read_hook(item, c.hook, c.layer, c.rows);
            c.offsets = offsets_into(item.Get("offsets"), c.rows.size(), item.Get("out"), n_embd);
            c.out     = item.Get("out").As<Napi::Float32Array>().Data();
            job.captures.push_back(std::move(c));
        }
    }
    if (has(o, "patches")) {
        auto list = o.Get("patches").As<Napi::Array>();
        for (uint32_t i = 0; i < list.Length(); ++i) {
            auto item = list.Get(i).As<Napi::Object>();
            patch p;
            read_hook(item, p.hook, p.layer, p.rows);
            const int32_t op = int_of(item, "op");
            if (op < 0 || op >= static_cast<int32_t>(patch_op::count)) {
                throw js_error(o.Env(), "INVALID_ARGUMENT", "unknown patch operation");
            }
            p.op     = static_cast<patch_op>(op);
            p.factor = item.Get("factor").As<Napi::Number>().FloatValue();
            p.values = p.op == patch_op::replace || p.op == patch_op::add
                ? array_of<float>(item.Get("values"), p.rows.size() * n_embd, "patch values") : nullptr;
            p.deltas = array_of<float>(item.Get("deltas"), p.rows.size(), "deltas");
            job.patches.push_back(std::move(p));
        }
    }
    if (has(o, "logits")) {
        auto list = o.Get("logits").As<Napi::Array>();
        for (uint32_t i = 0; i < list.Length(); ++i) {
            auto item = list.Get(i).As<Napi::Object>();
            decode_job::logit_copy l;
            l.rows    = int_vector(item.Get("rows"));
            l.offsets = offsets_into(item.Get("offsets"), l.rows.size(), item.Get("out"), n_vocab);
            l.out     = item.Get("out").As<Napi::Float32Array>().Data();
            job.logits.push_back(std::move(l));
        }
    }
    if (has(o, "top")) {
        auto item = o.Get("top").As<Napi::Object>();
        job.top_rows      = int_vector(item.Get("rows"));
        job.top_k         = int_of(item, "k");
        const size_t rows = job.top_rows.size();
        job.top_ids       = array_of<int32_t>(item.Get("ids"), rows * job.top_k, "top ids");
        job.top_logits    = array_of<float>(item.Get("logits"), rows * job.top_k, "top logits");
        job.top_logsumexp = array_of<float>(item.Get("logsumexp"), rows, "logsumexp");
    }
    return job;
}

static Napi::Value context_decode(const Napi::CallbackInfo & info) {
    auto & h     = unwrap<context>(info[0]);
    auto & owner = unwrap<model>(info[1]);
    auto shared  = h.value;
    auto job     = std::make_shared<decode_job>(read_job(info[2].As<Napi::Object>(), *owner.value));
    return run_async<context, bool>(info.Env(), h, info[2],
        [shared, job] { shared->decode(*job); return true; },
        [](Napi::Env env, bool &, const Napi::Value &) -> Napi::Value { return env.Undefined(); });
}

// contextAbort(context, on): the decode under way, if any, ends early; `off` before the next one.
static Napi::Value context_abort(const Napi::CallbackInfo & info) {
    auto & h = unwrap_any<context>(info[0]);
    if (h.value) {
        h.value->abort_requested = info[1].As<Napi::Boolean>();
    }
    return info.Env().Undefined();
}

// ---- vision ----------------------------------------------------------------------------------------------------------

static Napi::Value vision_create(const Napi::CallbackInfo & info) {
    auto env    = info.Env();
    auto shared = unwrap<model>(info[0]).value;
    auto o      = info[1].As<Napi::Object>();
    vision::options options { string_of(o, "path"), string_of(o, "device"), int_of(o, "threads") };

    return create_async<vision>(env, info[0], [shared, options] { return std::make_shared<vision>(shared, options); });
}

static Napi::Value vision_encode(const Napi::CallbackInfo & info) {
    auto & h    = unwrap<vision>(info[0]);
    auto shared = h.value;
    const uint32_t width  = info[2].As<Napi::Number>().Uint32Value();
    const uint32_t height = info[3].As<Napi::Number>().Uint32Value();
    const uint8_t * rgb   = array_of<uint8_t>(info[1], size_t(width) * height * 3, "RGB data");
    return run_async<vision, std::vector<image_chunk>>(info.Env(), h, info[1],
        [shared, rgb, width, height] { return shared->encode(rgb, width, height); },
        [](Napi::Env env, std::vector<image_chunk> & chunks, const Napi::Value &) -> Napi::Value {
            auto list = Napi::Array::New(env, chunks.size());
            for (size_t i = 0; i < chunks.size(); ++i) {
                auto & c = chunks[i];
                auto o   = Napi::Object::New(env);
                const auto ints = [&](const char * key, const std::vector<int32_t> & values) {
                    auto array = Napi::Int32Array::New(env, values.size());
                    std::copy(values.begin(), values.end(), array.Data());
                    o.Set(key, array);
                };
                ints("tokens", c.tokens);
                ints("positions", c.positions);
                auto embeddings = Napi::Float32Array::New(env, c.embeddings.size());
                std::copy(c.embeddings.begin(), c.embeddings.end(), embeddings.Data());
                o.Set("embeddings", embeddings);
                o.Set("nRows", c.n_rows);
                o.Set("nPositions", c.n_positions);
                o.Set("nonCausal", c.non_causal);
                list.Set(i, o);
            }
            return list;
        });
}

// ---- dispose ---------------------------------------------------------------------------------------------------------

// The value leaves the handle at once, so later calls throw; it is freed on the handle's thread, behind what runs there.
template <typename T>
static Napi::Value dispose(const Napi::CallbackInfo & info) {
    auto & h    = unwrap_any<T>(info[0]);
    auto shared = std::make_shared<std::shared_ptr<T>>(std::move(h.value));
    h.value.reset();
    return run_async<T, bool>(info.Env(), h, info[0],
        [shared] { shared->reset(); return true; },
        [](Napi::Env env, bool &, const Napi::Value &) -> Napi::Value { return env.Undefined(); });
}

// Finalizers of handles may run after the one of the environment, so it is never freed: one small object a process.
static void keep_environment(Napi::Env, environment *) {}

static Napi::Object init(Napi::Env env, Napi::Object exports) {
    auto * e = new environment;
    napi_create_threadsafe_function(env, nullptr, nullptr, Napi::String::New(env, "xpatch"), 0, 1, nullptr, nullptr, nullptr,
        run_js_task, &e->to_js);
    napi_unref_threadsafe_function(env, e->to_js); // only pending work keeps the process alive
    env.SetInstanceData<environment, keep_environment>(e);
    env.AddCleanupHook([e] { // before the threadsafe function goes: threads that still run would call it
        for (auto * h : e->handles) {
            h->abort();
            h->thread.stop();
        }
    });

    const auto add = [&](const char * name, Napi::Value (*function)(const Napi::CallbackInfo &)) {
        exports.Set(name, Napi::Function::New(env, function, name));
    };
    add("loadBackends", load_backends);
    add("loadBackendLibrary", load_backend_library);
    add("listDevices", list_devices);
    add("llamaVersion", llama_version_string);
    add("modelLoad", model_load);
    add("modelInfo", model_info);
    add("modelTokenize", model_tokenize);
    add("modelDetokenize", model_detokenize);
    add("modelIsEnd", model_is_end);
    add("modelDispose", dispose<model>);
    add("contextCreate", context_create);
    add("contextSize", context_size);
    add("contextHookLayers", context_hook_layers);
    add("contextDecode", context_decode);
    add("contextAbort", context_abort);
    add("contextDispose", dispose<context>);
    add("visionCreate", vision_create);
    add("visionEncode", vision_encode);
    add("visionDispose", dispose<vision>);
    return exports;
}

NODE_API_MODULE(xpatch, init)
