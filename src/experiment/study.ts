import { resolveLayers } from '../hooks/points.js';
import type { Model } from '../model/model.js';
import type { PromptPart } from '../prompt/types.js';
import { rivalAnswers, rivalTask } from '../tasks/conflict.js';
import { promptFormat } from '../tasks/model-format.js';
import { swapLetters } from '../tasks/noise.js';
import type { PromptContent, PromptFormat } from '../tasks/prompt-format.js';
import { baselineShots, type Modality, requireInstruction } from '../tasks/prompts.js';
import { splitTask, type TaskSplit } from '../tasks/split.js';
import { loadTask, type Task, type TaskItem } from '../tasks/task.js';
import { XpatchError } from '../util/errors.js';
import { requireExperiment } from './rules.js';
import type { Condition, Experiment, QueryKey, VectorKind } from './types.js';

/** One task under one seed. */
export interface Cell {
  readonly split: TaskSplit;
  /** The question of another task about the same items, and its answers by input; if a condition asks it. */
  readonly rival?: { readonly question: string; readonly answers: ReadonlyMap<string, string> };
}

/** An experiment with its tasks loaded, checked against a model. */
export interface Study {
  readonly experiment: Experiment;
  readonly format: PromptFormat;
  /** See `loadCells`. */
  readonly cells: readonly Cell[];
  /** Where patches of the test are written; undefined while validation has yet to choose. */
  readonly layers?: readonly number[];
}

/**
 * Loads what an experiment needs and refuses one that cannot run, before any pass.
 *
 * @param hasVectors whether all vectors of the other model are there already, so that it is not needed
 * @throws {XpatchError} CONFIG_INVALID, INVALID_ARGUMENT, TASK_INVALID, FILE_NOT_FOUND, IMAGE_UNSUPPORTED, VECTOR_MISMATCH,
 *   LAYER_OUT_OF_RANGE
 */
export async function prepareStudy(
  model: Model,
  experiment: Experiment,
  foreign?: Model,
  hasVectors = false,
): Promise<Study> {
  requireExperiment(experiment);
  requireModel(model, experiment);
  if (!hasVectors) requireForeign(model, experiment, foreign);
  const format = await promptFormat(model, experiment.template);
  const cells = await loadCells(experiment);
  const hasPatches = experiment.conditions.some(({ kind }) => kind === 'patch');
  if (!hasPatches) return { experiment, format, cells, layers: [] };
  for (const { layers: own } of experiment.conditions) if (own) resolveLayers(own, model.info.nLayers);
  const { layers } = experiment;
  if (layers !== 'validation') return { experiment, format, cells, layers: resolveLayers(layers, model.info.nLayers) };
  const chosen = experiment.conditions.filter(choosesLayer).map(kindOf);
  const without = experiment.conditions.find(
    (condition) => condition.kind === 'patch' && condition.layers === undefined && !chosen.includes(kindOf(condition)),
  );
  if (without) {
    const vectors = kindOf(without) === 'task' ? '' : ` of ${kindOf(without)} vectors`;
    throw invalid(
      'layers',
      `validation needs a patch condition${vectors} that has no control and is not foreign; name the layers instead`,
    );
  }
  return { experiment, format, cells };
}

/** Whether a condition's validation accuracy counts in the choice of the layer: only unaltered own vectors do. */
export function choosesLayer({ kind, control, foreign, layers }: Condition): boolean {
  return kind === 'patch' && control === undefined && foreign !== true && layers === undefined;
}

export function kindOf({ vector = 'task' }: Condition): VectorKind {
  return vector;
}

/** Where conditions are written in the test, by their names. @param chosen the layer of a kind of vector, where validation chooses it */
export function layersOf(
  { experiment, layers }: Pick<Study, 'experiment' | 'layers'>,
  chosen: (kind: VectorKind) => number,
): Record<string, readonly number[]> {
  const patches = experiment.conditions.filter(({ kind }) => kind === 'patch');
  return Object.fromEntries(patches.map((one) => [one.name, one.layers ?? layers ?? [chosen(kindOf(one))]]));
}

/** Conditions that answer the queries of a stage. Validation asks only what the choice of the layer needs. */
export function conditionsOf({ experiment }: Pick<Study, 'experiment'>, stage: QueryKey['stage']): Condition[] {
  const { conditions } = experiment;
  if (stage === 'test') return [...conditions];
  if (experiment.layers !== 'validation') return [];
  return conditions.filter(choosesLayer);
}

/** Items of a stage. */
export function itemsOf({ split }: Cell, stage: QueryKey['stage']): readonly TaskItem[] {
  return stage === 'test' ? split.test : split.validation;
}

/** The text of an instruction, with letters swapped if asked for. */
export function instructionOf({ task, seed }: TaskSplit, swaps = 0): string {
  return swapLetters(requireInstruction(task), swaps, seed);
}

/** The different prompts that conditions ask about an item; what shares a prompt can be asked together. */
export function groupByPrompt(
  study: Study,
  cell: Cell,
  stage: QueryKey['stage'],
  conditions: readonly Condition[],
  item: TaskItem,
): { parts: PromptPart[]; conditions: Condition[] }[] {
  const groups = new Map<string, { parts: PromptPart[]; conditions: Condition[] }>();
  for (const condition of conditions) {
    if (condition.kind === 'majority') continue;
    const parts = study.format.write(contentOf(study, cell, condition, item, stage));
    const key = JSON.stringify(parts);
    const group = groups.get(key) ?? { parts, conditions: [] };
    group.conditions.push(condition);
    groups.set(key, group);
  }
  return [...groups.values()];
}

/** What the prompt of a query holds. The shots of a Prompt baseline are other items of the same stage. */
function contentOf(
  { experiment }: Study,
  { split, rival }: Cell,
  condition: Condition,
  item: TaskItem,
  stage: QueryKey['stage'],
): PromptContent {
  const { before, question, spec } = condition;
  const bare: PromptContent = {
    ...(before !== undefined && {
      // A function: `$&` in an instruction means nothing.
      before: before.replaceAll('{instruction}', () => requireInstruction(split.task)),
    }),
    query: item,
    queryModality: condition.query ?? experiment.query,
    ...(question !== undefined && { question: question.replaceAll('{rival}', () => rival?.question ?? '') }),
  };
  if (condition.kind !== 'prompt') return bare;
  if (spec === 'instruction') return { ...bare, instruction: instructionOf(split, condition.swaps) };
  const pool = stage === 'test' ? split : { ...split, test: split.validation };
  return { ...bare, shots: baselineShots(pool, item, experiment.shots), shotModality: spec as Modality };
}

function invalid(field: string, why: string): XpatchError {
  return new XpatchError('CONFIG_INVALID', `${field}: ${why}.`);
}

function requireModel(model: Model, experiment: Experiment): void {
  const { conditions } = experiment;
  const asked = conditions.find(({ kind, query }) => kind !== 'majority' && (query ?? experiment.query) === 'image');
  const seeing = asked ?? conditions.find(({ spec, foreign }) => spec === 'image' && !foreign);
  if (seeing && !model.hasVision) {
    const message = `Condition ${JSON.stringify(seeing.name)} shows pictures, but the model has no picture encoder`;
    throw new XpatchError('IMAGE_UNSUPPORTED', `${message}: give --mmproj, or leave out image conditions and queries.`);
  }
}

function requireForeign(model: Model, { conditions }: Experiment, foreign: Model | undefined): void {
  const borrowing = conditions.filter((condition) => condition.foreign);
  const [first] = borrowing;
  if (!first) return;
  if (!foreign)
    throw invalid('vectorModel', `condition ${JSON.stringify(first.name)} takes vectors of another model; name it`);
  const [a, b] = [model.info, foreign.info];
  if (a.nEmbd !== b.nEmbd || a.nLayers !== b.nLayers) {
    const problem = `${b.nLayers} layers of width ${b.nEmbd}, the model ${a.nLayers} of width ${a.nEmbd}`;
    throw new XpatchError('VECTOR_MISMATCH', `vectorModel: it has ${problem}. Use a model of equal shape.`);
  }
  const blind = borrowing.find(({ spec }) => spec === 'image');
  if (blind && !foreign.hasVision) {
    const message = `Condition ${JSON.stringify(blind.name)} needs vectors of pictures`;
    throw new XpatchError('IMAGE_UNSUPPORTED', `${message}, but vectorModel has no picture encoder. Use spec: text.`);
  }
}

/** Whether the pictures of the tasks take part: then only items that have one do. */
export function usesPictures({ conditions, query: common }: Experiment): boolean {
  return conditions.some(({ query, spec }) => (query ?? common) === 'image' || spec === 'image');
}

/**
 * The tasks of an experiment under its seeds, ordered by seed, then by task.
 * @throws {XpatchError} CONFIG_INVALID, TASK_INVALID, FILE_NOT_FOUND
 */
export async function loadCells(experiment: Experiment): Promise<Cell[]> {
  const { conditions, style, validation, test, shots } = experiment;
  const pictures = usesPictures(experiment);
  const takesShots = conditions.some(({ kind, spec }) => kind === 'prompt' && spec !== 'instruction');
  const makesVectors = conditions.some(
    ({ kind, spec }) => kind === 'patch' && spec !== undefined && spec !== 'instruction',
  );
  const loaded: { task: Task; rival?: Cell['rival'] }[] = [];
  for (const source of experiment.tasks) {
    const task = await loadTask(source, { pictures, style });
    const twin = loaded.find((other) => other.task.name === task.name);
    if (twin) throw invalid('tasks', `${twin.task.file} and ${task.file} have the same name; rename one`);
    requireInstructions(task, conditions, experiment.seeds);
    loaded.push({ task, rival: await loadRival(task, conditions) });
  }
  return experiment.seeds.flatMap((seed) =>
    loaded.map(({ task, rival }): Cell => {
      const split = splitTask(task, seed, { pictures, validation, test });
      const short = (n: number, kind: string, why: string) =>
        new XpatchError(
          'TASK_INVALID',
          `Task ${task.name} has ${n} ${kind} items, too few ${why}. Ask for fewer, or add items.`,
        );
      if (split.test.length === 0) throw short(0, 'test', `after ${validation} for validation`);
      if (takesShots && split.test.length <= shots)
        throw short(split.test.length, 'test', `to draw ${shots} shots from`);
      if ((takesShots || makesVectors) && validation <= shots)
        throw short(validation, 'validation', `to draw ${shots} shots from`);
      return { split, ...(rival && { rival }) };
    }),
  );
}

/** Fails early if an instruction is missing, or too short for the swaps. */
function requireInstructions(task: Task, conditions: readonly Condition[], seeds: readonly number[]): void {
  for (const { spec, swaps, before } of conditions) {
    if (before?.includes('{instruction}')) requireInstruction(task);
    if (spec !== 'instruction' && spec !== 'ensemble') continue;
    for (const seed of seeds) swapLetters(requireInstruction(task), swaps ?? 0, seed);
  }
}

async function loadRival(task: Task, conditions: readonly Condition[]): Promise<Cell['rival']> {
  if (!conditions.some(({ question }) => question?.includes('{rival}'))) return undefined;
  const rival = await rivalTask(task);
  return { question: rival.question ?? '', answers: rivalAnswers(task, rival) };
}
