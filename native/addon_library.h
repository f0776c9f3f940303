// Functions of the surface that need no model.
#pragma once

#include <napi.h>

Napi::Value load_backends(const Napi::CallbackInfo & info);
Napi::Value load_backend_library(const Napi::CallbackInfo & info);
Napi::Value list_devices(const Napi::CallbackInfo & info);
Napi::Value rpc_protocol(const Napi::CallbackInfo & info);
Napi::Value rpc_traffic_of(const Napi::CallbackInfo & info);
Napi::Value rpc_connected(const Napi::CallbackInfo & info);
Napi::Value rpc_serve_devices(const Napi::CallbackInfo & info);
Napi::Value llama_version_string(const Napi::CallbackInfo & info);
Napi::Value tensor_types(const Napi::CallbackInfo & info);
Napi::Value quantise(const Napi::CallbackInfo & info);
