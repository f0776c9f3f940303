import type { Prompt } from '../prompt/prompt.js';
import type { PositionSelection } from '../prompt/types.js';
import { XpatchError } from '../util/errors.js';
import { largest, smallest } from '../util/extremes.js';
import { Random } from '../util/random.js';
import { type HookPoints, requireHookName } from './points.js';
import { partOf, type RowPart } from './rows.js';
import {
  ATTENTION_HOOKS,
  type Edge,
  type HookName,
  type Intervention,
  type InterventionReport,
  NATIVE_OPS,
  type NativeOp,
  OPS,
  type Steps,
} from './types.js';

/** An edit of the rows at a point as the addon takes it, but for the rows. */
export interface RowEdit extends RowPart {
  op: number;
  factor: number;
  /** Upper bound of a clamp. */
  upper: number;
  value?: Float32Array | undefined;
  /** Equal for edits that differ in nothing but their values. */
  kind: string;
}

/** An edit at one position, checked. */
export interface PlacedIntervention extends RowEdit {
  position: number;
  report: InterventionReport;
}

/** An edit at generated tokens, checked: `every`-th of them. */
export interface GeneratedEdit extends RowEdit {
  every: number;
  report: Pick<InterventionReport, 'hook' | 'layer' | 'op'>;
}

/** What an intervention or an edge is at the positions of a prompt, and after it. */
export interface Placed {
  placed: PlacedIntervention[];
  generated: GeneratedEdit[];
}

type Invalid = (why: string) => XpatchError;

/**
 * An intervention at the positions of a prompt.
 *
 * @param deviation standard deviation of the model's embeddings, for noise
 * @throws XpatchError INTERVENTION_INVALID, HOOK_UNSUPPORTED, LAYER_OUT_OF_RANGE, HEAD_OUT_OF_RANGE, POSITION_OUT_OF_RANGE.
 */
export function placeIntervention(
  intervention: Intervention,
  prompt: Prompt,
  points: HookPoints,
  deviation: number,
): Placed {
  const { hook = 'resid_post', layers: selection, positions = 'last', op, steps = 'prompt' } = intervention;
  requireHookName(hook);
  const invalid: Invalid = (why) => {
    const where = selection === undefined || selection === 'all' ? 'all layers' : `layer ${selection}`;
    return new XpatchError('INTERVENTION_INVALID', `Intervention ${op} at ${where}: ${why}.`);
  };
  if (!OPS.includes(op)) throw invalid(`the operation must be one of ${OPS.join(', ')}`);
  const layers = points.layers(hook, selection);
  const parts = layers.map((layer) =>
    partOf(points, hook, layer, { heads: intervention.heads, nPositions: prompt.length }),
  );
  checkFields(intervention, invalid);
  const factors = factorsOf(intervention, layers.length, invalid);
  const values =
    op === 'mean' ? meansOf(intervention, hook, parts, invalid) : valuesOf(intervention, hook, parts, invalid);
  const { min = Number.NEGATIVE_INFINITY, max = Number.POSITIVE_INFINITY } = intervention;
  const native = nativeOp(intervention);
  const edits = parts.map((part, i) => ({
    ...rowEdit(part, native, op === 'clamp' ? min : (factors[i] as number), max),
    value: values?.[i],
    report: { hook, layer: part.layer, op },
  }));
  const every = everyOf(steps, invalid);
  if (every && (ATTENTION_HOOKS.includes(hook) || op === 'noise')) {
    throw invalid(`${op === 'noise' ? 'noise' : `'${hook}'`} does not work after the prompt (steps)`);
  }
  const { placed, generated } = placedAt(positionsOf(prompt, positions, steps, every, invalid), edits, every);
  if (op !== 'noise') return { placed, generated };
  const noisy = placed.map((edit) => ({ ...edit, value: noise(edit, edit.position, intervention, deviation) }));
  return { placed: noisy, generated };
}

/**
 * Attention edges that are cut, at the positions of a prompt.
 *
 * @throws XpatchError as `placeIntervention`
 */
export function placeEdge(edge: Edge, prompt: Prompt, points: HookPoints): Placed {
  const { heads, from, to = 'last', steps = 'prompt' } = edge;
  const invalid: Invalid = (why) =>
    new XpatchError('INTERVENTION_INVALID', `Knock-out at layer ${edge.layers}: ${why}.`);
  const keys = prompt.positions(from);
  const nPositions = largest(keys) + 1;
  const edits = points.edgeLayers(edge).map((layer) => {
    const part = partOf(points, 'attn_scores', layer, { heads, nPositions });
    const spans = Int32Array.from(
      (part.heads ?? []).flatMap((head) => keys.flatMap((key) => [head * nPositions + key, 1])),
    );
    return {
      ...rowEdit({ ...part, spans, width: spans.length / 2 }, 'cut', 1, 0),
      report: { hook: 'attn_scores', layer, op: 'knock-out' } as const,
    };
  });
  const every = everyOf(steps, invalid);
  const positions = positionsOf(prompt, to, steps, every, invalid);
  if (!every && !seesAny(prompt, positions, keys)) {
    throw invalid(
      "nothing is cut: all positions of 'from' come after those of 'to', which never see them; swap the two",
    );
  }
  return placedAt(positions, edits, every);
}

/** What is done to the states and the attention of a prompt. */
export interface Edits {
  readonly interventions?: readonly Intervention[] | undefined;
  readonly edges?: readonly Edge[] | undefined;
}

/**
 * Edits of a prompt, for the same prompt with `n` tokens of an answer behind it: positions are those of the prompt alone, and the
 * tokens of the answer are what `steps` calls generated.
 *
 * @throws XpatchError INTERVENTION_INVALID, and as `Prompt.positions`
 */
export function editsBehind({ interventions = [], edges = [] }: Edits, prompt: Prompt, n: number): Edits {
  const at = (what: string, selection: PositionSelection = 'last', steps: Steps = 'prompt') => {
    const invalid: Invalid = (why) => new XpatchError('INTERVENTION_INVALID', `${what}: ${why}.`);
    const every = everyOf(steps, invalid);
    const fired = every && Math.floor(n / every);
    const generated = Array.from({ length: fired }, (_, i) => prompt.length - 1 + (i + 1) * every);
    return [...positionsOf(prompt, selection, steps, every, invalid), ...generated];
  };
  return {
    interventions: interventions.flatMap(({ steps, ...edit }) => {
      const positions = at(`Intervention ${edit.op}`, edit.positions, steps);
      return positions.length ? [{ ...edit, positions }] : [];
    }),
    edges: edges.flatMap(({ steps, ...edge }) => {
      const to = at('Knock-out', edge.to, steps);
      return to.length ? [{ ...edge, from: prompt.positions(edge.from), to }] : [];
    }),
  };
}

/** Whether a position sees one of the keys: one that is not behind it, or of the same picture, where rows may see each other. */
function seesAny({ pictures }: Prompt, positions: readonly number[], keys: readonly number[]): boolean {
  if (smallest(keys) <= largest(positions)) return true;
  return pictures.some(({ first, nRows }) => {
    const within = (position: number) => position >= first && position < first + nRows;
    return keys.some(within) && positions.some(within);
  });
}

function placedAt(positions: readonly number[], edits: readonly Omit<GeneratedEdit, 'every'>[], every: number): Placed {
  return {
    placed: positions.flatMap((position) =>
      edits.map((edit) => ({ ...edit, position, report: { ...edit.report, position, step: 0, delta: Number.NaN } })),
    ),
    generated: every ? edits.map((edit) => ({ ...edit, every })) : [],
  };
}

function rowEdit(part: RowPart, op: NativeOp, factor: number, upper: number): RowEdit {
  const { hook, layer, spans, width, keys, trimmed } = part;
  const index = NATIVE_OPS.indexOf(op);
  const kind = `${hook},${layer},${index},${factor},${upper},${keys},${spans.join()}`;
  return { hook, layer, spans, width, keys, trimmed, op: index, factor, upper, kind };
}

function nativeOp({ op, keep }: Intervention): NativeOp {
  if (op === 'project') return keep ? 'keep' : 'remove';
  if (op === 'noise') return 'add';
  return op === 'mean' ? 'replace' : op;
}

/** Fields that an operation does not read are refused: whoever gives them expects something of them. */
const FIELDS: Readonly<Partial<Record<keyof Intervention, readonly Intervention['op'][]>>> = {
  value: ['replace', 'add', 'project'],
  factor: ['scale', 'add', 'project', 'noise'],
  keep: ['project'],
  min: ['clamp'],
  max: ['clamp'],
  seed: ['noise'],
  of: ['mean'],
};

function checkFields(intervention: Intervention, invalid: Invalid): void {
  const { op, hook, min, max, seed } = intervention;
  for (const [field, ops] of Object.entries(FIELDS)) {
    const given = intervention[field as keyof Intervention];
    if (given === undefined || ops.includes(op)) continue;
    throw invalid(field === 'factor' ? `it takes no factor (${given})` : `${op} takes no ${field}`);
  }
  if (op === 'clamp') {
    if (min === undefined && max === undefined) throw invalid('clamp needs min, max or both');
    const wrong = [min, max].find((bound) => bound !== undefined && !Number.isFinite(Math.fround(bound)));
    if (wrong !== undefined) throw invalid(`a bound of ${wrong} is not a number that float32 can hold`);
    if ((min ?? Number.NEGATIVE_INFINITY) > (max ?? Number.POSITIVE_INFINITY)) throw invalid('min is above max');
  }
  if (seed !== undefined && !(Number.isSafeInteger(seed) && seed >= 0))
    throw invalid('the seed must be a whole number from 0');
  if (op === 'mean' && hook && ATTENTION_HOOKS.includes(hook)) {
    throw invalid(`'${hook}' has a different size for each length of prompt, so there is no mean`);
  }
}

/** Copies, one a layer: the caller may change the arrays while the pass runs. */
function valuesOf(
  { op, value }: Intervention,
  hook: HookName,
  parts: readonly (RowPart & { fullWidth: number })[],
  invalid: Invalid,
): Float32Array[] | undefined {
  if (!FIELDS.value?.includes(op)) return undefined;
  const list = value ? perLayer(value, parts.length, 'values', invalid) : undefined;
  return parts.map((part, i) => {
    if (!list) throw invalid(`${op} needs a value of ${part.width} numbers`);
    const numbers = list[list.length === 1 ? 0 : i] as Float32Array;
    if (numbers.length !== part.width && numbers.length !== part.fullWidth) {
      throw invalid(`the value has ${numbers.length} numbers, but this model's states have ${part.width}`);
    }
    const copy = numbers.length === part.width ? Float32Array.from(numbers) : select(numbers, part);
    // A score of -infinity is how something is not seen.
    const open = hook === 'attn_scores' && op === 'replace';
    if (copy.some((x) => !Number.isFinite(x) && !(open && x === Number.NEGATIVE_INFINITY)))
      throw invalid('the value holds NaN, infinity or a number beyond float32');
    return op === 'project' ? unit(copy, invalid) : copy;
  });
}

function select(numbers: ArrayLike<number>, { spans, width }: RowPart): Float32Array {
  const selected = new Float32Array(width);
  let to = 0;
  for (let i = 0; i < spans.length; i += 2) {
    const first = spans[i] as number;
    for (let k = first; k < first + (spans[i + 1] as number); k++) selected[to++] = numbers[k] as number;
  }
  return selected;
}

function unit(direction: Float32Array, invalid: Invalid): Float32Array {
  const length = Math.sqrt(direction.reduce((sum, x) => sum + x * x, 0));
  if (length === 0) throw invalid('the value is all zeros and has no direction');
  return direction.map((x) => x / length);
}

/** The mean over all states of a set at each layer, of the heads that are edited. */
function meansOf(
  { of: sets = [] }: Intervention,
  hook: HookName,
  parts: readonly (RowPart & { fullWidth: number })[],
  invalid: Invalid,
): Float32Array[] {
  if (sets.length === 0) throw invalid('mean needs states to average');
  return parts.map((part) => {
    const sum = new Float64Array(part.fullWidth);
    let count = 0;
    for (const { hook: from, layers, positions, data } of sets) {
      const l = layers.indexOf(part.layer);
      if (from !== hook) throw invalid(`it is at '${hook}', but the states are from '${from}'`);
      if (l < 0) throw invalid(`the states lack layer ${part.layer}`);
      if (data.length !== layers.length * positions.length * part.fullWidth) {
        throw invalid(`the states do not have ${part.fullWidth} numbers: capture all heads of this model`);
      }
      for (let p = 0; p < positions.length; p++) {
        const at = (l * positions.length + p) * part.fullWidth;
        for (let k = 0; k < part.fullWidth; k++) sum[k] = (sum[k] as number) + (data[at + k] as number);
        count++;
      }
    }
    if (count === 0) throw invalid('mean needs states to average');
    if (!sum.every((x) => Number.isFinite(Math.fround(x / count)))) throw invalid('the states hold NaN or infinity');
    return select(
      sum.map((x) => x / count),
      part,
    );
  });
}

/** A stream for each layer and position: the noise at one of them does not depend on which others there are. */
function noise(part: RowPart, position: number, { seed = 1 }: Intervention, deviation: number): Float32Array {
  const random = new Random(seed, 'noise', part.hook, part.layer, position);
  return Float32Array.from({ length: part.width }, () => deviation * random.gaussian());
}

function factorsOf({ op, factor }: Intervention, n: number, invalid: Invalid): number[] {
  if (factor === undefined) {
    if (op === 'scale') throw invalid('scale needs a factor');
    return Array.from({ length: n }, () => 1);
  }
  const list = perLayer(factor, n, 'factors', invalid);
  const beyond = list.find((x) => !Number.isFinite(Math.fround(x)));
  if (beyond !== undefined) throw invalid(`a factor of ${beyond} is not a number that float32 can hold`);
  return list.length === n ? list : Array.from({ length: n }, () => list[0] as number);
}

/** One entry for all layers, or one a layer. */
function perLayer<T>(given: T | readonly T[], n: number, what: string, invalid: Invalid): T[] {
  if (!Array.isArray(given)) return [given as T];
  if (given.length !== n) throw invalid(`there are ${given.length} ${what} for ${n} layers`);
  return [...given];
}

function positionsOf(
  prompt: Prompt,
  positions: Intervention['positions'] & {},
  steps: Steps,
  every: number,
  invalid: Invalid,
): number[] {
  const inPrompt = steps === 'prompt' || steps === 'all' ? prompt.positions(positions) : [];
  if (steps === 'all' && !inPrompt.includes(prompt.length - 1)) {
    throw invalid("steps 'all' continues from the last position of the prompt, which is not among its positions");
  }
  if (every && inPrompt.length === 0 && positions !== 'last' && positions !== 'all') {
    throw invalid('generated tokens have no positions to choose from: leave them out');
  }
  return inPrompt;
}

/** Every how many generated tokens an intervention is applied; 0 for none. */
function everyOf(steps: Steps, invalid: Invalid): number {
  if (steps === 'prompt') return 0;
  if (steps === 'generated' || steps === 'all') return 1;
  const { every } = (steps ?? {}) as { every?: number };
  if (Number.isInteger(every) && (every as number) > 0) return every as number;
  throw invalid("steps are 'prompt', 'generated', 'all' or { every: n }");
}
