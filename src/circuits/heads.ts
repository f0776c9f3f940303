import type { Intervention } from '../hooks/types.js';
import type { Context } from '../model/context.js';
import type { HiddenStates } from '../model/hidden-states.js';
import { XpatchError } from '../util/errors.js';

/** One attention head: the block it is in, and its number there, both from 0. */
export interface Head {
  readonly layer: number;
  readonly head: number;
}

/** A number for each head of a model. */
export class HeadMap {
  /** @internal */
  constructor(
    readonly heads: readonly Head[],
    /** In the order of `heads`. */
    readonly values: Float64Array,
  ) {}

  /** @throws {XpatchError} LAYER_OUT_OF_RANGE for a head that was not measured */
  at(layer: number, head: number): number {
    const index = this.heads.findIndex((one) => one.layer === layer && one.head === head);
    if (index >= 0) return this.values[index] as number;
    throw new XpatchError('LAYER_OUT_OF_RANGE', `Head ${head} of layer ${layer} was not measured.`);
  }

  /**
   * The heads with the largest values, best first; of those that tie the lowest.
   *
   * @throws {XpatchError} INVALID_ARGUMENT for a number that is not an integer from 0
   */
  best(n: number): (Head & { value: number })[] {
    if (!Number.isSafeInteger(n) || n < 0)
      throw new XpatchError('INVALID_ARGUMENT', `The number of heads must be a whole number from 0, not ${n}.`);
    const order = [...this.heads.keys()].sort(
      (a, b) => (this.values[b] as number) - (this.values[a] as number) || a - b,
    );
    return order.slice(0, n).map((i) => ({ ...(this.heads[i] as Head), value: this.values[i] as number }));
  }

  /** The mean of maps of the same heads. @throws {XpatchError} INVALID_ARGUMENT for none, or of other heads */
  static mean(maps: readonly HeadMap[]): HeadMap {
    const [first] = maps;
    if (first === undefined)
      throw new XpatchError('INVALID_ARGUMENT', 'There are no maps to average: give at least one.');
    const namesOf = ({ heads }: HeadMap) => heads.map(({ layer, head }) => `${layer} ${head}`).join();
    if (maps.some((map) => namesOf(map) !== namesOf(first)))
      throw new XpatchError('INVALID_ARGUMENT', 'The mean of maps of different heads: give maps of the same ones.');
    const values = first.values.map(
      (_, i) => maps.reduce((sum, map) => sum + (map.values[i] as number), 0) / maps.length,
    );
    return new HeadMap(first.heads, values);
  }
}

/**
 * The heads of a context's model, layer by layer.
 *
 * @throws {XpatchError} HOOK_UNSUPPORTED for a model whose heads cannot be read
 */
export function headsOf(context: Context, layers?: readonly number[]): Head[] {
  const z = context.hooks.find(({ hook }) => hook === 'z');
  if (!z?.heads || z.layers.length === 0) {
    const reason = z?.refusals[0]?.reason ?? 'its layers have different numbers of heads';
    throw new XpatchError('HOOK_UNSUPPORTED', `The heads of this model cannot be read one by one: ${reason}.`);
  }
  const { heads } = z;
  return (layers ?? z.layers).flatMap((layer) => Array.from({ length: heads }, (_, head) => ({ layer, head })));
}

/** Writes what one head said at some positions of other states (`z`) into the same head there. */
export function headPatch({ layer, head }: Head, states: HiddenStates, positions: readonly number[]): Intervention[] {
  return positions.map((position) => ({
    hook: 'z',
    layers: layer,
    heads: [head],
    positions: position,
    op: 'replace',
    value: states.head(layer, head, position),
  }));
}

/**
 * What the output projections make of some heads alone, layer by layer: `attn_out` with only these heads in `z`, less what there is
 * with none. Every layer's input is written whole, so it does not matter what the prompt says.
 *
 * @param z states of one position, all heads
 * @param choices a set of heads each
 * @returns for each choice the vector of every layer of `z`
 */
export async function projectHeads(
  context: Context,
  z: HiddenStates,
  choices: readonly ((head: Head) => boolean)[],
  signal?: AbortSignal,
): Promise<Float32Array[][]> {
  const { layers } = z;
  const numbers = z.heads ?? [];
  const only = (chosen: (head: Head) => boolean) =>
    layers.map((layer) => {
      const masked = new Float32Array(z.at(layer).length);
      const size = masked.length / numbers.length;
      for (const [h, head] of numbers.entries()) {
        if (chosen({ layer, head })) masked.set(z.head(layer, head), h * size);
      }
      return masked;
    });
  return projectZ(context, layers, choices.map(only), signal);
}

/**
 * What the output projections make of states `z`: `attn_out` with them, less what there is with zeros.
 *
 * @param values [choices][layers], each the heads of a layer side by side
 * @returns [choices][layers]
 */
export async function projectZ(
  context: Context,
  layers: readonly number[],
  values: readonly (readonly Float32Array[])[],
  signal?: AbortSignal,
): Promise<Float32Array[][]> {
  const nothing = values[0]?.map((value) => new Float32Array(value.length)) ?? [];
  const rows = [nothing, ...values].map((value) => ({
    prompt: { tokens: [0] },
    interventions: [{ hook: 'z', layers, op: 'replace', value } as const],
    capture: { hook: 'attn_out', layers, positions: 'last' } as const,
  }));
  const [none, ...some] = (await context.pass(rows, { signal })).map(({ states }) => states);
  return some.map((states) =>
    layers.map((layer) => {
      const bias = none?.at(layer) as Float32Array;
      return states.at(layer).map((x, d) => x - (bias[d] as number));
    }),
  );
}
