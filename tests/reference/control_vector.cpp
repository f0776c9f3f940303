// What llama.cpp itself makes of a control vector: writes tests/fixtures/control-vectors.json, which tests/native/steering.test.ts compares with.
//
//   L=llama.cpp; B=node_modules/@node-llama-cpp/linux-x64/bins/linux-x64
//   g++ -O2 -std=c++20 -DGGML_SHARED -DGGML_BACKEND_SHARED -DGGML_BACKEND_DL -DLLAMA_SHARED -I$L/include -I$L/ggml/include \
//       tests/reference/control_vector.cpp -o control_vector -L$B -l:libllama.v0.4.0.so -l:libggml.v0.4.0.so -l:libggml-base.so -Wl,-rpath,$B
//   ./control_vector $B tests/fixtures/models/{llama,qwen3,gemma2,gpt-neox,phi3}.gguf > tests/fixtures/control-vectors.json
//
// The direction of block l is sin(0.1 (l n_embd + i)), i from 0; the prompt is the tokens 11, 28, 45, 62, 79, 96.
#include "ggml-backend.h"
#include "llama.h"

#include <cmath>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

int main(int argc, char ** argv) {
    llama_log_set([](ggml_log_level, const char *, void *) {}, nullptr);
    ggml_backend_load_all_from_path(argv[1]);
    printf("{\n  \"strength\": 0.5,\n  \"tokens\": [11, 28, 45, 62, 79, 96],\n  \"logits\": {\n");
    for (int m = 2; m < argc; ++m) {
        llama_model * model = llama_model_load_from_file(argv[m], llama_model_default_params());
        llama_context_params params = llama_context_default_params();
        params.n_ctx = 64;
        params.n_threads = params.n_threads_batch = 1;
        params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
        llama_context * context = llama_init_from_model(model, params);
        const int n_embd = llama_model_n_embd(model), n_layer = llama_model_n_layer(model);
        const int n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(model));
        // as llama.cpp lays it out: block 1 first
        std::vector<float> data((size_t) n_embd * (n_layer - 1));
        for (int l = 1; l < n_layer; ++l) {
            for (int i = 0; i < n_embd; ++i) {
                data[(size_t) (l - 1) * n_embd + i] = 0.5f * std::sin(0.1f * (float) (l * n_embd + i));
            }
        }
        llama_set_adapter_cvec(context, data.data(), data.size(), n_embd, 1, n_layer - 1);
        llama_token tokens[] = { 11, 28, 45, 62, 79, 96 };
        if (llama_decode(context, llama_batch_get_one(tokens, 6)) != 0) {
            return 1;
        }
        const float * logits = llama_get_logits_ith(context, -1);
        std::string name = strrchr(argv[m], '/') + 1;
        printf("    \"%s\": [", name.substr(0, name.size() - 5).c_str());
        for (int i = 0; i < n_vocab; ++i) {
            printf("%s%.9g", i ? ", " : "", logits[i]);
        }
        printf("]%s\n", m + 1 < argc ? "," : "");
        llama_free(context);
        llama_model_free(model);
    }
    printf("  }\n}\n");
    return 0;
}
