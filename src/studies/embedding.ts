import { finalNorm } from '../lens/final-norm.js';
import type { Context, PassOptions } from '../model/context.js';
import type { HiddenStates } from '../model/hidden-states.js';
import type { Model } from '../model/model.js';
import type { PassResult, PassRow } from '../model/pass.js';
import type { Segment } from '../prompt/prompt.js';
import type { PromptPart } from '../prompt/types.js';
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
import { promptFormat } from '../tasks/model-format.js';
import type { PromptFormat } from '../tasks/prompt-format.js';
import { DELIMITER, type Modality, vectorPrompts } from '../tasks/prompts.js';
import { loadTask } from '../tasks/task.js';
import { XpatchError } from '../util/errors.js';
import { SafetensorsFile, writeSafetensors } from '../util/safetensors.js';
import { vectorSplit } from './decodings.js';
import { requireModalities } from './modalities.js';
import { requireSeeds, runStudy, type Study, type StudyEvents, type TaskPromptOptions, type Unit } from './study.js';

/** Which prompts become points, and how. */
export interface EmbeddingOptions extends TaskPromptOptions {
  modalities: readonly Modality[];
  /** Points for each task, modality and seed. Defaults to 30. */
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

/** What a part of an embedding leaves: prompts that were read, or what came of all of them. */
export interface EmbeddingPart extends Partial<EmbeddingResult> {
  /** Name of the states of its prompts among the vectors of the run. */
  readonly vector?: string;
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
  events: StudyEvents<EmbeddingPart> = {},
): Promise<EmbeddingResult> {
  return embeddingOf(await runStudy(embeddingUnits, context, options, events));
}

/** The result that the parts of an embedding make. */
export function embeddingOf(parts: readonly EmbeddingPart[]): EmbeddingResult {
  const { layer = 0, neighbours = 0, spaces = [], byLayer = {} } = parts.at(-1) ?? {};
  return { layer, neighbours, prompts: promptsOf(parts), spaces, byLayer };
}

const promptsOf = (parts: readonly EmbeddingPart[]) => parts.flatMap(({ prompts = [] }) => prompts);

/** Prompts are read in parts that fit into memory; the last part makes points of all of them. */
export const embeddingUnits: Study<EmbeddingOptions, EmbeddingPart> = async (context, options) => {
  const { nLayers, nEmbd } = context.model.info;
  const { tasks, modalities, layer = defaultEmbeddingLayer(nLayers) } = options;
  requireModalities(context.model, modalities);
  if (!Number.isInteger(layer) || layer < 0 || layer >= nLayers) {
    throw new XpatchError('LAYER_OUT_OF_RANGE', `The model has layers 0 to ${nLayers - 1}, not ${String(layer)}.`);
  }
  if (new Set(tasks).size < 2) {
    throw new XpatchError('INVALID_ARGUMENT', 'Tasks are compared with each other: name at least two.');
  }
  const drawn = await drawPrompts(options, await promptFormat(context.model, options.template));
  const longest = await longestOf(context.model, drawn);
  const perPart = Math.max(1, Math.floor(CAPTURED / (nEmbd * (new Set([0, layer]).size * longest + nLayers))));
  const parts = Array.from({ length: Math.ceil(drawn.length / perPart) }, (_, i) =>
    drawn.slice(i * perPart, (i + 1) * perPart),
  );
  const nameOf = (part: number) => `prompts-${part + 1}`;
  return [
    ...parts.map(
      (part, i): Unit<EmbeddingPart> => ({
        name: `reading prompts, part ${i + 1} of ${parts.length}`,
        run: async (_, { store, signal, onProgress }) => {
          const points = await readPoints(context, part, layer, {
            signal,
            onProgress: ({ done, total }) => onProgress(done / total),
          });
          await store.saveVector(nameOf(i), points);
          return { prompts: part.map(({ parts: _, ...prompt }) => prompt), vector: nameOf(i) };
        },
      }),
    ),
    {
      name: 't-SNE and scores',
      run: async (before, { store, signal, onProgress }) => {
        const read: Points['spaces'][] = [];
        for (const i of parts.keys()) read.push((await store.load(nameOf(i), Points.load))?.spaces ?? []);
        const spaces = (read[0] ?? []).map((_, s) => read.flatMap((one) => one[s] ?? []));
        return clusterPoints(spaces, promptsOf(before), { ...options, layer }, signal, onProgress);
      },
    },
  ];
};

/** Two-dimensional places and scores of the points in all spaces. */
async function clusterPoints(
  [first = [], chosen = [], ...delimiters]: readonly Float32Array[][],
  prompts: readonly EmbeddedPrompt[],
  { tasks, modalities, seeds: [seed = 1] = [], layer }: EmbeddingOptions & { layer: number },
  signal: AbortSignal | undefined,
  report: (share: number) => void,
): Promise<EmbeddingPart> {
  const k = Math.min(NEIGHBOURS, prompts.length / tasks.length / modalities.length - 1);
  const plan = [
    { of: 'context', layer: 0, points: first },
    ...(layer === 0 ? [] : [{ of: 'context' as const, layer, points: chosen }]),
    { of: 'delimiter', layer, points: delimiters[layer] as Float32Array[] },
  ] as const;
  const spaces: EmbeddingSpace[] = [];
  for (const { points, ...space } of plan) {
    const share = (0.75 * spaces.length) / plan.length;
    const distances = await distancesBetween(points, { signal });
    const layout = await tsne(distances, {
      seed,
      signal,
      onProgress: (p) => report(share + ((0.75 / plan.length) * p.done) / p.total),
    });
    const scores: Partial<Record<Measure, ClusterScore>> = {};
    for (const { name, labels, observed, score } of measures(distances, prompts, k)) {
      scores[name] = await clusterScore(labels, observed, score, { seed, signal });
    }
    spaces.push({ ...space, tsne: layout, pca: principalComponents(distances), scores });
  }
  const byLayer: Partial<Record<Measure, Estimate[]>> = {};
  for (const [l, points] of delimiters.entries()) {
    report(0.75 + (0.25 * l) / delimiters.length);
    const distances = await distancesBetween(points, { signal });
    for (const { name, labels, observed, score } of measures(distances, prompts, k)) {
      const values = score(labels);
      const estimate = bootstrapInterval(observed.map((point, i) => ({ ...point, value: values[i] as number })));
      byLayer[name] = [...(byLayer[name] ?? []), estimate];
    }
  }
  return { layer, neighbours: k, spaces, byLayer };
}

type Drawn = EmbeddedPrompt & { parts: readonly PromptPart[] };

async function drawPrompts(options: EmbeddingOptions, format: PromptFormat): Promise<Drawn[]> {
  const { tasks, modalities, seeds = [1], style, shots = 5, prompts: count = 30 } = options;
  if (!Number.isSafeInteger(count) || count < 3) {
    throw new XpatchError('INVALID_ARGUMENT', `A cluster needs at least 3 prompts, not ${String(count)}.`);
  }
  requireSeeds(seeds);
  const pictures = modalities.includes('image');
  const drawn: Drawn[] = [];
  for (const name of tasks) {
    const task = await loadTask(name, { pictures, style });
    for (const [seed, modality] of seeds.flatMap((one) => modalities.map((other) => [one, other] as const))) {
      const split = vectorSplit(task, seed, count, pictures);
      for (const { parts, shots: examples, query } of vectorPrompts(split, modality, { shots, count, format })) {
        drawn.push({
          task: task.name,
          domain: task.domain,
          modality,
          seed,
          item: query?.input as string,
          examples: examples.map(({ input }) => input),
          parts,
        });
      }
    }
  }
  return drawn;
}

/** Positions of the longest prompt; no picture is encoded. */
async function longestOf(model: Model, drawn: readonly Drawn[]): Promise<number> {
  const layouts = new Map<unknown, Promise<Segment[]>>();
  let longest = 0;
  for (const { parts } of drawn) {
    const prompt = await model.assemble(parts, (image) => {
      const layout = layouts.get(image) ?? model.layoutOf(image);
      layouts.set(image, layout);
      return layout;
    });
    longest = Math.max(longest, prompt.length);
  }
  return longest;
}

/** Prompts as points: in the contexts' spaces at layer 0 and at the chosen layer, then in those of the delimiters at every layer. */
class Points {
  /** @param spaces [space][prompt] */
  constructor(readonly spaces: readonly (readonly Float32Array[])[]) {}

  /** As safetensors: one tensor F32 [spaces, prompts, n_embd]. */
  async save(path: string): Promise<void> {
    const rows = this.spaces.flat();
    const { length: width = 0 } = rows[0] ?? [];
    const data = new Float32Array(rows.length * width);
    for (const [i, row] of rows.entries()) data.set(row, i * width);
    const { length } = this.spaces;
    await writeSafetensors(path, { points: { data, shape: [length, rows.length / length, width] } });
  }

  static async load(path: string): Promise<Points> {
    await using file = await SafetensorsFile.open(path);
    const data = await file.readFloat32('points');
    const [spaces = 0, count = 0, width = 0] = file.tensors.get('points')?.shape ?? [];
    const row = (i: number) => data.subarray(i * width, (i + 1) * width);
    return new Points(
      Array.from({ length: spaces }, (_, s) => Array.from({ length: count }, (_, p) => row(s * count + p))),
    );
  }
}

async function readPoints(
  context: Context,
  drawn: readonly Drawn[],
  layer: number,
  { signal, onProgress }: PassOptions,
): Promise<Points> {
  const layers = [...new Set([0, layer])];
  const rows: PassRow[] = [];
  for (const { parts } of drawn) {
    const prompt = await context.model.prompt(parts, { signal });
    rows.push({ prompt, capture: { layers, positions: 'all' } });
    rows.push({ prompt, capture: { layers: 'all', positions: [DELIMITER] } });
  }
  const results = await context.pass(rows, { signal, onProgress });
  const spaces: Float32Array[][] = Array.from({ length: 2 + context.model.info.nLayers }, () => []);
  for (let i = 0; i < results.length; i += 2) {
    const [inContext, atDelimiter] = results.slice(i, i + 2) as [PassResult, PassResult];
    const all = await finalNorm(context, inContext, { signal });
    const last = await finalNorm(context, atDelimiter, { signal });
    const delimiters = last.layers.map((_, l) => last.at(l).slice());
    const points = [meanBeforeLast(all, 0), meanBeforeLast(all, layers.indexOf(layer)), ...delimiters];
    for (const [s, point] of points.entries()) spaces[s]?.push(point);
  }
  return new Points(spaces);
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
    // A purity is a share; a silhouette lies from -1 to 1.
    observed: prompts.map((prompt) => ({ ...prompt, share: name.startsWith('neighbours') })),
    score: scores[name],
  }));
}
