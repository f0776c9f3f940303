import { readGgufHeader, tensorBytes } from '../gguf/gguf.js';
import type { Context } from '../model/context.js';
import type { Model } from '../model/model.js';
import type { OnProgress } from '../model/types.js';
import { counted } from '../util/counted.js';
import { XpatchError } from '../util/errors.js';
import { concatenate, type ModelReference, type ReferencePrompt } from './model-reference.js';

/** How rows of values differ from those of a reference. */
export interface Difference {
  /** The cosine of the row where it is smallest. */
  cosine: number;
  /** Length over length of the reference, of the row where it is farthest from 1. */
  magnitude: number;
  /** Mean squared error over mean square of the reference, all rows together. */
  nmse: number;
}

/** What a model may differ by. */
export interface Bounds {
  /** At least. */
  cosine: number;
  /** At most, from 1. */
  magnitude: number;
  nmse: number;
}

/**
 * Bounds by the bits that a weight takes on average; the first entry that fits holds. Below eight bits a small model loses so much that
 * they catch gross faults only. How they came about: docs/correctness.md.
 */
export const BOUNDS: readonly { bits: number; name: string; bounds: Bounds }[] = [
  { bits: 31, name: 'F32', bounds: { cosine: 0.9999, magnitude: 0.01, nmse: 1e-5 } },
  { bits: 15, name: 'F16 or BF16', bounds: { cosine: 0.9995, magnitude: 0.01, nmse: 1e-4 } },
  { bits: 7.5, name: '8 bits', bounds: { cosine: 0.99, magnitude: 0.1, nmse: 0.01 } },
  { bits: 5.2, name: '5 to 6 bits', bounds: { cosine: 0.85, magnitude: 0.4, nmse: 0.3 } },
  { bits: 0, name: '4 bits and fewer', bounds: { cosine: 0.7, magnitude: 0.5, nmse: 0.5 } },
];

interface PromptReport {
  /** Positions of the prompt. */
  length: number;
  /** Why nothing was compared: model and reference tokenised differently. */
  tokens?: string;
  layers: Difference[];
  logits?: Difference & { sameBest: boolean };
  embeddings?: Difference;
  ok: boolean;
}

export interface ModelReport {
  /** Bits of a weight on average, and the bounds that follow. */
  bits: number;
  weights: string;
  bounds: Bounds;
  prompts: PromptReport[];
  ok: boolean;
}

/**
 * Compares states of every layer, logits and picture rows of a model with a reference. `context` should have a float32 cache and no
 * flash attention, so that what differs is the weights.
 *
 * @throws XpatchError REFERENCE_INVALID, REFERENCE_MISMATCH when the reference has other layers, widths or vocabulary, and what
 *   `Model.prompt` and `Context.pass` throw.
 */
export async function verifyModel(
  model: Model,
  context: Context,
  reference: ModelReference,
  { signal, onProgress }: { signal?: AbortSignal; onProgress?: OnProgress } = {},
): Promise<ModelReport> {
  const bits = bitsPerWeight(model.files.model);
  const { name: weights, bounds } = BOUNDS.find((entry) => bits >= entry.bits) as (typeof BOUNDS)[number];
  const prompts: PromptReport[] = [];
  for (let i = 0; i < reference.length; i++) {
    onProgress?.({ done: i, total: reference.length });
    prompts.push(await verifyPrompt(model, context, await reference.read(i), bounds, signal));
  }
  return { bits, weights, bounds, prompts, ok: prompts.every(({ ok }) => ok) };
}

async function verifyPrompt(
  model: Model,
  context: Context,
  expected: ReferencePrompt,
  bounds: Bounds,
  signal?: AbortSignal,
): Promise<PromptReport> {
  const { nLayers, nEmbd } = model.identity;
  const [layers, length, width] = expected.states.shape;
  if (layers !== nLayers || width !== nEmbd) {
    throw new XpatchError(
      'REFERENCE_MISMATCH',
      `The reference has ${layers} layers of width ${width}, the model ${nLayers} of ${nEmbd}: it was dumped from another model.`,
    );
  }
  // A vocabulary may be padded in one of the two files.
  const nVocab = Math.min(expected.logits.length, model.info.nVocab);
  const prompt = await model.prompt(expected.parts, { signal });
  const tokens = differingTokens(prompt.tokens, expected.tokens);
  if (tokens) return { length, tokens, layers: [], ok: false };
  const result = await context.run({ prompt, capture: 'all', logits: 'last' }, { signal });
  const states = result.states.data;
  const size = length * width;
  const perLayer = Array.from({ length: layers }, (_, layer) =>
    compareRows(
      states.subarray(layer * size, (layer + 1) * size),
      expected.states.data.subarray(layer * size, (layer + 1) * size),
      width,
    ),
  );
  const own = result.logits.data.subarray(0, nVocab);
  const theirs = expected.logits.subarray(0, nVocab);
  const logits = { ...compareRows(own, theirs, nVocab), sameBest: best(own) === best(theirs) };
  const rows = concatenate(
    prompt.segments.flatMap((segment) => (segment.kind === 'image' ? [segment.embeddings] : [])),
  );
  // Deepstack models put what later layers add after the row of the first.
  const rowWidth = (rows.length * width) / (expected.embeddings.length || 1);
  const embeddings = rows.length
    ? compareRows(firstColumns(rows, rowWidth, width), expected.embeddings, width)
    : undefined;
  const all = [...perLayer, logits, ...(embeddings ? [embeddings] : [])];
  return { length, layers: perLayer, logits, embeddings, ok: all.every((difference) => within(difference, bounds)) };
}

/** Whether a difference keeps to the bounds. */
export function within({ cosine, magnitude, nmse }: Difference, bounds: Bounds): boolean {
  return cosine >= bounds.cosine && Math.abs(magnitude - 1) <= bounds.magnitude && nmse <= bounds.nmse;
}

/** @param width values of a row */
export function compareRows(actual: Float32Array, expected: Float32Array, width: number): Difference {
  if (actual.length !== expected.length) {
    throw new XpatchError(
      'REFERENCE_MISMATCH',
      `The reference has ${expected.length / width} rows of ${width}, the model ${actual.length / width}.`,
    );
  }
  const worst = { cosine: 1, magnitude: 1 };
  let [error, square] = [0, 0];
  for (let at = 0; at < expected.length; at += width) {
    let [dot, a2, b2] = [0, 0, 0];
    for (let i = at; i < at + width; i++) {
      const [a, b] = [actual[i] as number, expected[i] as number];
      dot += a * b;
      a2 += a * a;
      b2 += b * b;
      error += (a - b) ** 2;
    }
    square += b2;
    // NaN, of a row of zeros or of NaN, stays.
    worst.cosine = Math.min(worst.cosine, dot / Math.sqrt(a2 * b2));
    worst.magnitude = fartherFromOne(worst.magnitude, Math.sqrt(a2 / b2));
  }
  return { ...worst, nmse: error / square };
}

const fartherFromOne = (a: number, b: number) => (Number.isNaN(a) || Math.abs(a - 1) >= Math.abs(b - 1) ? a : b);

function firstColumns(rows: Float32Array, from: number, to: number): Float32Array {
  if (from === to) return rows;
  const n = Math.floor(rows.length / from);
  return concatenate(Array.from({ length: n }, (_, i) => rows.subarray(i * from, i * from + to)));
}

function differingTokens(own: Int32Array, expected: Int32Array): string | undefined {
  const at = expected.findIndex((token, i) => token !== own[i]);
  if (at < 0 && own.length === expected.length) return undefined;
  const name = (token: number | undefined) =>
    token === undefined ? 'nothing' : token < 0 ? 'a row of a picture' : `token ${token}`;
  const where = at < 0 ? expected.length : at;
  return `${counted(own.length, 'position')}, the reference has ${expected.length}; at position ${where} ${name(own[where])}, in the reference ${name(expected[where])}`;
}

const best = (values: Float32Array) => values.reduce((top, value, i) => (value > (values[top] as number) ? i : top), 0);

/** Of the matrices of the text model. */
function bitsPerWeight(path: string): number {
  let [bytes, values] = [0, 0];
  for (const { type, shape } of readGgufHeader(path).tensors) {
    if (shape.length < 2) continue;
    bytes += tensorBytes(type, shape) ?? 0;
    values += shape.reduce((a, b) => a * b, 1);
  }
  return (8 * bytes) / values;
}
