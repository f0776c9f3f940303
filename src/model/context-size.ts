import { type GgufArray, ggufNumber, readGgufHeader } from '../gguf/gguf.js';
import { XpatchError } from '../util/errors.js';
import type { ContextOptions } from './context-options.js';
import type { Model } from './model.js';

/** Bytes of one number of a work buffer. */
const F32 = 4;
const SMALLEST = 64;

/**
 * Keys and values of one position in all layers, bytes; undefined if the file does not say how wide they are.
 * @param kvType Defaults to `f16`
 */
export function bytesPerPosition(model: Model, kvType: 'f16' | 'f32' = 'f16'): number | undefined {
  const { architecture, nEmbd, nLayers, recurrent } = model.info;
  const header = readGgufHeader(model.files.model);
  const number = (key: string) => ggufNumber(header, `${architecture}.attention.${key}`);
  const heads = number('head_count');
  if (heads === undefined || recurrent) return undefined;
  const width = (number('key_length') ?? nEmbd / heads) + (number('value_length') ?? nEmbd / heads);
  const shared = header.metadata.get(`${architecture}.attention.head_count_kv`);
  // Some models list the number of key heads for each layer.
  const total =
    typeof shared === 'object' && (shared as GgufArray).values.length === nLayers
      ? (shared as GgufArray).values.reduce<number>((sum, value) => sum + Number(value), 0)
      : nLayers * (number('head_count_kv') ?? heads);
  return total * width * (kvType === 'f16' ? 2 : 4);
}

/**
 * Bytes of a context, keys and values with work buffers; the weights and the picture encoder are not counted. Undefined where
 * `bytesPerPosition` is.
 */
export function contextBytes(
  model: Model,
  { nCtx, nUbatch, kvType }: ContextOptions & { nCtx: number; nUbatch: number },
): number | undefined {
  const perPosition = bytesPerPosition(model, kvType);
  if (perPosition === undefined) return undefined;
  const { architecture, nVocab, nEmbd } = model.info;
  const heads = ggufNumber(readGgufHeader(model.files.model), `${architecture}.attention.head_count`) ?? 1;
  // Attention scores of every head and the mask are as wide as the context, logits as the vocabulary.
  return nCtx * perPosition + nUbatch * F32 * ((heads + 1) * nCtx + 2 * nVocab + 16 * nEmbd);
}

/**
 * Sizes of a context that takes at most `bytes`, as counted by `contextBytes`. A smaller context only splits the work into more
 * batches.
 *
 * @param options the requested sizes, which are not exceeded
 * @param least positions that it must hold
 * @throws {XpatchError} CONTEXT_OVERFLOW if `least` positions need more, INVALID_ARGUMENT if the model's file does not say
 *   how much a position takes
 */
export function contextWithin(
  model: Model,
  bytes: number,
  options: ContextOptions & { nCtx: number; nUbatch: number },
  least: number,
): ContextOptions & { nCtx: number; nUbatch: number } {
  const take = (nCtx: number, nUbatch: number) => contextBytes(model, { ...options, nCtx, nUbatch }) as number;
  if (contextBytes(model, options) === undefined) {
    const message = `The model's file does not say how much memory a position takes. Give --n-ctx instead of --memory.`;
    throw new XpatchError('INVALID_ARGUMENT', message);
  }
  for (let nUbatch = options.nUbatch; ; nUbatch = Math.max(nUbatch >> 1, SMALLEST)) {
    const fixed = take(0, nUbatch);
    const nCtx = Math.min(options.nCtx, Math.floor((bytes - fixed) / (take(1, nUbatch) - fixed)));
    if (nCtx >= least) return { ...options, nCtx, nUbatch };
    if (nUbatch <= SMALLEST) {
      const needed = Math.ceil(take(least, nUbatch) / 2 ** 20);
      const message = `The longest prompt has ${least} positions, which take ${needed} MiB. Raise --memory, or ask for fewer shots.`;
      throw new XpatchError('CONTEXT_OVERFLOW', message);
    }
  }
}
