import { finalNorm } from '../lens/final-norm.js';
import type { Context, PassOptions } from '../model/context.js';
import type { HiddenStates } from '../model/hidden-states.js';
import type { PassResult, PassRow } from '../model/pass.js';
import type { Prompt } from '../prompt/prompt.js';
import {
  type ClusterScore,
  clusterScore,
  type Distances,
  distancesBetween,
  nearest,
  purities,
  silhouettes,
} from '../stats/clusters.js';
import { principalComponents, tsne } from '../stats/projection.js';
import { bootstrapInterval, type Estimate } from '../stats/statistics.js';
import { DELIMITER, type Modality, vectorPrompts } from '../tasks/prompts.js';
import { loadTask } from '../tasks/task.js';
import { XpatchError } from '../util/errors.js';
import { vectorSplit } from './decodings.js';
import { requireModalities } from './modalities.js';

/** Which prompts become points, and how. */
export interface EmbeddingOptions {
  /** At least two; names of shipped tasks, or paths of task files. */
  tasks: readonly string[];
  modalities: readonly Modality[];
  /** Of the items, the shots and the projection. Defaults to 1. */
  seed?: number;
  /** Drawing style of the pictures. Defaults to `twemoji`. */
  style?: string;
  /** Examples in a prompt; the last one is without its answer. Defaults to 5. */
  shots?: number;
  /** Points a task and modality. Defaults to 30. */
  prompts?: number;
  /** Block whose output is shown. Defaults to `defaultEmbeddingLayer`. */
  layer?: number;
}

/** A prompt as a point. */
export interface EmbeddedPrompt {
  readonly task: string;
  readonly domain: string;
  readonly modality: Modality;
  readonly seed: number;
  /** The validation item whose turn it was: prompts of one item have the same examples in every modality. */
  readonly item: string;
  /** Inputs of the examples, in order. */
  readonly examples: readonly string[];
}

/** What is measured of a labelling, `by` task or modality. */
export const MEASURES = [
  { name: 'silhouette by task', by: 'task' },
  { name: 'silhouette by modality', by: 'modality' },
  { name: 'neighbours of the same task', by: 'task' },
  { name: 'neighbours of the same modality', by: 'modality' },
  { name: 'neighbours in the other modality of the same task', by: 'task' },
] as const;
/** How well points cluster, by name. */
export type Measure = (typeof MEASURES)[number]['name'];

/** One way to make a prompt a point. */
export interface EmbeddingSpace {
  /** `context`: mean over all positions before the last delimiter; `delimiter`: the state at the last delimiter. */
  readonly of: 'context' | 'delimiter';
  readonly layer: number;
  /** One place a prompt. */
  readonly tsne: readonly (readonly [x: number, y: number])[];
  readonly pca: {
    readonly points: readonly (readonly [x: number, y: number])[];
    readonly explained: readonly [number, number];
  };
  /** Those that the modalities allow. */
  readonly scores: Readonly<Partial<Record<Measure, ClusterScore>>>;
}

/** Prompts as points, and how well they cluster by task and by modality. */
export interface EmbeddingResult {
  readonly layer: number;
  /** Neighbours that purities look at. */
  readonly neighbours: number;
  readonly prompts: readonly EmbeddedPrompt[];
  readonly spaces: readonly EmbeddingSpace[];
  /** The measures of the delimiter states at every layer. */
  readonly byLayer: Readonly<Partial<Record<Measure, readonly Estimate[]>>>;
}

/** What an embedding can be stopped with, and what it tells. */
export interface EmbeddingEvents {
  signal?: AbortSignal;
  /** `done` of `total` rises to 1 of 1 with fractions. */
  onProgress?: (progress: { done: number; total: number; stage: string }) => void;
}

/** Neighbours of a point, the usual number (fewer where there are fewer points). */
const NEIGHBOURS = 10;
/** Numbers captured at once, 64 MB. */
const CAPTURED = 1 << 24;

/** The paper's layer 23 of 36, as a share of the depth. */
export const defaultEmbeddingLayer = (nLayers: number): number => Math.floor((23 / 36) * nLayers);

/**
 * Which prompts are near each other (Luo, Darrell and Bar, "Task Vectors are Cross-Modal", 2024, the t-SNE figure): prompts of
 * several tasks in several modalities as points, (a) by their contexts and (b) by their states at the last delimiter.
 *
 * Prompts are those that task vectors are read from (`vectorPrompts`, read position `last-example`). All states pass the model's final norm,
 * position by position, before anything else; distances are Euclidean, in all dimensions. A context is the mean over all
 * positions before the last delimiter, template, examples and their answers included. Of the context there are two spaces: at layer 0, the
 * first block's output, as near to the input as states can be read, and at the layer of the delimiter states.
 *
 * @throws {XpatchError} IMAGE_UNSUPPORTED, LAYER_OUT_OF_RANGE, TASK_INVALID, INVALID_ARGUMENT, LENS_UNSUPPORTED, and as `Context.pass`.
 */
export async function runEmbedding(
  context: Context,
  options: EmbeddingOptions,
  events: EmbeddingEvents = {},
): Promise<EmbeddingResult> {
  const { nLayers } = context.model.info;
  const { tasks, modalities, seed = 1, layer = defaultEmbeddingLayer(nLayers) } = options;
  const { signal, onProgress } = events;
  requireModalities(context.model, modalities);
  if (!Number.isInteger(layer) || layer < 0 || layer >= nLayers) {
    throw new XpatchError('LAYER_OUT_OF_RANGE', `The model has layers 0 to ${nLayers - 1}, not ${String(layer)}.`);
  }
  if (new Set(tasks).size < 2) {
    throw new XpatchError('INVALID_ARGUMENT', 'Tasks are compared with each other: name at least two different ones.');
  }
  const report = (share: number, stage: string) => onProgress?.({ done: share, total: 1, stage });
  report(0, 'reading prompts');
  const drawn = await drawPrompts(context, options, signal);
  const prompts = drawn.map(({ prompt: _, ...point }) => point);
  const read = await readPoints(context, drawn, layer, {
    signal,
    onProgress: (p) => report((0.6 * p.done) / p.total, 'decoding'),
  });

  const k = Math.min(NEIGHBOURS, prompts.length / tasks.length / modalities.length - 1);
  const plan = [
    { of: 'context', layer: 0, points: read.contexts.first },
    ...(layer === 0 ? [] : [{ of: 'context' as const, layer, points: read.contexts.chosen }]),
    { of: 'delimiter', layer, points: read.delimiters[layer] as Float32Array[] },
  ] as const;
  const spaces: EmbeddingSpace[] = [];
  for (const { points, ...space } of plan) {
    const share = 0.6 + (0.3 * spaces.length) / plan.length;
    report(share, 't-SNE');
    const distances = await distancesBetween(points, { signal });
    const layout = await tsne(distances, {
      seed,
      signal,
      onProgress: (p) => report(share + ((0.3 / plan.length) * p.done) / p.total, 't-SNE'),
    });
    const scores: Partial<Record<Measure, ClusterScore>> = {};
    for (const { name, labels, score } of measures(distances, prompts, k)) {
      scores[name] = await clusterScore(labels, prompts, score, { seed, signal });
    }
    spaces.push({ ...space, tsne: layout, pca: principalComponents(distances), scores });
  }

  const byLayer: Partial<Record<Measure, Estimate[]>> = {};
  for (const [l, points] of read.delimiters.entries()) {
    report(0.9 + (0.1 * l) / nLayers, 'scores of all layers');
    const distances = await distancesBetween(points, { signal });
    for (const { name, labels, score } of measures(distances, prompts, k)) {
      const values = score(labels);
      const estimate = bootstrapInterval(prompts.map((point, i) => ({ ...point, value: values[i] as number })));
      byLayer[name] = [...(byLayer[name] ?? []), estimate];
    }
  }
  report(1, 'scores of all layers');
  return { layer, neighbours: k, prompts, spaces, byLayer };
}

type Drawn = EmbeddedPrompt & { prompt: Prompt };

async function drawPrompts(
  context: Context,
  { tasks, modalities, seed = 1, style, shots = 5, prompts: count = 30 }: EmbeddingOptions,
  signal?: AbortSignal,
): Promise<Drawn[]> {
  if (!Number.isSafeInteger(count) || count < 3) {
    throw new XpatchError('INVALID_ARGUMENT', `A cluster needs at least 3 prompts, not ${String(count)}.`);
  }
  const pictures = modalities.includes('image');
  const drawn: Drawn[] = [];
  for (const name of tasks) {
    const task = await loadTask(name, { pictures, style });
    const split = vectorSplit(task, seed, count, pictures);
    for (const modality of modalities) {
      for (const { parts, shots: examples, query } of vectorPrompts(split, modality, { shots, count })) {
        drawn.push({
          task: task.name,
          domain: task.domain,
          modality,
          seed,
          item: query?.input as string,
          examples: examples.map(({ input }) => input),
          prompt: await context.model.prompt(parts, { signal }),
        });
      }
    }
  }
  return drawn;
}

interface ReadPoints {
  /** Mean states of the contexts, at layer 0 and at the chosen layer, one a prompt. */
  contexts: { first: Float32Array[]; chosen: Float32Array[] };
  /** [layer][prompt] */
  delimiters: Float32Array[][];
}

/** In parts that fit into memory, whatever the length of the prompts. */
async function readPoints(context: Context, drawn: readonly Drawn[], layer: number, how: PassOptions) {
  const { nEmbd, nLayers } = context.model.info;
  const layers = [...new Set([0, layer])];
  const delimiters: Float32Array[][] = Array.from({ length: nLayers }, () => []);
  const points: ReadPoints = { contexts: { first: [], chosen: [] }, delimiters };
  const longest = Math.max(...drawn.map(({ prompt }) => prompt.length));
  const perPart = Math.max(1, Math.floor(CAPTURED / (nEmbd * (layers.length * longest + nLayers))));
  for (let from = 0; from < drawn.length; from += perPart) {
    const part = drawn.slice(from, from + perPart);
    const rows = part.flatMap(({ prompt }): PassRow[] => [
      { prompt, capture: { layers, positions: 'all' } },
      { prompt, capture: { layers: 'all', positions: [DELIMITER] } },
    ]);
    const results = await context.pass(rows, {
      signal: how.signal,
      onProgress: (p) => how.onProgress?.({ done: from + (part.length * p.done) / p.total, total: drawn.length }),
    });
    for (let i = 0; i < results.length; i += 2) {
      const [inContext, atDelimiter] = results.slice(i, i + 2) as [PassResult, PassResult];
      const all = await finalNorm(context, inContext, { signal: how.signal });
      const last = await finalNorm(context, atDelimiter, { signal: how.signal });
      points.contexts.first.push(meanBeforeLast(all, 0));
      points.contexts.chosen.push(meanBeforeLast(all, layers.indexOf(layer)));
      for (const [l, list] of points.delimiters.entries()) list.push(last.at(l).slice());
    }
  }
  return points;
}

/** Mean over the positions but the last, which is the delimiter. @param l index among the layers of the states */
function meanBeforeLast(states: HiddenStates, l: number): Float32Array {
  const [, nPositions, nEmbd] = states.shape;
  const sum = new Float64Array(nEmbd);
  for (let p = 0; p < nPositions - 1; p++) {
    for (const [d, x] of states.row(l, p).entries()) sum[d] = (sum[d] as number) + x;
  }
  return Float32Array.from(sum, (x) => x / (nPositions - 1));
}

/** The measures that the labels allow, ready to be taken of any labelling. */
function measures(distances: Distances, prompts: readonly EmbeddedPrompt[], k: number) {
  const modalities = prompts.map(({ modality }) => modality);
  const several = new Set(modalities).size > 1;
  const near = nearest(distances, k);
  const across = several ? nearest(distances, k, (i, j) => modalities[i] !== modalities[j]) : near;
  const scores: Record<Measure, (labels: readonly string[]) => Float64Array> = {
    'silhouette by task': (labels) => silhouettes(distances, labels),
    'silhouette by modality': (labels) => silhouettes(distances, labels),
    'neighbours of the same task': (labels) => purities(near, labels),
    'neighbours of the same modality': (labels) => purities(near, labels),
    'neighbours in the other modality of the same task': (labels) => purities(across, labels),
  };
  return MEASURES.filter(({ name }) => several || !name.includes('modality')).map(({ name, by }) => ({
    name,
    labels: prompts.map((prompt) => prompt[by]),
    score: scores[name],
  }));
}
