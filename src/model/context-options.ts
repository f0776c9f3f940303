import { listDevices } from '../native/index.js';
import { XpatchError } from '../util/errors.js';
import type { Model } from './model.js';

/** In a model smaller than this, threads wait for each other longer than they compute. */
export const SMALL_BYTES = 64e6;

/** How large a context is and how it computes. */
export interface ContextOptions {
  /** KV positions: how many all rows of one batch of work may have together. A prompt must fit. Defaults to 4096. */
  nCtx?: number;
  /** Rows decoded at once. A picture of a model with non-causal images must fit. Defaults to 512. */
  nUbatch?: number;
  /**
   * `on`, `off`, or `auto`: `on` wherever model and device have it. Defaults to `off` with a cache of `f32`, since it rounds keys and values
   * to halves; else to `auto`. `attn_scores`, `pattern` and knock-outs of single heads need `off`.
   */
  flashAttention?: 'on' | 'off' | 'auto';
  /** Type of the KV cache. Defaults to `f16`. */
  kvType?: 'f16' | 'f32';
  /** CPU threads of its passes. Defaults to the model's (`LoadOptions.threads`). */
  threads?: number;
}

/**
 * The options in force, defaults filled in.
 *
 * @throws XpatchError INVALID_ARGUMENT.
 */
export function contextOptions(model: Model, options: ContextOptions): Readonly<Required<ContextOptions>> {
  const filled = {
    nCtx: options.nCtx ?? 4096,
    nUbatch: Math.min(options.nUbatch ?? 512, options.nCtx ?? 4096),
    flashAttention: options.flashAttention ?? (options.kvType === 'f32' ? 'off' : 'auto'),
    kvType: options.kvType ?? 'f16',
    threads: options.threads ?? model.options.threads,
  } as const;
  for (const [name, max] of [
    ['nCtx', 1 << 24],
    ['nUbatch', 1 << 16],
    ['threads', 512],
  ] as const) {
    const value = filled[name];
    if (!Number.isInteger(value) || value < 1 || value > max) {
      throw new XpatchError('INVALID_ARGUMENT', `${name} must be a whole number from 1 to ${max}, not ${value}.`);
    }
  }
  if (!['on', 'off', 'auto'].includes(filled.flashAttention) || !['f16', 'f32'].includes(filled.kvType)) {
    throw new XpatchError('INVALID_ARGUMENT', `flashAttention must be on, off or auto, and kvType f16 or f32.`);
  }
  return filled;
}

/** Whether a model may be computed on a device other than the processor. */
export function onGpu(model: Model): boolean {
  return model.options.device !== 'cpu' && listDevices().some(({ type }) => type === 'gpu' || type === 'igpu');
}

/** Whether a second thread makes no pass of the model faster. */
export function isSmall(model: Model): boolean {
  return !onGpu(model) && model.info.sizeBytes < SMALL_BYTES;
}
