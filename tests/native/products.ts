// The part of a model's graph that is nothing but the product of states and head, against sums in double precision.
import { existsSync, readFileSync } from 'node:fs';
import type { Context } from '../../src/model/context.js';
import type { ContextHandle } from '../../src/native/addon.js';
import { native } from '../../src/native/index.js';
import { Random } from '../../src/util/random.js';

const HEAD = 2;

const flags = existsSync('/proc/cpuinfo') ? readFileSync('/proc/cpuinfo', 'utf8') : '';
/** Whether products of Q8_0, Q5_0 and Q6_K weights with 32 rows and more are our kernel's. llama.cpp's rounds states to bytes. */
export const WIDENS = flags.includes(' avx2 ') && !flags.includes('avx512_vnni');

/** The number that a half's bits mean. */
export const half = (bits: number): number => {
  const [sign, exponent, fraction] = [bits & 0x8000 ? -1 : 1, (bits >> 10) & 31, (bits & 1023) / 1024];
  return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction) : 2 ** -14 * fraction);
};

/**
 * How far logits of random states are from the sums.
 *
 * @param weight number `k` of the head's row of a token
 * @returns the largest difference, as a part of the largest sum
 */
export async function worstProduct(
  context: Context,
  { rows, width, tokens }: { rows: number; width: number; tokens: readonly number[] },
  weight: (token: number, k: number) => number,
): Promise<number> {
  const { handle } = context as unknown as { handle: ContextHandle };
  const random = new Random(rows, 'states');
  const states = Float32Array.from({ length: rows * width }, () => random.uniform() - 0.5);
  const tokenLogits = new Float32Array(rows * tokens.length);
  const readings = {
    topK: 0,
    topIds: new Int32Array(0),
    topLogits: new Float32Array(0),
    tokens: Int32Array.from(tokens),
    tokenLogits,
    tokenRanks: new Int32Array(rows * tokens.length),
    logsumexp: new Float32Array(rows),
    entropy: new Float32Array(rows),
    reference: Int32Array.from({ length: rows }, (_, row) => row),
    kl: new Float32Array(rows),
  };
  await native().addon.contextLens(handle, { tail: HEAD, rows, states, readings });
  let [worst, size] = [0, 0];
  for (const [i, token] of tokens.entries()) {
    const column = Float64Array.from({ length: width }, (_, k) => weight(token, k));
    for (let row = 0; row < rows; row++) {
      const sum = column.reduce((all, x, k) => all + (states[row * width + k] as number) * x, 0);
      worst = Math.max(worst, Math.abs(sum - (tokenLogits[row * tokens.length + i] as number)));
      size = Math.max(size, Math.abs(sum));
    }
  }
  return worst / size;
}
