import { type GeneratedEdit, type PlacedIntervention, placeEdge, placeIntervention } from '../hooks/place.js';
import { type HookPoints, requireHookName } from '../hooks/points.js';
import { partOf, type RowPart } from '../hooks/rows.js';
import type { Edge, HookName, Intervention, InterventionReport, LayerSelection } from '../hooks/types.js';
import { Prompt, type PromptInput } from '../prompt/prompt.js';
import type { PositionSelection, PromptPart } from '../prompt/types.js';
import { XpatchError } from '../util/errors.js';
import { largest } from '../util/extremes.js';
import { HiddenStates } from './hidden-states.js';
import type { ModelIdentity, TokenScore } from './types.js';

/** Which hidden states are wanted: `all` is `resid_post` of every layer at every position. */
export type Capture =
  | 'all'
  | {
      /** Defaults to `resid_post`. */
      readonly hook?: HookName;
      /** Defaults to `all`. */
      readonly layers?: LayerSelection;
      /** At points that have heads. Defaults to all of them. */
      readonly heads?: readonly number[];
      /** Defaults to `all`. */
      readonly positions?: PositionSelection;
    };

/** One row of a pass: a prompt, what is done to its hidden states, and what comes back. */
export interface PassRow {
  /** Text, parts or a built `Prompt`. */
  readonly prompt: PromptInput;
  /** Applied in order. Other rows are not affected. Defaults to none. */
  readonly interventions?: readonly Intervention[];
  /** Attention to knock out, whatever interventions do to its scores. Defaults to none. */
  readonly edges?: readonly Edge[];
  /** Hidden states to return, as later parts see them (after interventions). Defaults to none. */
  readonly capture?: Capture;
  /** The same at several points. Defaults to none. */
  readonly captures?: readonly Capture[];
  /** Positions whose logits are returned. Defaults to none. */
  readonly logits?: PositionSelection;
  /** How many of the best next tokens to return for the last position. Defaults to 0. */
  readonly topK?: number;
}

/** A row, or just its prompt. */
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
  /** In the order of `captures`. */
  captured: HiddenStates[];
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

/** The result of a row: `states`, `captured`, `logits` and `top` if `capture`, `captures`, `logits` and `topK` asked for them. */
export type PassResult<Row = PassRow> = {
  /** The prompt as it was read. */
  prompt: Prompt;
  /** One entry for each state that an edge or an intervention edited. */
  interventions: InterventionReport[];
} & Answer<Row, 'capture', 'states'> &
  Answer<Row, 'captures', 'captured'> &
  Answer<Row, 'logits', 'logits'> &
  Answer<Row, 'topK', 'top'>;

/** Sizes of the model that rows are checked against. */
export interface PassLimits {
  nVocab: number;
  points: HookPoints;
  /** Standard deviation of the embeddings, where a row has noise. */
  deviation: number;
  identity: ModelIdentity;
  /** Positions that the model has embeddings for, if it learned them. */
  maxPositions?: number;
}

/** States that a row wants of one point. */
export interface Read {
  states: HiddenStates;
  /** One a layer of the states. */
  parts: readonly RowPart[];
  /** Position in the prompt -> index in `states.positions`. */
  index: Map<number, number>;
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
  /** Those of `capture` first, then those of `captures`. */
  reads: Read[];
  /** Whether `capture` asked for the first of them; the others are of `captures`. */
  single: boolean;
  several: boolean;
  /** Whether attention scores or patterns are read or changed. */
  attends: boolean;
  logits?: Logits;
  /** Position in the prompt -> index in `logits.positions`. */
  logitIndex: Map<number, number>;
  topK: number;
  /** Whether the row itself asked for the best tokens. */
  wantsTop: boolean;
  top?: { ids: Int32Array; logits: Float32Array; logsumexp: number };
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
      `The prompt has ${prompt.length} positions, and the model's learned position table ends at ${limits.maxPositions}. Shorten the prompt.`,
    );
  }
  const { points, deviation } = limits;
  const edits = [
    ...(row.interventions ?? []).map((intervention) => placeIntervention(intervention, prompt, points, deviation)),
    ...(row.edges ?? []).map((edge) => placeEdge(edge, prompt, points)), // last: a cut holds, whatever the scores
  ];
  const placed = edits.flatMap((edit) => edit.placed);
  const generated = edits.flatMap((edit) => edit.generated);
  const captures = [...(row.capture === undefined ? [] : [row.capture]), ...(row.captures ?? [])];
  const reads = captures.map((capture) => prepareRead(capture, prompt, limits));
  const prepared: PreparedRow = {
    id: nextRowId++,
    prompt,
    reads,
    single: row.capture !== undefined,
    several: row.captures !== undefined,
    attends: [...placed, ...generated, ...reads.flatMap(({ parts }) => parts)].some(({ keys }) => keys > 0),
    logitIndex: new Map(),
    interventions: placed,
    generated,
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

/** How many blocks must be computed for what rows ask for; undefined: all of them. */
export function blocksOf(rows: readonly PreparedRow[]): number | undefined {
  if (rows.some(({ logits, topK }) => logits || topK > 0)) return undefined;
  const layers = rows.flatMap(({ reads, interventions }) => [
    ...reads.flatMap(({ states }) => states.layers),
    ...interventions.map(({ layer }) => layer),
  ]);
  return layers.length ? largest(layers) + 1 : undefined;
}

function indexOf(positions: number[]): Map<number, number> {
  return new Map(positions.map((position, i) => [position, i]));
}

function prepareRead(capture: Capture, prompt: Prompt, { points, identity }: PassLimits): Read {
  const {
    hook = 'resid_post',
    layers: selection = 'all',
    heads,
    positions: where = 'all',
  } = capture === 'all' ? {} : capture;
  requireHookName(hook);
  const layers = points.layers(hook, selection);
  const positions = prompt.positions(where);
  const parts = layers.map((layer) => partOf(points, hook, layer, { heads, nPositions: prompt.length }));
  const [first] = parts as [(typeof parts)[0]];
  const other = parts.find(({ width, heads: own }) => width !== first.width || own?.length !== first.heads?.length);
  if (other) {
    const problem = `'${hook}' has ${first.width} numbers at layer ${first.layer} and ${other.width} at layer ${other.layer}`;
    throw new XpatchError('INVALID_ARGUMENT', `${problem}. Capture layers of the same shape together.`);
  }
  const info = {
    hook,
    layers,
    heads: first.heads,
    positions,
    tokens: positions.map((p) => prompt.tokens[p] as number),
    marks: prompt.marks,
    model: identity,
    prompt: prompt.record(),
  };
  const data = new Float32Array(layers.length * positions.length * first.width);
  return { states: new HiddenStates(info, data), parts, index: indexOf(positions) };
}

/** The result of a prepared row, once the addon has filled its buffers. */
export function finishRow(row: PreparedRow, textOf: (token: number) => string): PassResult {
  const { prompt, reads, single, several, logits, top, wantsTop } = row;
  const states = reads.map((read) => read.states);
  const interventions = row.interventions.map((i) => i.report);
  const missed = interventions.find(({ delta }) => Number.isNaN(delta));
  if (missed) {
    const which = `${missed.op} at layer ${missed.layer}, position ${missed.position}`;
    throw new XpatchError('HOOK_NOT_FIRED', `The intervention ${which} was not carried out. This is a bug of xpatch.`);
  }
  return {
    prompt,
    interventions,
    ...(single && { states: states[0] as HiddenStates }),
    ...(several && { captured: states.slice(Number(single)) }),
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
