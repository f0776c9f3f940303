import { join } from 'node:path';
import type { Context } from '../../src/model/context.js';
import type { ContextOptions } from '../../src/model/context-options.js';
import { loadModel } from '../../src/model/load-model.js';
import type { Model } from '../../src/model/model.js';
import type { PassRow } from '../../src/model/pass.js';
import type { Prompt } from '../../src/prompt/prompt.js';
import { SafetensorsFile } from '../../src/util/safetensors.js';
import { type Case, type Family, FOLDER, type ReferencePrompt } from './families.js';

/** What states and logits may differ by: in every row the cosine and the magnitude, in every tensor the rest. */
export interface Bounds {
  /** At least. */
  cosine: number;
  /** Length over length of the reference, from 1. */
  magnitude: number;
  /** Mean squared error over mean square. */
  nmse: number;
  /** Largest difference of a value; the values are of the size of 1 to 10. */
  absolute?: number;
}
export interface Tier {
  name: string;
  options: ContextOptions;
  bounds: (family: Family) => Bounds;
}

const CLOSE = { cosine: 0.9999, magnitude: 0.01, nmse: 1e-5 };
/**
 * GELU comes from a table of 16-bit values on the CPU, in decoders that have it and in the picture encoders of mtmd, which convolve in
 * 16 bits too. What a picture brings along is larger than what the decoder adds.
 */
const GELU = ['gemma2', 'gemma4', 'gpt-neox'];
const OWN_ENCODERS = ['idefics2', 'mantis-fuyu'];
const exact = ({ name, mmproj }: Family): Bounds => {
  const absolute = mmproj && !OWN_ENCODERS.includes(name) ? 0.05 : GELU.includes(name) ? 5e-3 : 2e-3;
  return { ...CLOSE, absolute };
};

export const TIERS: Tier[] = [
  { name: 'f32 cache, no flash attention', options: { kvType: 'f32', flashAttention: 'off' }, bounds: exact },
  { name: 'f16 cache, no flash attention', options: { kvType: 'f16', flashAttention: 'off' }, bounds: () => CLOSE },
  { name: 'f16 cache, flash attention', options: { kvType: 'f16', flashAttention: 'on' }, bounds: () => CLOSE },
  {
    // A picture of 16 rows is the largest piece that may not be cut (Gemma 3).
    name: 'f32 cache, pieces of 16 positions',
    options: { kvType: 'f32', flashAttention: 'off', nUbatch: 16 },
    bounds: exact,
  },
];

export interface Measured {
  cosine: number;
  magnitude: number;
  nmse: number;
  absolute: number;
}

/** The worst row's cosine and magnitude, and the errors of all rows of `width` values together. */
export function measure(actual: Float32Array, expected: Float32Array, width: number): Measured {
  if (actual.length !== expected.length) throw new Error(`${actual.length} values, expected ${expected.length}`);
  const worst = { cosine: 1, magnitude: 1, absolute: 0 };
  let [error, square] = [0, 0];
  for (let row = 0; row < expected.length; row += width) {
    let [dot, actual2, expected2] = [0, 0, 0];
    for (let i = row; i < row + width; i++) {
      const [a, e] = [actual[i] as number, expected[i] as number];
      dot += a * e;
      actual2 += a * a;
      expected2 += e * e;
      error += (a - e) ** 2;
      worst.absolute = Math.max(worst.absolute, Math.abs(a - e));
    }
    square += expected2;
    // Math.min and Math.max keep NaN.
    worst.cosine = Math.min(worst.cosine, dot / Math.sqrt(actual2 * expected2));
    worst.magnitude = fartherFromOne(worst.magnitude, Math.sqrt(actual2 / expected2));
  }
  return { ...worst, nmse: error / square };
}

export const fartherFromOne = (a: number, b: number) => (Number.isNaN(a) || Math.abs(a - 1) >= Math.abs(b - 1) ? a : b);

/** What of it is out of bounds; empty when all is well. */
export function outOfBounds(measured: Measured, bounds: Bounds): string[] {
  const { cosine, magnitude, nmse, absolute } = measured;
  return [
    cosine >= bounds.cosine ? '' : `cosine ${cosine} of the worst row`,
    Math.abs(magnitude - 1) <= bounds.magnitude ? '' : `magnitude ${magnitude} of the worst row`,
    nmse <= bounds.nmse ? '' : `NMSE ${nmse}`,
    bounds.absolute === undefined || absolute <= bounds.absolute ? '' : `largest difference ${absolute}`,
  ].filter(Boolean);
}

export function expectWithin(
  what: string,
  actual: Float32Array,
  expected: Float32Array,
  width: number,
  bounds: Bounds,
) {
  const wrong = outOfBounds(measure(actual, expected, width), bounds);
  if (wrong.length) throw new Error(`${what}: ${wrong.join(', ')}`);
}

export interface OpenFamily extends AsyncDisposable {
  family: Family;
  model: Model;
  reference: SafetensorsFile;
  prompt(reference: ReferencePrompt): Promise<Prompt>;
}

export async function openFamily(family: Family, device = 'cpu'): Promise<OpenFamily> {
  const mmproj = family.mmproj ? join(FOLDER, family.mmproj) : undefined;
  const model = await loadModel(join(FOLDER, family.model), { device, threads: 1, mmproj });
  const reference = await SafetensorsFile.open(join(FOLDER, family.reference));
  return {
    family,
    model,
    reference,
    prompt: ({ parts, tokens }) =>
      model.prompt(
        parts?.map((part) => (typeof part === 'string' ? part : { image: join(FOLDER, 'pictures', part.image) })) ?? {
          tokens,
        },
      ),
    [Symbol.asyncDispose]: async () => {
      await reference.close();
      await model.dispose();
    },
  };
}

/** A row of a pass that repeats a case of the reference. */
export async function caseRow(prompt: Prompt, { interventions }: Case, reference: SafetensorsFile): Promise<PassRow> {
  return {
    prompt,
    interventions: await Promise.all(
      interventions.map(async ({ layer: layers, value, ...rest }) =>
        value === undefined ? { layers, ...rest } : { layers, ...rest, value: await reference.readFloat32(value) },
      ),
    ),
    capture: { layers: 'all', positions: 'last' },
    logits: 'last',
  };
}

export interface Comparison {
  what: string;
  actual: Float32Array;
  expected: Float32Array;
  width: number;
}

/** States of every layer and position, logits, and both at the last position under every intervention, all in one pass. */
export async function comparisons(
  { family, reference }: OpenFamily,
  context: Context,
  prompt: Prompt,
  expected: ReferencePrompt,
): Promise<Comparison[]> {
  const { nEmbd, nVocab } = family;
  const [plain] = await context.pass([{ prompt, capture: { layers: 'all', positions: 'all' }, logits: 'all' }]);
  const patched = await context.pass(
    await Promise.all(expected.cases.map((single) => caseRow(prompt, single, reference))),
  );
  const named = [{ ...expected, name: 'plain' }, ...expected.cases];
  const pairs = named.map(async ({ name, states, logits }, i) => {
    const row = i === 0 ? plain : patched[i - 1];
    return [
      {
        what: `${name}: states`,
        actual: row?.states?.data as Float32Array,
        expected: await reference.readFloat32(states),
        width: nEmbd,
      },
      {
        what: `${name}: logits`,
        actual: row?.logits?.data as Float32Array,
        expected: await reference.readFloat32(logits),
        width: nVocab,
      },
    ];
  });
  return (await Promise.all(pairs)).flat();
}
