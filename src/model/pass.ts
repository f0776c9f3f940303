import { Prompt, type PromptInput } from '../prompt/prompt.js';
import type { PositionSelection, PromptPart } from '../prompt/types.js';
import { XpatchError } from '../util/errors.js';
import { HiddenStates } from './hidden-states.js';
import {
  HOOKS,
  type HookName,
  type Intervention,
  type InterventionReport,
  type LayerSelection,
  type ModelIdentity,
  OPS,
  type Steps,
  type TokenScore,
} from './types.js';

/** Which hidden states are wanted: `all` is every layer at every position. */
export type Capture =
  | 'all'
  | {
      /** Defaults to `resid_post`. */
      readonly hook?: HookName;
      /** Defaults to `all`. */
      readonly layers?: LayerSelection;
      /** Defaults to `all`. */
      readonly positions?: PositionSelection;
    };

/** One row of a pass: a prompt, what is done to its hidden states, and what comes back. */
export interface PassRow {
  /** Text, parts or a built `Prompt`. */
  readonly prompt: PromptInput;
  /** Applied in their order. Other rows are not affected. Defaults to none. */
  readonly interventions?: readonly Intervention[];
  /** Hidden states to return, as the later blocks see them (after interventions). Defaults to none. */
  readonly capture?: Capture;
  /** Positions whose logits are returned. Defaults to none. */
  readonly logits?: PositionSelection;
  /** How many of the best next tokens to return for the last position. Defaults to 0. */
  readonly topK?: number;
}

/** A row, or nothing but its prompt. */
export type RowInput = PassRow | PromptInput;

/** Raw logits: `data[p * nVocab + token]`. */
export interface Logits {
  data: Float32Array;
  shape: [positions: number, nVocab: number];
  /** Position in the prompt of each entry of the first axis. */
  positions: number[];
}

/** What a row may ask for. */
interface Answers {
  states: HiddenStates;
  logits: Logits;
  /** The best next tokens after the last position, best first. */
  top: TokenScore[];
}

/** A field of the result is there for certain when the type of the row says that it was asked for. */
type Answer<Row, Request extends string, Field extends keyof Answers> = [Row] extends [
  { readonly [Key in Request]: NonNullable<unknown> },
]
  ? Pick<Answers, Field>
  : Partial<Pick<Answers, Field>>;

/** What came of a row: `states`, `logits` and `top` where `capture`, `logits` and `topK` asked for them. */
export type PassResult<Row = PassRow> = {
  /** The prompt as it was read. */
  prompt: Prompt;
  /** One entry for each state that an intervention edited. */
  interventions: InterventionReport[];
} & Answer<Row, 'capture', 'states'> &
  Answer<Row, 'logits', 'logits'> &
  Answer<Row, 'topK', 'top'>;

/** Sizes of the model that rows are checked against. */
export interface PassLimits {
  nLayers: number;
  nEmbd: number;
  nVocab: number;
  identity: ModelIdentity;
  /** Positions that the model has embeddings for, if it learned them. */
  maxPositions?: number;
}

/** An intervention at one position, checked. */
export interface PlacedIntervention {
  hook: number;
  layer: number;
  position: number;
  op: number;
  factor: number;
  value?: Float32Array;
  report: InterventionReport;
}

/** An intervention at generated tokens, checked: `every`-th of them. */
export interface GeneratedEdit extends Omit<PlacedIntervention, 'position' | 'report'> {
  every: number;
  report: Pick<InterventionReport, 'hook' | 'layer' | 'op'>;
}

/** A row with its prompt built. */
export type BuiltRow = PassRow & { readonly prompt: Prompt };

/** A row whose references are resolved and whose result buffers are made. */
export interface PreparedRow {
  /** Distinct within the process. */
  id: number;
  prompt: Prompt;
  interventions: PlacedIntervention[];
  generated: GeneratedEdit[];
  captureHook: number;
  states?: HiddenStates;
  /** Position in the prompt -> index in `states.positions`. */
  stateIndex: Map<number, number>;
  logits?: Logits;
  /** Position in the prompt -> index in `logits.positions`. */
  logitIndex: Map<number, number>;
  topK: number;
  /** Whether the row itself asked for the best tokens. */
  wantsTop: boolean;
  top?: { ids: Int32Array; logits: Float32Array; logsumexp: number };
}

/**
 * Layers of a selection, checked against the model.
 *
 * @throws XpatchError LAYER_OUT_OF_RANGE, INVALID_ARGUMENT.
 */
export function resolveLayers(selection: LayerSelection, nLayers: number): number[] {
  if (selection === 'all') return Array.from({ length: nLayers }, (_, i) => i);
  if (!Array.isArray(selection)) {
    throw new XpatchError('INVALID_ARGUMENT', `Layers must be 'all' or a list of numbers, not ${selection}.`);
  }
  if (selection.length === 0)
    throw new XpatchError('INVALID_ARGUMENT', 'No layers were given. Name some, or use "all".');
  for (const layer of selection) checkLayer(layer, nLayers);
  if (new Set(selection).size !== selection.length) {
    throw new XpatchError('INVALID_ARGUMENT', `Layers repeat: ${selection.join(', ')}. Name each one once.`);
  }
  return [...selection];
}

function checkLayer(layer: number, nLayers: number): void {
  if (!Number.isInteger(layer) || layer < 0 || layer >= nLayers) {
    throw new XpatchError(
      'LAYER_OUT_OF_RANGE',
      `Layer ${layer} does not exist: the model has layers 0 to ${nLayers - 1}.`,
    );
  }
}

let nextRowId = 0;

/**
 * A row of what was given: a row as it is, or one of nothing but a prompt.
 *
 * @throws XpatchError INVALID_ARGUMENT for anything else
 */
export function asRow<Row extends PassRow>(input: Row | PromptInput): Row | PassRow {
  if (typeof input === 'string' || Array.isArray(input) || input instanceof Prompt) return { prompt: input };
  if (typeof input === 'object' && input !== null) {
    if (!('prompt' in input)) return { prompt: [input as PromptPart] };
    if (input.prompt !== undefined) return input;
  }
  const wanted = 'a text, parts, a Prompt, or { prompt, interventions, capture, logits, topK }';
  throw new XpatchError('INVALID_ARGUMENT', `A row is ${wanted}, not ${String(input)}.`);
}

/** Checks a row and makes the buffers that the addon writes into. */
export function prepareRow(row: BuiltRow, limits: PassLimits): PreparedRow {
  const { prompt } = row;
  if (prompt.length > (limits.maxPositions ?? Number.POSITIVE_INFINITY)) {
    throw new XpatchError(
      'CONTEXT_OVERFLOW',
      `The prompt has ${prompt.length} positions, and the model learned ${limits.maxPositions}, with none behind them. Shorten the prompt.`,
    );
  }
  const edits = (row.interventions ?? []).map((intervention) => place(intervention, prompt, limits));
  const prepared: PreparedRow = {
    id: nextRowId++,
    prompt,
    captureHook: 0,
    stateIndex: new Map(),
    logitIndex: new Map(),
    interventions: edits.flatMap(({ placed }) => placed),
    generated: edits.flatMap(({ generated }) => generated),
    topK: row.topK ?? 0,
    wantsTop: row.topK !== undefined,
  };
  // Rows of pictures are -1 among the prompt's tokens; among those of a segment it is what an encoder looked up in vain.
  if (prompt.segments.some((segment) => segment.kind === 'tokens' && segment.tokens.includes(-1))) {
    throw new XpatchError(
      'MMPROJ_INVALID',
      'The vocabulary of the model has no token that this projector puts around pictures. Take the mmproj that belongs to the model.',
    );
  }
  for (const token of prompt.tokens) {
    if (token >= limits.nVocab) {
      throw new XpatchError(
        'TOKEN_INVALID',
        `Token id ${token} is outside the vocabulary. Was the prompt built for another model?`,
      );
    }
  }
  if (row.capture) {
    const { hook = 'resid_post', layers = 'all', positions = 'all' } = row.capture === 'all' ? {} : row.capture;
    prepared.captureHook = hookIndex(hook);
    const info = {
      hook,
      layers: resolveLayers(layers, limits.nLayers),
      positions: prompt.positions(positions),
      marks: prompt.marks,
      model: limits.identity,
      prompt: prompt.record(),
    };
    const tokens = info.positions.map((p) => prompt.tokens[p] as number);
    const size = info.layers.length * info.positions.length * limits.nEmbd;
    prepared.states = new HiddenStates({ ...info, tokens }, new Float32Array(size));
    prepared.stateIndex = indexOf(info.positions);
  }
  if (row.logits !== undefined) {
    const positions = prompt.positions(row.logits);
    prepared.logits = {
      data: new Float32Array(positions.length * limits.nVocab),
      shape: [positions.length, limits.nVocab],
      positions,
    };
    prepared.logitIndex = indexOf(positions);
  }
  if (!Number.isInteger(prepared.topK) || prepared.topK < 0 || prepared.topK > limits.nVocab) {
    throw new XpatchError(
      'INVALID_ARGUMENT',
      `top-k must be a whole number from 0 to ${limits.nVocab}, not ${row.topK}.`,
    );
  }
  return prepared;
}

function indexOf(positions: number[]): Map<number, number> {
  return new Map(positions.map((position, i) => [position, i]));
}

function hookIndex(hook: HookName): number {
  const index = HOOKS.indexOf(hook);
  if (index < 0)
    throw new XpatchError('HOOK_UNSUPPORTED', `There is no hook '${hook}'; there are: ${HOOKS.join(', ')}.`);
  return index;
}

function place(intervention: Intervention, prompt: Prompt, limits: PassLimits) {
  const { hook = 'resid_post', layers, positions = 'last', op, steps = 'prompt' } = intervention;
  const index = hookIndex(hook);
  const invalid = (why: string) =>
    new XpatchError(
      'INTERVENTION_INVALID',
      `Intervention ${op} at ${layers === 'all' ? 'all layers' : `layer ${layers}`}: ${why}.`,
    );
  if (!OPS.includes(op)) throw invalid(`the operation must be one of ${OPS.join(', ')}`);
  const chosen = resolveLayers(typeof layers === 'number' ? [layers] : layers, limits.nLayers);
  const values = valuesOf(intervention, chosen.length, limits.nEmbd, invalid);
  const factors = factorsOf(intervention, chosen.length, invalid);
  const every = everyOf(steps, invalid);
  const edits = chosen.map((layer, i) => ({
    hook: index,
    layer,
    op: OPS.indexOf(op),
    factor: factors[i] as number,
    value: values?.[i],
    report: { hook, layer, op },
  }));
  const inPrompt = steps === 'prompt' || steps === 'all' ? prompt.positions(positions) : [];
  if (steps === 'all' && !inPrompt.includes(prompt.length - 1)) {
    throw invalid("steps 'all' goes on from the last position of the prompt, which is not among its positions");
  }
  if (inPrompt.length === 0 && positions !== 'last' && positions !== 'all') {
    throw invalid('generated tokens have no positions to choose from: leave them out');
  }
  return {
    placed: inPrompt.flatMap((position) =>
      edits.map(
        (edit): PlacedIntervention => ({
          ...edit,
          position,
          report: { ...edit.report, position, step: 0, delta: Number.NaN },
        }),
      ),
    ),
    generated: every ? edits.map((edit): GeneratedEdit => ({ ...edit, every })) : [],
  };
}

type Invalid = (why: string) => XpatchError;

/** Copies, one a layer: the caller may change the arrays while the pass runs. */
function valuesOf({ op, value }: Intervention, n: number, nEmbd: number, invalid: Invalid): Float32Array[] | undefined {
  const needed = op === 'replace' || op === 'add';
  if (needed && !value) throw invalid(`${op} needs a value of ${nEmbd} numbers`);
  if (!value) return undefined;
  if (!needed) throw invalid(`${op} takes no value`);
  const list = perLayer(value, n, 'values', invalid).map((numbers) => {
    if (numbers.length !== nEmbd) {
      throw invalid(`the value has ${numbers.length} numbers, this model's states have ${nEmbd}`);
    }
    const copy = Float32Array.from(numbers);
    if (copy.some((x) => !Number.isFinite(x)))
      throw invalid('the value holds NaN, infinity or a number beyond float32');
    return copy;
  });
  return list.length === n ? list : Array.from({ length: n }, () => list[0] as Float32Array);
}

function factorsOf({ op, factor }: Intervention, n: number, invalid: Invalid): number[] {
  if (factor === undefined) {
    if (op === 'scale') throw invalid('scale needs a factor');
    return Array.from({ length: n }, () => 1);
  }
  const list = perLayer(factor, n, 'factors', invalid);
  const beyond = list.find((x) => !Number.isFinite(Math.fround(x)));
  if (beyond !== undefined) throw invalid(`a factor of ${beyond} is not a number that float32 can hold`);
  if (op === 'replace' || op === 'zero') throw invalid(`a factor of ${list[0]} does not belong to it`);
  return list.length === n ? list : Array.from({ length: n }, () => list[0] as number);
}

/** One entry for all layers, or one a layer. */
function perLayer<T>(given: T | readonly T[], n: number, what: string, invalid: Invalid): T[] {
  if (!Array.isArray(given)) return [given as T];
  if (given.length !== n) throw invalid(`there are ${given.length} ${what} for ${n} layers`);
  return [...given];
}

/** Every how many generated tokens an intervention is applied; 0 for none. */
function everyOf(steps: Steps, invalid: Invalid): number {
  if (steps === 'prompt') return 0;
  if (steps === 'generated' || steps === 'all') return 1;
  const { every } = (steps ?? {}) as { every?: number };
  if (Number.isInteger(every) && (every as number) > 0) return every as number;
  throw invalid("steps are 'prompt', 'generated', 'all' or { every: n }");
}

/** The result of a prepared row, once the addon has filled its buffers. */
export function finishRow(row: PreparedRow, textOf: (token: number) => string): PassResult {
  const { prompt, states, logits, top, wantsTop } = row;
  const interventions = row.interventions.map((i) => i.report);
  const missed = interventions.find(({ delta }) => Number.isNaN(delta));
  if (missed) {
    const which = `${missed.op} at layer ${missed.layer}, position ${missed.position}`;
    throw new XpatchError('HOOK_NOT_FIRED', `The intervention ${which} was not carried out. This is a bug of xpatch.`);
  }
  return {
    prompt,
    interventions,
    ...(states && { states }),
    ...(logits && { logits }),
    ...(wantsTop && { top: top ? topScores(top, textOf) : [] }),
  };
}

function topScores(top: NonNullable<PreparedRow['top']>, textOf: (token: number) => string): TokenScore[] {
  return Array.from(top.ids, (token, i) => {
    const logit = top.logits[i] as number;
    return { token, text: textOf(token), logit, probability: Math.exp(logit - top.logsumexp) };
  });
}
