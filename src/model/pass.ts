import { Prompt } from '../prompt/prompt.js';
import type { PositionSelection } from '../prompt/types.js';
import { XpatchError } from '../util/errors.js';
import {
  type HiddenStates,
  HOOKS,
  type HookName,
  type Intervention,
  type InterventionReport,
  type LayerSelection,
  OPS,
  type TokenScore,
} from './types.js';

/** One row of a pass: a prompt, what is done to its hidden states, and what comes back. */
export interface PassRow {
  prompt: Prompt;
  /** Applied in their order. Other rows are not affected. Defaults to none. */
  interventions?: readonly Intervention[];
  /** Hidden states to return, as the later blocks see them (after interventions). Defaults to none. */
  capture?: { hook?: HookName; layers: LayerSelection; positions: PositionSelection };
  /** Positions whose logits are returned. Defaults to none. */
  logits?: PositionSelection;
  /** How many of the best next tokens to return for the last position. Defaults to 0. */
  topK?: number;
}

export interface PassResult {
  states?: HiddenStates;
  /** `data[p * nVocab + token]`, raw logits. */
  logits?: { data: Float32Array; shape: [positions: number, nVocab: number]; positions: number[] };
  /** The best next tokens after the last position, best first. */
  top?: TokenScore[];
  /** One entry for each intervention and position. */
  interventions: InterventionReport[];
}

/** Sizes of the model that rows are checked against. */
export interface PassLimits {
  nLayers: number;
  nEmbd: number;
  nVocab: number;
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

/** A row whose references are resolved and whose result buffers are made. */
export interface PreparedRow {
  /** Distinct within the process. */
  id: number;
  prompt: Prompt;
  interventions: PlacedIntervention[];
  captureHook: number;
  states?: HiddenStates;
  /** Position in the prompt -> index in `states.positions`. */
  stateIndex: Map<number, number>;
  logits?: NonNullable<PassResult['logits']>;
  /** Position in the prompt -> index in `logits.positions`. */
  logitIndex: Map<number, number>;
  topK: number;
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

/** The prompt of a row. @throws XpatchError INVALID_ARGUMENT for anything else. */
export function promptOf(row: PassRow): Prompt {
  if (row?.prompt instanceof Prompt) return row.prompt;
  throw new XpatchError('INVALID_ARGUMENT', 'A row needs a prompt: give it `prompt: await model.prompt(...)`.');
}

/** Checks a row and makes the buffers that the addon writes into. */
export function prepareRow(row: PassRow, limits: PassLimits): PreparedRow {
  const prompt = promptOf(row);
  const prepared: PreparedRow = {
    id: nextRowId++,
    prompt,
    captureHook: 0,
    stateIndex: new Map(),
    logitIndex: new Map(),
    interventions: (row.interventions ?? []).flatMap((intervention) => place(intervention, prompt, limits)),
    topK: row.topK ?? 0,
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
    const { hook = 'resid_post' } = row.capture;
    prepared.captureHook = hookIndex(hook);
    const layers = resolveLayers(row.capture.layers, limits.nLayers);
    const positions = prompt.positions(row.capture.positions);
    if (positions.length === 0) throw new XpatchError('INVALID_ARGUMENT', 'No positions were given to capture.');
    prepared.states = {
      hook,
      data: new Float32Array(layers.length * positions.length * limits.nEmbd),
      shape: [layers.length, positions.length, limits.nEmbd],
      layers,
      positions,
      tokens: positions.map((p) => prompt.tokens[p] as number),
    };
    prepared.stateIndex = indexOf(positions);
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
      `topK must be a whole number from 0 to ${limits.nVocab}, not ${row.topK}.`,
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

function place(intervention: Intervention, prompt: Prompt, limits: PassLimits): PlacedIntervention[] {
  const { hook, layer, op, value, factor } = intervention;
  const index = hookIndex(hook);
  checkLayer(layer, limits.nLayers);
  const invalid = (why: string) =>
    new XpatchError('INTERVENTION_INVALID', `Intervention ${op} at layer ${layer}: ${why}.`);
  if (!OPS.includes(op)) throw invalid(`the operation must be one of ${OPS.join(', ')}`);
  const needsValue = op === 'replace' || op === 'add';
  if (needsValue && !value) throw invalid(`${op} needs a value of ${limits.nEmbd} numbers`);
  if (!needsValue && value) throw invalid(`${op} takes no value`);
  if (value && value.length !== limits.nEmbd) {
    throw invalid(`the value has ${value.length} numbers, this model's states have ${limits.nEmbd}`);
  }
  if (value?.some((x) => !Number.isFinite(x))) throw invalid('the value holds NaN or infinity');
  if (op === 'scale' && factor === undefined) throw invalid('scale needs a factor');
  if (factor !== undefined && (!Number.isFinite(factor) || op === 'replace' || op === 'zero')) {
    throw invalid(`a factor of ${factor} does not belong to it`);
  }
  const refs = Array.isArray(intervention.positions) ? intervention.positions : [intervention.positions];
  const positions = prompt.positions(refs);
  if (positions.length === 0) throw invalid('it names no position');
  return positions.map((position) => ({
    hook: index,
    layer,
    position,
    op: OPS.indexOf(op),
    factor: factor ?? 1,
    // A copy: the caller may change the array while the pass runs.
    value: value && Float32Array.from(value),
    report: { hook, layer, position, op, delta: 0 },
  }));
}

/** The result of a prepared row, once the addon has filled its buffers. */
export function finishRow(row: PreparedRow, textOf: (token: number) => string): PassResult {
  const result: PassResult = { interventions: row.interventions.map((i) => i.report) };
  if (row.states) result.states = row.states;
  if (row.logits) result.logits = row.logits;
  if (row.top) result.top = topScores(row.top, textOf);
  return result;
}

function topScores(top: NonNullable<PreparedRow['top']>, textOf: (token: number) => string): TokenScore[] {
  return Array.from(top.ids, (token, i) => {
    const logit = top.logits[i] as number;
    return { token, text: textOf(token), logit, probability: Math.exp(logit - top.logsumexp) };
  });
}
