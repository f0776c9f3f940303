import type { Context } from '../model/context.js';
import type { HiddenStates } from '../model/hidden-states.js';
import { asRow, type RowInput } from '../model/pass.js';
import { trackedTokens } from '../model/tracked.js';
import type { PositionRef } from '../prompt/types.js';
import { dot } from '../util/dot.js';
import { XpatchError } from '../util/errors.js';
import { projectHeads, projectZ } from './heads.js';
import { requireTwo } from './measure.js';

/** What one part of a model adds to a logit difference. */
export interface LogitPart {
  /** `rest`: what no part adds, such as biases; with a layer, what its attention adds besides its heads. */
  readonly part: 'embed' | 'attn_out' | 'mlp_out' | 'head' | 'rest';
  /** 0-based; undefined for what comes before the first block. */
  readonly layer?: number;
  /** For `head`. */
  readonly head?: number;
  /** Of attention by position: what it reads there. */
  readonly position?: number;
  /** Share of the logit difference. */
  readonly value: number;
}

/** A logit difference, and the parts that it is the sum of. */
export interface Attribution {
  /** Logit of the right token minus that of the wrong one, as the model has them. */
  readonly difference: number;
  readonly parts: readonly LogitPart[];
}

/** What is attributed. */
export interface AttributionOptions {
  /** Token ids, or texts that are one token after the prompt. */
  right: string | number;
  wrong: string | number;
  /** Defaults to the last position. */
  position?: PositionRef;
  /**
   * `layer`: attention and MLP of each block; `head`: attention by its heads; `position`: attention by the positions that it reads, in a
   * context with `flashAttention: 'off'`. `rest` is what none of these adds. Defaults to `layer`.
   */
  by?: 'layer' | 'head' | 'position';
  signal?: AbortSignal;
}

/**
 * Direct logit attribution (Elhage et al., "A Mathematical Framework for Transformer Circuits", 2021): the residual stream before the
 * final norm is a sum of what each part adds, and with the norm's scale frozen the logits are linear in it. So the parts sum to the
 * logit difference that the model computes.
 *
 * @throws {XpatchError} HOOK_UNSUPPORTED for a model whose parts cannot be read, LENS_UNSUPPORTED for one that caps its logits or has no
 *   final norm, INVALID_ARGUMENT for a text of several tokens or one token twice, and as `Context.pass`
 */
export async function attributeLogits(
  context: Context,
  query: RowInput,
  options: AttributionOptions,
): Promise<Attribution> {
  const { position = 'last', by = 'layer', signal } = options;
  const { model } = context;
  const { nLayers } = model.info;
  const row = asRow(query);
  const prompt = await model.prompt(row.prompt, { signal });
  const positions = [prompt.position(position)];
  const tokens = await trackedTokens(model, prompt, [options.right, options.wrong]);
  requireTwo(tokens[0] as number, tokens[1] as number);
  const captures = [
    { hook: 'resid_pre', layers: [0], positions },
    { hook: 'attn_out', positions },
    { hook: 'mlp_out', positions },
    { hook: 'resid_post', layers: [nLayers - 1], positions },
    ...(by === 'head' ? [{ hook: 'z', positions } as const] : []),
    ...(by === 'position' ? [{ hook: 'pattern', positions } as const, { hook: 'v', positions: 'all' } as const] : []),
  ] as const;
  const { captured, logits } = await context.run({ ...row, prompt, captures, logits: positions }, { signal });
  const [embed, attention, mlp, last, mixed, values] = captured as [
    HiddenStates,
    HiddenStates,
    HiddenStates,
    HiddenStates,
    HiddenStates?,
    HiddenStates?,
  ];
  const vectors: (Omit<LogitPart, 'value'> & { vector: Float32Array })[] = [{ part: 'embed', vector: embed.at(0) }];
  const pieces = !mixed
    ? undefined
    : values
      ? await positionVectors(context, mixed, values, signal)
      : await headVectors(context, mixed, signal);
  for (const layer of attention.layers) {
    const own = pieces?.filter((one) => one.layer === layer);
    vectors.push(...(own ?? [{ part: 'attn_out' as const, layer, vector: attention.at(layer) }]));
    // What these do not account for: a bias of the projection, or a norm after it.
    if (own)
      vectors.push({
        part: 'rest',
        layer,
        vector: own.reduce((left, { vector }) => minus(left, vector), attention.at(layer)),
      });
    vectors.push({ part: 'mlp_out', layer, vector: mlp.at(layer) });
  }
  const { linear, bias } = await frozenNorm(context, last.at(nLayers - 1), signal);
  const normed = [bias, bias.map(() => 0), ...vectors.map(({ vector }) => linear(vector))];
  const [ofBias = 0, ofNothing = 0, ...differences] = await readDifferences(context, normed, tokens, signal);
  const parts: LogitPart[] = vectors.map(({ vector: _, ...part }, i) => ({
    ...part,
    value: (differences[i] as number) - ofNothing,
  }));
  parts.push({ part: 'rest', value: ofBias });
  const difference = (logits.data[tokens[0] as number] as number) - (logits.data[tokens[1] as number] as number);
  const sum = parts.reduce((total, { value }) => total + value, 0);
  const tolerance = model.quantised ? QUANTISED_TOLERANCE : TOLERANCE;
  if (Math.abs(sum - difference) > tolerance * Math.max(1, Math.abs(difference))) {
    const problem = `The parts sum to ${sum.toFixed(4)}, but the logits differ by ${difference.toFixed(4)}: after the final norm this model is not linear`;
    throw new XpatchError('LENS_UNSUPPORTED', `${problem} (it may cap its logits). Use patchHeads or ablate.`);
  }
  return { difference, parts };
}

/** What rounding may do to a sum of hundreds of parts in 32 bits. */
const TOLERANCE = 5e-3;
/** The same where the product with the unembedding rounds states to 8 bits. */
const QUANTISED_TOLERANCE = 5e-2;

async function headVectors(context: Context, z: HiddenStates, signal: AbortSignal | undefined) {
  const numbers = z.heads ?? [];
  const choices = numbers.map(
    (number) =>
      ({ head }: { head: number }) =>
        head === number,
  );
  const projected = await projectHeads(context, z, choices, signal);
  return numbers.flatMap((head, h) =>
    z.layers.map((layer, l) => ({ part: 'head' as const, layer, head, vector: projected[h]?.[l] as Float32Array })),
  );
}

/** What attention reads at each position: the values there, by the weights that the pattern of one position gives them. */
async function positionVectors(
  context: Context,
  pattern: HiddenStates,
  values: HiddenStates,
  signal: AbortSignal | undefined,
) {
  const heads = pattern.heads ?? [];
  const shared = heads.length / (values.heads?.length ?? heads.length);
  const sources = values.positions.filter((position) => position <= (pattern.positions[0] as number));
  const read = (layer: number, position: number) =>
    Float32Array.from(
      heads.flatMap((head) => {
        const weight = pattern.head(layer, head)[position] as number;
        return [...values.head(layer, Math.floor(head / shared), position)].map((x) => weight * x);
      }),
    );
  const { layers } = pattern;
  const chosen = sources.map((position) => layers.map((layer) => read(layer, position)));
  const projected = await projectZ(context, layers, chosen, signal);
  return sources.flatMap((position, p) =>
    layers.map((layer, l) => ({
      part: 'attn_out' as const,
      layer,
      position,
      vector: projected[p]?.[l] as Float32Array,
    })),
  );
}

const minus = (a: Float32Array, b: Float32Array): Float32Array => a.map((x, d) => x - (b[d] as number));

/**
 * The final norm at one state, as the linear map that it is with its scale frozen, and the bias after it. Found by what the norm does
 * to a few states, so that it holds for RMS norms and layer norms alike.
 */
async function frozenNorm(context: Context, state: Float32Array, signal: AbortSignal | undefined) {
  const width = state.length;
  const size = Math.sqrt(dot(state, state) / width);
  const signs = Float32Array.from({ length: width }, (_, d) => (d % 2 ? -size : size));
  const states = [state, state.map((x) => -x), state.map((x) => x + size), signs];
  const data = new Float32Array(4 * width);
  for (const [i, one] of states.entries()) data.set(one, i * width);
  const out = await context.norm(data, { signal });
  const [there, back, shifted, signed] = states.map((_, i) => out.subarray(i * width, (i + 1) * width)) as [
    Float32Array,
    Float32Array,
    Float32Array,
    Float32Array,
  ];
  const bias = there.map((x, d) => (x + (back[d] as number)) / 2);
  const gain = signed.map((x, d) => (x - (bias[d] as number)) * Math.sign(signs[d] as number));
  const norm = (x: Float32Array) => Math.sqrt(dot(x, x));
  // A layer norm takes the mean away first, so that a shift of all numbers changes nothing.
  const centres = norm(minus(shifted, there)) < 1e-3 * norm(minus(there, bias));
  const centred = (x: Float32Array) => {
    const mean = centres ? x.reduce((sum, value) => sum + value, 0) / width : 0;
    return x.map((value, d) => (value - mean) * (gain[d] as number));
  };
  const whole = centred(state);
  const scale = dot(minus(there, bias), whole) / dot(whole, whole);
  return { bias, linear: (x: Float32Array) => centred(x).map((value) => value * scale) };
}

/** Logit of the first token minus that of the second, of states after the final norm. */
async function readDifferences(
  context: Context,
  states: readonly Float32Array[],
  tokens: readonly number[],
  signal: AbortSignal | undefined,
): Promise<number[]> {
  const width = states[0]?.length ?? 0;
  const data = new Float32Array(states.length * width);
  for (const [i, state] of states.entries()) data.set(state, i * width);
  const info = { layers: [0], positions: states.map((_, i) => i), data };
  const [cells = []] = await context.readOut(info, { topK: 0, tokens, normalise: false, signal });
  return cells.map(({ tokens: [right, wrong] }) => (right?.logit as number) - (wrong?.logit as number));
}
