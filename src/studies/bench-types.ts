import { mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { f32, layOutGguf, text, u32 } from '../gguf/gguf-writer.js';
import { GGML, type GgmlName } from '../gguf/tensor-types.js';
import { loadModel } from '../model/load-model.js';
import type { Model } from '../model/model.js';
import type { OnProgress } from '../model/types.js';
import { XpatchError } from '../util/errors.js';
import { processor, type TypeSpeed, type TypeSpeeds } from './type-speeds.js';

const TYPES = ['F16', 'BF16', 'Q8_0', 'Q6_K', 'Q5_0', 'Q4_K', 'Q4_0'] as const satisfies readonly GgmlName[];
/** Wide enough that products are most of the time, as in a real model, and more than a cache holds. */
const SHAPE = { layers: 2, nEmbd: 1024, nHeads: 8, nFf: 2816, nVocab: 1024 };
const PROMPT = 256;
const ANSWER = 16;
const ROUNDS = 3;

/**
 * Measures a small model of no meaning in each type that weights commonly have: what weights say makes no difference to the time. The
 * best of a few rounds counts, each of which asks all types in turn.
 *
 * @throws {XpatchError} ABORTED; as `loadModel`, `Context.pass`
 */
export async function measureTypes(
  options: { device?: string; threads?: number; signal?: AbortSignal; onProgress?: OnProgress } = {},
): Promise<TypeSpeeds> {
  const { signal, onProgress, ...where } = options;
  const folder = await mkdtemp(join(tmpdir(), 'xpatch-bench-'));
  const models: Model[] = [];
  try {
    for (const type of TYPES) {
      const path = join(folder, `${type}.gguf`);
      await writeModel(path, type);
      models.push(await loadModel(path, { ...where, trust: true }));
    }
    const types = await fastest(models, signal, onProgress);
    return { processor: processor(), device: models[0]?.options.device as string, types };
  } finally {
    for (const model of models) await model.dispose();
    await rm(folder, { recursive: true, force: true });
  }
}

async function fastest(models: readonly Model[], signal?: AbortSignal, onProgress?: OnProgress): Promise<TypeSpeed[]> {
  const contexts = await Promise.all(models.map((model) => model.createContext({ nCtx: 2 * PROMPT })));
  const best = TYPES.map((type) => ({ type, prompt: 0, answer: 0 }));
  for (let round = 0; round <= ROUNDS; round++) {
    for (const [i, context] of contexts.entries()) {
      if (signal?.aborted) throw new XpatchError('ABORTED', 'The measurement was aborted.', { cause: signal.reason });
      const tokens = Array.from({ length: PROMPT }, (_, at) => (at * 37 + round * 101) % SHAPE.nVocab);
      const prompt = await rate(PROMPT, () => context.run({ prompt: [{ tokens }], topK: 1 }));
      const answer = await rate(ANSWER, () =>
        context.generate([{ prompt: [{ tokens: [round] }] }], { maxTokens: ANSWER }),
      );
      onProgress?.({ done: round * TYPES.length + i + 1, total: (ROUNDS + 1) * TYPES.length });
      const own = best[i] as (typeof best)[number];
      // The first round fills caches.
      if (round > 0) Object.assign(own, { prompt: Math.max(own.prompt, prompt), answer: Math.max(own.answer, answer) });
    }
  }
  return best;
}

async function rate(n: number, work: () => Promise<unknown>): Promise<number> {
  const from = performance.now();
  await work();
  return (1000 * n) / (performance.now() - from);
}

/** A model of the architecture llama whose matrices all have one type, and whose weights are all zero. */
async function writeModel(path: string, type: GgmlName): Promise<void> {
  const { layers, nEmbd, nHeads, nFf, nVocab } = SHAPE;
  const norm = (name: string) => ({ name: `${name}.weight`, shape: [nEmbd], type: GGML.F32 });
  const matrix = (name: string, columns: number, rows: number) => ({
    name: `${name}.weight`,
    shape: [columns, rows],
    type: GGML[type],
  });
  const block = (i: number) => [
    norm(`blk.${i}.attn_norm`),
    ...['attn_q', 'attn_k', 'attn_v', 'attn_output'].map((name) => matrix(`blk.${i}.${name}`, nEmbd, nEmbd)),
    norm(`blk.${i}.ffn_norm`),
    matrix(`blk.${i}.ffn_gate`, nEmbd, nFf),
    matrix(`blk.${i}.ffn_up`, nEmbd, nFf),
    matrix(`blk.${i}.ffn_down`, nFf, nEmbd),
  ];
  const { header, size } = layOutGguf(
    {
      'general.architecture': text('llama'),
      'llama.vocab_size': u32(nVocab),
      'llama.context_length': u32(2 * PROMPT),
      'llama.embedding_length': u32(nEmbd),
      'llama.block_count': u32(layers),
      'llama.feed_forward_length': u32(nFf),
      'llama.attention.head_count': u32(nHeads),
      'llama.attention.layer_norm_rms_epsilon': f32(1e-5),
      'tokenizer.ggml.model': text('none'),
    },
    [
      matrix('token_embd', nEmbd, nVocab),
      norm('output_norm'),
      ...Array.from({ length: layers }, (_, i) => block(i)).flat(),
    ],
  );
  await using file = await open(path, 'wx');
  await file.write(header);
  await file.truncate(size);
}
