// The N-API surface. It only converts and schedules: what it does with llama.cpp is in the other files, what it is
// for in src/native/addon.ts, whose interface names every function registered at the end of this file.
#include <napi.h>

#include "addon_library.h"
#include "arguments.h"
#include "async.h"
#include "backends.h"
#include "idefics2.h"

#include <system_error>

// ---- model -----------------------------------------------------------------------------------------------------------

// modelLoad(options, onProgress(fraction), abort: Int32Array of one element, set to 1 to abort) -> promise of a handle
static Napi::Value model_load(const Napi::CallbackInfo & info) {
    auto env = info.Env();
    auto o   = info[0].As<Napi::Object>();
    model::options options;
    options.path         = string_of(o, "path");
    options.device       = string_of(o, "device");
    options.n_gpu_layers = int_of(o, "gpuLayers");
    if (has(o, "rpc")) {
        options.rpc = string_vector(o.Get("rpc"));
    }
    options.weightless   = has(o, "weightless") && o.Get("weightless").As<Napi::Boolean>();
    options.floats       = has(o, "floats") && o.Get("floats").As<Napi::Boolean>();

    if (has(o, "qkNorm")) {
        options.qk_norm = read_qk_norm(o.Get("qkNorm").As<Napi::Object>());
    }

    auto & e = environment_of(env);
    if (!info[1].IsFunction()) {
        throw js_error(env, "INVALID_ARGUMENT", "progress must be a function");
    }
    auto on_progress = owned_by_js(e, Napi::Persistent(info[1].As<Napi::Function>()));
    const int32_t * abort = array_of<int32_t>(info[2], 1, "abort flag");
    options.progress = [&e, on_progress, abort, last = -1](float fraction) mutable {
        const int percent = static_cast<int>(fraction * 100);
        if (percent != last) {
            last = percent;
            post_to_js(e, [on_progress, fraction](Napi::Env env) { on_progress->Call({ Napi::Number::New(env, fraction) }); });
        }
        return *static_cast<const volatile int32_t *>(abort) == 0 && !e.ending;
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
    const auto tokens = m.text->tokenize(string_vector(info[1]));
    auto array = Napi::Int32Array::New(info.Env(), tokens.size());
    std::copy(tokens.begin(), tokens.end(), array.Data());
    return array;
}

// Bytes, not a string: a token may be a part of a UTF-8 character.
static Napi::Value model_detokenize(const Napi::CallbackInfo & info) {
    const auto & m = *unwrap<model>(info[0]).value;
    const auto text = m.detokenize(int_vector(info[1]), info[2].As<Napi::Boolean>());
    auto array = Napi::Uint8Array::New(info.Env(), text.size());
    std::copy(text.begin(), text.end(), array.Data());
    return array;
}

static Napi::Value model_is_end(const Napi::CallbackInfo & info) {
    const auto & m = *unwrap<model>(info[0]).value;
    return Napi::Boolean::New(info.Env(), llama_vocab_is_eog(m.vocab, info[1].As<Napi::Number>().Int32Value()));
}

static Napi::Value model_control_tokens(const Napi::CallbackInfo & info) {
    const auto tokens = unwrap<model>(info[0]).value->text->control_tokens();
    auto array = Napi::Int32Array::New(info.Env(), tokens.size());
    std::copy(tokens.begin(), tokens.end(), array.Data());
    return array;
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

// A list a hook, with an object for each layer.
static Napi::Value context_points(const Napi::CallbackInfo & info) {
    auto         env    = info.Env();
    const auto & points = unwrap<context>(info[0]).value->hook_points();
    auto hooks = Napi::Array::New(env, N_HOOKS);
    for (size_t hook = 0; hook < N_HOOKS; ++hook) {
        auto layers = Napi::Array::New(env, points.points[hook].size());
        for (size_t layer = 0; layer < points.points[hook].size(); ++layer) {
            const point &           p         = points.points[hook][layer];
            const attention_nodes & attention = points.attention[layer];
            auto o = Napi::Object::New(env);
            o.Set("there", p.node >= 0);
            o.Set("width", static_cast<double>(p.width));
            o.Set("heads", static_cast<size_t>(hook_point::attn_scores) == hook ? attention.heads : p.heads);
            o.Set("cuts", attention.node >= 0 && attention.store >= 0);
            o.Set("flash", attention.flash);
            o.Set("trimmed", p.trimmed);
            o.Set("rotated", p.rotated);
            o.Set("why", p.why);
            layers.Set(layer, o);
        }
        hooks.Set(hook, layers);
    }
    return hooks;
}

static Napi::Value context_embedding_deviation(const Napi::CallbackInfo & info) {
    auto shared = unwrap<context>(info[0]).value;
    return run_async<context, double>(info[0], info[0],
        [shared] { return shared->embedding_deviation(); },
        [](Napi::Env env, double & deviation) -> Napi::Value { return Napi::Number::New(env, deviation); });
}

static Napi::Value context_decode(const Napi::CallbackInfo & info) {
    auto shared = unwrap<context>(info[0]).value;
    auto job    = std::make_shared<decode_job>(read_job(info[1].As<Napi::Object>(), shared->model_of()));
    return run_async<context, bool>(info[0], info[1],
        [shared, job] { shared->decode(*job); return true; },
        [](Napi::Env env, bool &) -> Napi::Value { return env.Undefined(); });
}

static Napi::Value context_lens(const Napi::CallbackInfo & info) {
    auto shared = unwrap<context>(info[0]).value;
    auto job    = std::make_shared<lens_job>(read_lens_job(info[1].As<Napi::Object>(), shared->model_of()));
    return run_async<context, bool>(info[0], info[1],
        [shared, job] { shared->lens(*job); return true; },
        [](Napi::Env env, bool &) -> Napi::Value { return env.Undefined(); });
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
    auto shared = unwrap<vision>(info[0]).value;
    const uint32_t width  = info[2].As<Napi::Number>().Uint32Value();
    const uint32_t height = info[3].As<Napi::Number>().Uint32Value();
    const uint8_t * rgb   = array_of<uint8_t>(info[1], size_t(width) * height * 3, "RGB data");
    const bool layout_only = info[4].IsBoolean() && info[4].As<Napi::Boolean>().Value();
    const auto blocks = info[5].IsUndefined() ? std::vector<int32_t>() : int_vector(info[5]);
    return run_async<vision, std::vector<image_chunk>>(info[0], info[1],
        [shared, rgb, width, height, layout_only, blocks] { return shared->encode(rgb, width, height, layout_only, blocks); },
        [](Napi::Env env, std::vector<image_chunk> & chunks) -> Napi::Value {
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
                auto seen = Napi::Uint8Array::New(env, c.seen.size());
                std::copy(c.seen.begin(), c.seen.end(), seen.Data());
                o.Set("seen", seen);
                o.Set("seenWidth", c.seen_width);
                o.Set("seenHeight", c.seen_height);
                o.Set("projector", c.projector);
                o.Set("patchSize", c.patch_size);
                o.Set("merge", c.merge);
                auto states = Napi::Object::New(env);
                for (const auto & [block, values] : c.states) {
                    auto array = Napi::Float32Array::New(env, values.size());
                    std::copy(values.begin(), values.end(), array.Data());
                    states.Set(uint32_t(block), array);
                }
                o.Set("states", states);
                o.Set("stateWidth", c.state_width);
                list.Set(i, o);
            }
            return list;
        });
}

// ---- weights of our own picture encoders -----------------------------------------------------------------------------

static Napi::Value float_array(Napi::Env env, std::vector<float> & values) {
    auto array = Napi::Float32Array::New(env, values.size());
    std::copy(values.begin(), values.end(), array.Data());
    return array;
}

static Napi::Value weights_load(const Napi::CallbackInfo & info) {
    auto o = info[0].As<Napi::Object>();
    gguf_weights::options options { string_of(o, "path"), string_of(o, "device"), int_of(o, "threads") };
    return create_async<gguf_weights>(info.Env(), info[0], [options] { return std::make_shared<gguf_weights>(options); });
}

static Napi::Value idefics2_encode_js(const Napi::CallbackInfo & info) {
    auto shared = unwrap<gguf_weights>(info[0]).value;
    const uint32_t width  = info[2].As<Napi::Number>().Uint32Value();
    const uint32_t height = info[3].As<Napi::Number>().Uint32Value();
    const uint8_t * rgb   = array_of<uint8_t>(info[1], size_t(width) * height * 3, "RGB data");
    const bool flash      = info[4].As<Napi::Boolean>();
    return run_async<gguf_weights, std::vector<float>>(info[0], info[1],
        [=] { return idefics2_encode(*shared, rgb, width, height, flash); }, float_array);
}

// ---- dispose ---------------------------------------------------------------------------------------------------------

// The value leaves the handle at once, so later calls throw; it is freed on the handle's thread, behind what runs there.
template <typename T>
static Napi::Value dispose(const Napi::CallbackInfo & info) {
    auto & h    = unwrap_any<T>(info[0]);
    if (!h.value && h.pending == 0) { // its thread has ended
        auto done = Napi::Promise::Deferred::New(info.Env());
        done.Resolve(info.Env().Undefined());
        return done.Promise();
    }
    auto shared = std::make_shared<std::shared_ptr<T>>(std::move(h.value));
    h.value.reset();
    return run_async<T, bool>(info[0], info[0],
        [shared] { shared->reset(); return true; },
        [](Napi::Env env, bool &) -> Napi::Value { return env.Undefined(); });
}

// Every error that leaves the addon has a code: one without is a value of another type than src/native/addon.ts declares.
static Napi::Value coded(Napi::Value (*function)(const Napi::CallbackInfo &), const Napi::CallbackInfo & info) {
    try {
        return function(info);
    } catch (const Napi::Error & error) {
        if (error.Value().Has("code")) {
            throw;
        }
        throw js_error(info.Env(), "INVALID_ARGUMENT", error.Message());
    } catch (const coded_error & error) {
        throw js_error(info.Env(), error.code, error.what());
    } catch (const std::system_error & error) {
        throw js_error(info.Env(), "NATIVE_FAILURE", std::string("a thread could not be started: ") + error.what());
    } catch (const std::exception & error) {
        throw js_error(info.Env(), "NATIVE_FAILURE", error.what());
    }
}

// Finalizers of handles may run after the one of the environment, so it is never freed: one small object a process.
static void keep_environment(Napi::Env, environment *) {}

static Napi::Object init(Napi::Env env, Napi::Object exports) {
    auto * e = new environment;
    napi_create_threadsafe_function(env, nullptr, nullptr, Napi::String::New(env, "xpatch"), 0, 1, nullptr, nullptr, nullptr,
        run_js_task, &e->to_js);
    napi_unref_threadsafe_function(env, e->to_js); // only pending work keeps the process alive
    env.SetInstanceData<environment, keep_environment>(e);
    env.AddCleanupHook([e] { e->stop(); }); // before the threadsafe function goes: threads that still run would call it
    // process.exit() runs no cleanup hooks in the main thread, only what listens for this event.
    auto process = env.Global().Get("process").As<Napi::Object>();
    auto on_exit = Napi::Function::New(env, [e](const Napi::CallbackInfo &) { e->stop(); });
    process.Get("once").As<Napi::Function>().Call(process, { Napi::String::New(env, "exit"), on_exit });

    const auto add = [&](const char * name, Napi::Value (*function)(const Napi::CallbackInfo &)) {
        exports.Set(name, Napi::Function::New(env, [=](const Napi::CallbackInfo & info) { return coded(function, info); }, name));
    };
    add("loadBackends", load_backends);
    add("loadBackendLibrary", load_backend_library);
    add("listDevices", list_devices);
    add("rpcProtocol", rpc_protocol);
    add("rpcTraffic", rpc_traffic_of);
    add("rpcConnected", rpc_connected);
    add("rpcServe", rpc_serve_devices);
    add("llamaVersion", llama_version_string);
    add("tensorTypes", tensor_types);
    add("modelLoad", model_load);
    add("modelInfo", model_info);
    add("modelTokenize", model_tokenize);
    add("modelDetokenize", model_detokenize);
    add("modelIsEnd", model_is_end);
    add("modelControlTokens", model_control_tokens);
    add("modelDispose", dispose<model>);
    add("quantise", quantise);
    add("contextCreate", context_create);
    add("contextSize", context_size);
    add("contextPoints", context_points);
    add("contextEmbeddingDeviation", context_embedding_deviation);
    add("contextDecode", context_decode);
    add("contextLens", context_lens);
    add("contextAbort", context_abort);
    add("contextDispose", dispose<context>);
    add("visionCreate", vision_create);
    add("visionEncode", vision_encode);
    add("visionDispose", dispose<vision>);
    add("weightsLoad", weights_load);
    add("idefics2Encode", idefics2_encode_js);
    add("weightsDispose", dispose<gguf_weights>);
    return exports;
}

NODE_API_MODULE(xpatch, init)
