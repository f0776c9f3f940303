import { logitLens } from '../lens/logit-lens.js';
import type { Context } from '../model/context.js';
import type { TokenScore } from '../model/types.js';
import { promptFormat } from '../tasks/model-format.js';
import type { TaskSpec } from '../tasks/prompts.js';
import { splitTask, type TaskSplit } from '../tasks/split.js';
import { listTasks, loadTask, type Task } from '../tasks/task.js';
import type { PromptTemplate } from '../tasks/template.js';
import { taskTokens } from '../tasks/token-classes.js';
import { extractTaskVector } from '../vectors/extract.js';
import { lastPosition } from '../vectors/last-position.js';
import { TaskVector } from '../vectors/task-vector.js';
import { requireModalities } from './modalities.js';
import { requireSeeds, runStudy, type Study, type StudyEvents, type TaskPromptOptions, type Unit } from './study.js';

/** Which task vectors are decoded. */
export interface DecodingOptions extends TaskPromptOptions {
  specs: readonly TaskSpec[];
  /** Prompts whose mean is a vector, for each seed. Defaults to 30. */
  prompts?: number;
  /** Best tokens of each layer. Defaults to 5. */
  topK?: number;
}

/** Vectors that are decoded in place of those of tasks. */
export interface SavedVectorOptions {
  /** Files of task vectors, or of captures, whose last position is taken. */
  vectors: readonly string[];
  /** Best tokens of each layer. Defaults to 5. */
  topK?: number;
}

/** What a vector says at one layer. */
export interface DecodedLayer {
  readonly layer: number;
  /** Best first. */
  readonly top: readonly TokenScore[];
  /** Rank of the best token of the task word (`wordTokens`), 0 for the best of the vocabulary; undefined where it is no token. */
  readonly wordRank?: number;
  /** Rank of the best first token of any answer of the task (`firstTokens`); undefined for an unknown task. */
  readonly answerRank?: number;
}

/** The words that one task vector decodes into, layer by layer. */
export interface Decoding {
  /** Name of the task; undefined for a vector of none. */
  readonly task?: string;
  readonly spec?: TaskSpec;
  /** Of its items and examples; undefined for an instruction, which has none. */
  readonly seed?: number;
  /** Its name among the vectors of the run, when it was made there. */
  readonly vector?: string;
  /** Path of the vector when it was loaded. */
  readonly file?: string;
  readonly taskWord?: string;
  /** Number of first tokens of answers: with many of them a low `answerRank` comes easily. */
  readonly answerTokens: number;
  /** All layers of the vector, rising. */
  readonly layers: readonly DecodedLayer[];
}

/** The paper's layer 18 of 32, as a share of the depth. */
export const defaultDecodingLayer = (nLayers: number): number => Math.floor((18 / 32) * nLayers);

/**
 * Task vectors read as words (Luo, Darrell and Bar, "Task Vectors are Cross-Modal", 2024, the table of decodings): the logit
 * lens on the vector of each task and spec (`extractTaskVector`), at all layers.
 *
 * @throws {XpatchError} IMAGE_UNSUPPORTED, TASK_INVALID, TOKEN_INVALID, INVALID_ARGUMENT, and as `Context.pass`.
 */
export function runDecodings(
  context: Context,
  options: DecodingOptions | SavedVectorOptions,
  events: StudyEvents<Decoding> = {},
): Promise<Decoding[]> {
  return runStudy(decodingUnits, context, options, events);
}

/** A part for each vector; that of an instruction is the same under all seeds. */
export const decodingUnits: Study<DecodingOptions | SavedVectorOptions, Decoding> = async (context, options) => {
  if ('vectors' in options) return savedUnits(context, options);
  const { tasks, specs, seeds = [1], style, shots, prompts = 30, template, topK } = options;
  requireModalities(context.model, specs);
  requireSeeds(seeds);
  // Text and image vectors of one run have the same items.
  const pictures = specs.includes('image');
  const loaded: Task[] = [];
  for (const name of tasks) loaded.push(await loadTask(name, { pictures, style }));
  return loaded.flatMap((task) =>
    specs.flatMap((spec) =>
      (spec === 'instruction' ? seeds.slice(0, 1) : seeds).map(
        (seed): Unit<Decoding> => ({
          name: `${task.name}, ${spec} vector, seed ${seed}`,
          run: async (_, { store, signal, onProgress }) => {
            const vector = await extractTaskVector(context, vectorSplit(task, seed, prompts, pictures), {
              spec,
              shots,
              prompts,
              template,
              signal,
              onProgress: (p) => p.stage === 'pass' && onProgress(p.done / p.total),
            });
            const name = `${task.name}.${spec}.seed${seed}`;
            await store.saveVector(name, vector);
            const decoded = await decodeVector(context, vector, { topK, task, template, signal });
            return { ...decoded, ...aboutVector({ task: task.name, spec, seed }), vector: name };
          },
        }),
      ),
    ),
  );
};

/** An instruction has no examples, so no seed. */
function aboutVector({ task, spec, seed }: { task: string; spec: TaskSpec; seed: number }) {
  return { task, spec, ...(spec !== 'instruction' && { seed }) };
}

/** One of a shipped task has the ranks of its task word and answers too. */
async function savedUnits(context: Context, { vectors, topK }: SavedVectorOptions): Promise<Unit<Decoding>[]> {
  const shipped = await listTasks();
  return vectors.map((file, i) => ({
    name: `vector ${i + 1}, ${file}`,
    run: async (_, { signal }) => {
      const vector = await TaskVector.load(file, { position: await lastPosition(file) });
      const { origin } = vector.info;
      const made = origin.op === 'prompts' ? origin : undefined;
      const about = made && aboutVector(made);
      const task = made && shipped.includes(made.task) ? await loadTask(made.task) : undefined;
      return {
        ...(await decodeVector(context, vector, { topK, task, template: made?.template, signal })),
        ...about,
        file,
      };
    },
  }));
}

/** The items of vectors: the paper's 30, fewer only in a task that is smaller and of which fewer prompts are asked for. */
export function vectorSplit(task: Task, seed: number, prompts: number, pictures: boolean): TaskSplit {
  const items = task.items.filter(({ image }) => !pictures || image !== undefined);
  const distinct = new Set(items.map(({ input }) => input)).size;
  return splitTask(task, seed, { pictures, validation: Math.max(prompts, Math.min(30, distinct)), test: 0 });
}

/**
 * The logit lens on one vector. With a task, the ranks of its word and of its answers too.
 *
 * @param options.topK Defaults to 5.
 * @param options.template how answers follow a query. Defaults to the paper's
 * @throws {XpatchError} VECTOR_MISMATCH for another width, TOKEN_INVALID, INVALID_ARGUMENT, and as `logitLens`.
 */
export async function decodeVector(
  context: Context,
  vector: TaskVector,
  options: { topK?: number; task?: Task; template?: PromptTemplate; signal?: AbortSignal } = {},
): Promise<Decoding> {
  const { topK = 5, task, template, signal } = options;
  const tokens = task && (await taskTokens(context.model, task, await promptFormat(context.model, template)));
  const answers = [...(tokens?.begun.keys() ?? [])];
  const asked = [...(tokens?.word ?? []), ...answers];
  const { layers, cells } = await logitLens(context, vector, { topK, tokens: asked, signal });
  return {
    taskWord: task?.taskWord,
    answerTokens: answers.length,
    layers: layers.map((layer, l) => {
      const cell = cells[l]?.[0] as NonNullable<(typeof cells)[number][number]>;
      const words = tokens?.word.length ?? 0;
      const rank = (some: typeof cell.tokens) => Math.min(...some.map((score) => score.rank));
      return {
        layer,
        top: cell.top,
        ...(words > 0 && { wordRank: rank(cell.tokens.slice(0, words)) }),
        ...(answers.length > 0 && { answerRank: rank(cell.tokens.slice(words)) }),
      };
    }),
  };
}

/**
 * The layer at which the task words of all decodings rank best together (geometric mean of rank + 1), of the layers that all
 * of them have; undefined without any. Chosen by looking at the very numbers that it is shown with.
 */
export function bestWordLayer(decodings: readonly Decoding[]): number | undefined {
  const known = decodings.filter(({ layers }) => layers.every(({ wordRank }) => wordRank !== undefined));
  const [first] = known;
  if (first === undefined) return undefined;
  const meanLog = (layer: number) => {
    const ranks = known.map(({ layers }) => layers.find((entry) => entry.layer === layer)?.wordRank);
    return ranks.reduce<number>((sum, rank) => sum + Math.log((rank ?? Number.POSITIVE_INFINITY) + 1), 0);
  };
  return first.layers.map(({ layer }) => layer).reduce((a, b) => (meanLog(b) < meanLog(a) ? b : a));
}
