import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { BuildError } from './errors.mjs';

// What is corrected in llama.cpp's sources, or added to them, in the parts that every build compiles itself. Each text must
// occur in its file exactly once: a new release that changed or fixed it stops the build until somebody looks.
export const CORRECTIONS = [
  {
    // CLIP's class token belongs in front: its position embedding is the first, and row 0 of the output is what is dropped.
    // Reported as ggml-org/llama.cpp#25814; without it the pictures of LLaVA-1.5 come out wrong (tests/parity/transformers.test.ts).
    file: 'tools/mtmd/models/llava.cpp',
    from: 'ggml_concat(ctx0, inp, model.class_embedding, 1)',
    to: 'ggml_concat(ctx0, model.class_embedding, inp, 1)',
  },
  {
    // The same of InternVL, whose positions are added in the order of the rows (tests/parity, family internvl: cosine 0.64 without).
    file: 'tools/mtmd/models/internvl.cpp',
    from: 'ggml_concat(ctx0, inp, cls_repeated, 1)',
    to: 'ggml_concat(ctx0, cls_repeated, inp, 1)',
  },
  {
    file: 'tools/mtmd/models/internvl.cpp',
    from: 'n_embd, n_patches, n_batch,\n        cur->nb[1], cur->nb[2], 0);',
    to: 'n_embd, n_patches, n_batch,\n        cur->nb[1], cur->nb[2], cur->nb[1]);',
  },
  {
    // [IMG_BREAK] is added to memory that nothing has written to, times zero: where that holds NaN or infinity, so do the rows.
    file: 'tools/mtmd/models/pixtral.cpp',
    from: [
      'tok = ggml_scale(ctx0, tok, 0.0); // clear the tensor',
      'tok = ggml_add(ctx0, tok, model.token_embd_img_break);',
    ].join('\n        '),
    to: 'tok = ggml_repeat(ctx0, ggml_cast(ctx0, model.token_embd_img_break, tmp->type), tok);',
  },
  {
    // mtmd keeps its structs to one file, and no function of it gives the pixels that a picture was reduced to. native/vision.cpp
    // declares these two; a release that renames the members does not compile.
    file: 'tools/mtmd/mtmd.cpp',
    from: 'size_t mtmd_image_tokens_get_n_tokens(const mtmd_image_tokens * image_tokens) {',
    to: [
      'const clip_image_f32_batch & xpatch_preprocessed(const mtmd_image_tokens * image) { return image->batch_f32; }',
      'const clip_ctx * xpatch_encoder(const mtmd_context * ctx) { return ctx->ctx_v; }',
      '',
      'size_t mtmd_image_tokens_get_n_tokens(const mtmd_image_tokens * image_tokens) {',
    ].join('\n'),
  },
  {
    // The backend that computes what ours does not, to be given a pool of threads.
    file: 'tools/mtmd/clip.cpp',
    from: 'clip_graph::clip_graph(clip_ctx * ctx, const clip_image_f32 & img) :',
    to: [
      'ggml_backend_t xpatch_encoder_cpu(const clip_ctx * ctx) { return ctx->backend_cpu; }',
      '',
      'clip_graph::clip_graph(clip_ctx * ctx, const clip_image_f32 & img) :',
    ].join('\n'),
  },
  // ggml-rpc ends the process when a server is lost. With the transport of native/rpc.cpp it goes on with zeros, which
  // `rpc_servers::require` keeps from being used.
  ...[
    {
      from: 'if (!(x)) GGML_ABORT("Remote RPC server crashed or returned malformed response")',
      to: 'if (!(x)) GGML_LOG_ERROR("the RPC server was lost\\n")',
    },
    {
      from: [
        'msg_ptr->input_size, msg_ptr->output, msg_ptr->output_size);',
        '                RPC_STATUS_ASSERT(status);',
      ].join('\n'),
      to: [
        'msg_ptr->input_size, msg_ptr->output, msg_ptr->output_size);',
        '                if (!status) memset(msg_ptr->output, 0, msg_ptr->output_size);',
      ].join('\n'),
    },
    {
      // A greeting of nobody: nothing gets through from here on.
      from: 'GGML_ABORT("RPC handshake failed for %s\\n", endpoint.c_str());',
      to: 'const uint8_t nobody[RPC_CONN_CAPS_SIZE] = {}; sock->update_caps(nobody);',
    },
    {
      from: 'static std::shared_ptr<rpc_dispatcher> get_dispatcher(const std::string & endpoint) {',
      to: [
        'bool rpc_keeps(const std::string & endpoint);',
        '',
        'static std::shared_ptr<rpc_dispatcher> get_dispatcher(const std::string & endpoint) {',
      ].join('\n'),
    },
    {
      from: 'if (auto dispatcher = it->second.lock()) {',
      to: 'if (auto dispatcher = it->second.lock(); dispatcher && rpc_keeps(endpoint)) {',
    },
    {
      from: 'ctx->base_ptr = reinterpret_cast<void *>(response.base_ptr);',
      to: 'ctx->base_ptr = reinterpret_cast<void *>(response.base_ptr ? response.base_ptr : 4096);',
    },
    { from: 'return response.alignment;', to: 'return response.alignment ? response.alignment : 64;' },
    {
      from: 'cache[cache_hash] = response.alloc_size;',
      to: 'if (response.alloc_size == 0) return ggml_nbytes(tensor);\n            cache[cache_hash] = response.alloc_size;',
    },
    {
      // How much a kernel wants behind its result depends on what it reads (CUDA's flash attention: on the keys' type and number). The
      // cache leaves that out, as a reservation asks for the most first; here graphs of other sizes are reserved later, and contexts
      // of other types share the process.
      from: 'uint64_t cache_hash = fnv_hash((const uint8_t *)&key, sizeof(key));',
      to: [
        'uint64_t cache_hash = fnv_hash((const uint8_t *)&key, sizeof(key));',
        '        for (const ggml_tensor * src : tensor->src) {',
        '            const int64_t shape[] = { src ? src->type : -1, src ? src->ne[0] : 0, src ? src->ne[1] : 0, src ? src->ne[2] : 0, src ? src->ne[3] : 0 };',
        '            cache_hash = fnv_hash((const uint8_t *)shape, sizeof(shape), cache_hash);',
        '        }',
      ].join('\n'),
    },
    { from: 'buft_map[buft_name] = buft;', to: 'if (max_size > 0) buft_map[buft_name] = buft;' },
    // llama.cpp fetches all logits, also where the graph was ended before them.
    {
      from: 'static void ggml_backend_rpc_get_tensor_async(ggml_backend_t backend, const ggml_tensor * tensor, void * data, size_t offset, size_t size) {',
      to: [
        'bool rpc_skips(const ggml_tensor * tensor);',
        '',
        'static void ggml_backend_rpc_get_tensor_async(ggml_backend_t backend, const ggml_tensor * tensor, void * data, size_t offset, size_t size) {',
        '    if (rpc_skips(tensor)) return;',
      ].join('\n'),
    },
  ].map((correction) => ({ file: 'ggml/src/ggml-rpc/ggml-rpc.cpp', ...correction })),
];

/** Applies them to unpacked sources. */
export function correct(folder) {
  for (const { file, from, to } of CORRECTIONS) {
    const path = join(folder, file);
    const parts = readFileSync(path, 'utf8').split(from);
    if (parts.length !== 2) {
      throw new BuildError('sources', `${file} of llama.cpp has changed: the correction of "${from}" no longer fits.`, {
        hint: 'Use the pinned node-llama-cpp (`npm ci`), or revise CORRECTIONS in install/corrections.mjs.',
      });
    }
    writeFileSync(path, parts.join(to));
  }
}
