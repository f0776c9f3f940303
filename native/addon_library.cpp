#include "addon_library.h"

#include "arguments.h"
#include "async.h"
#include "backends.h"
#include "quantise.h"

#include "ggml-rpc.h"

// ---- backends --------------------------------------------------------------------------------------------------------

Napi::Value load_backends(const Napi::CallbackInfo & info) {
    backends_start();
    backends_load_folder(info[0].As<Napi::String>().Utf8Value());
    return info.Env().Undefined();
}

Napi::Value load_backend_library(const Napi::CallbackInfo & info) {
    backends_start();
    return Napi::String::New(info.Env(), backends_load_library(info[0].As<Napi::String>().Utf8Value()));
}

Napi::Value list_devices(const Napi::CallbackInfo & info) {
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

Napi::Value rpc_protocol(const Napi::CallbackInfo & info) {
    const std::string greeting = rpc_greeting();
    auto o       = Napi::Object::New(info.Env());
    auto version = Napi::Array::New(info.Env(), 3);
    version.Set(0u, RPC_PROTO_MAJOR_VERSION);
    version.Set(1u, RPC_PROTO_MINOR_VERSION);
    version.Set(2u, RPC_PROTO_PATCH_VERSION);
    o.Set("version", version);
    o.Set("greeting", greeting);
    return o;
}

Napi::Value rpc_traffic_of(const Napi::CallbackInfo & info) {
    const auto [sent, received, decodes] = rpc_traffic_so_far();
    auto o = Napi::Object::New(info.Env());
    o.Set("sent", static_cast<double>(sent));
    o.Set("received", static_cast<double>(received));
    o.Set("decodes", static_cast<double>(decodes));
    return o;
}

Napi::Value rpc_connected(const Napi::CallbackInfo & info) {
    return Napi::Boolean::New(info.Env(), rpc_is_alive(info[0].As<Napi::String>().Utf8Value()));
}

// rpcServe(endpoint, device, threads): returns at once, and serves until the process ends.
Napi::Value rpc_serve_devices(const Napi::CallbackInfo & info) {
    backends_start();
    auto devices = backends_select(info[1].As<Napi::String>().Utf8Value());
    devices.pop_back(); // what ends the list
    if (devices.empty()) {
        devices.push_back(ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU));
    }
    rpc_serve(info[0].As<Napi::String>().Utf8Value(), info[2].As<Napi::Number>().Int32Value(), devices);
    return info.Env().Undefined();
}

Napi::Value llama_version_string(const Napi::CallbackInfo & info) {
    return Napi::String::New(info.Env(), llama_version());
}

// Triples: number of a tensor type, values a block, bytes a block.
Napi::Value tensor_types(const Napi::CallbackInfo & info) {
    std::vector<int32_t> triples;
    for (int i = 0; i < GGML_TYPE_COUNT; ++i) {
        const auto type = static_cast<ggml_type>(i);
        if (ggml_blck_size(type) > 0) { // 0: removed
            triples.insert(triples.end(), { i, static_cast<int32_t>(ggml_blck_size(type)), static_cast<int32_t>(ggml_type_size(type)) });
        }
    }
    auto array = Napi::Int32Array::New(info.Env(), triples.size());
    std::copy(triples.begin(), triples.end(), array.Data());
    return array;
}

// ---- conversion ------------------------------------------------------------------------------------------------------

// Runs on libuv's pool, so that several chunks run at once; a chunk is short. Keeps both arrays until it is done.
class quantise_worker : public Napi::AsyncWorker {
public:
    explicit quantise_worker(const Napi::CallbackInfo & info)
        : Napi::AsyncWorker(info.Env()), deferred(info.Env()),
          source_type(static_cast<ggml_type>(info[1].As<Napi::Number>().Int32Value())),
          type(static_cast<ggml_type>(info[3].As<Napi::Number>().Int32Value())),
          n_per_row(info[4].As<Napi::Number>().Int64Value()) {
        source      = array_data<uint8_t>(info[0], source_bytes);
        destination = const_cast<uint8_t *>(array_data<uint8_t>(info[2], destination_bytes));
        kept = Napi::Persistent(Napi::Array::New(info.Env(), 2).As<Napi::Object>());
        kept.Set(0u, info[0]);
        kept.Set(1u, info[2]);
    }

    void Execute() override {
        try {
            quantise_rows(source_type, source, source_bytes, type, destination, destination_bytes, n_per_row);
        } catch (const coded_error & error) {
            code = error.code;
            SetError(error.what());
        } catch (const std::bad_alloc &) {
            SetError("out of memory");
        }
    }

    void OnOK() override { deferred.Resolve(Env().Undefined()); }
    void OnError(const Napi::Error & error) override { deferred.Reject(js_error(Env(), code, error.Message()).Value()); }

    Napi::Promise::Deferred deferred;

private:
    Napi::ObjectReference kept;
    const uint8_t *       source      = nullptr;
    uint8_t *             destination = nullptr;
    size_t                source_bytes = 0, destination_bytes = 0;
    ggml_type             source_type, type;
    int64_t               n_per_row;
    std::string           code = "NATIVE_FAILURE";
};

// quantise(source: Uint8Array, sourceType, destination: Uint8Array, type, valuesPerRow), types by ggml's numbers
Napi::Value quantise(const Napi::CallbackInfo & info) {
    auto worker  = std::make_unique<quantise_worker>(info);
    auto promise = worker->deferred.Promise();
    worker.release()->Queue(); // deletes itself
    return promise;
}
