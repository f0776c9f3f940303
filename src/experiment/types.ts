import type { ModelIdentity } from '../model/types.js';
import type { PromptRecord } from '../prompt/prompt-record.js';
import type { Modality, ReadPosition, TaskSpec } from '../tasks/prompts.js';
import type { PromptTemplate } from '../tasks/template.js';
import type { TaskVector } from '../vectors/task-vector.js';

export type { Template } from '../tasks/template.js';

/** Where a patched vector comes from. `ensemble` is the mean of the vectors of text examples and of the instruction. */
export type VectorSpec = TaskSpec | 'ensemble';

/** What is deliberately wrong with a patched vector; see docs/evaluation.md. */
export const CONTROLS = ['random-vector', 'wrong-task', 'shuffled-labels', 'wrong-layer', 'identity'] as const;
/** A vector that should not work: see `Condition`. */
export type Control = (typeof CONTROLS)[number];

/** What a patch writes: see `Condition.vector`. */
export const VECTOR_KINDS = ['task', 'function', 'steering'] as const;
export type VectorKind = (typeof VECTOR_KINDS)[number];

/**
 * One way of getting answers: a row of the tables. All conditions of an experiment answer the same queries.
 * - `majority`: the most common answer of the validation items; no model is asked.
 * - `bare`: the query alone.
 * - `prompt`: examples (or the instruction) and the query in one context window.
 * - `patch`: a vector written into the query.
 */
export interface Condition {
  /** Row of the tables, unique, e.g. `Text Patch`. */
  readonly name: string;
  readonly kind: 'majority' | 'bare' | 'prompt' | 'patch';
  /** How the input of the query is shown. Defaults to the experiment's. */
  readonly query?: Modality;
  /** Of `prompt` (not `ensemble`) and `patch`: what specifies the task. */
  readonly spec?: VectorSpec;
  /**
   * Of `patch`: `task`, the mean state at the read position; `function`, what the heads with the largest effect add (`functionVector`);
   * `steering`, the task vector less that of shuffled labels. The last two come from examples, text or image. Validation chooses a
   * layer for each of the three. Defaults to `task`.
   */
  readonly vector?: VectorKind;
  /** Of `patch` with a function vector: how many heads. Defaults to 10, or all that there are. */
  readonly heads?: number;
  /** Of `patch`. Defaults to the experiment's; of a function or steering vector to `add`. */
  readonly op?: Experiment['op'];
  /** Of `patch`: factor on the vector. Defaults to the experiment's. */
  readonly strength?: number;
  /** Of `patch`: where it is written, each layer by itself. Defaults to the experiment's. */
  readonly layers?: readonly number[];
  /** Of `patch`: at the end of the query, or there and at every token generated after it. Defaults to `prompt`. */
  readonly steps?: 'prompt' | 'all';
  /** Of `patch`. */
  readonly control?: Control;
  /** Of `patch`: vectors of `vectorModel` instead of the model's own (LLM to VLM). Defaults to false. */
  readonly foreign?: boolean;
  /** Of `patch` from examples: how many prompts the vector is the mean of. Defaults to the experiment's. */
  readonly prompts?: number;
  /** Of an instruction: swaps of neighbouring letters in it. Defaults to 0. */
  readonly swaps?: number;
  /**
   * Text before the query, such as a system instruction. `{instruction}` in it stands for the instruction of the
   * task. Defaults to none.
   */
  readonly before?: string;
  /**
   * A question asked with the query, after its input and before `A:`. `{rival}` in it stands for the question of another
   * task about the same item (`rivalTask` of tasks/conflict.ts), such as `What is the color of the food?` while
   * food-flavor is scored. Defaults to none.
   */
  readonly question?: string;
}

/** An experiment as a config file describes it, with every default filled in. */
export interface Experiment {
  /** Names files and folders. Defaults to the preset's name, or the file's. */
  readonly name: string;
  /** What it started from: the paper's numbers are shown beside an experiment of a preset, whatever its name. */
  readonly preset?: string;
  readonly title: string;
  /** Shipped tasks by name, or task files. */
  readonly tasks: readonly string[];
  readonly seeds: readonly number[];
  /** What the queries are, unless a condition says otherwise. */
  readonly query: Modality;
  /** Drawing style of the shipped pictures. */
  readonly style: string;
  readonly template: PromptTemplate;
  /** Examples in a prompt. */
  readonly shots: number;
  readonly validation: number;
  /** Maximum number of test queries per task and seed. */
  readonly test: number;
  /** Prompts that a vector is the mean of. */
  readonly prompts: number;
  readonly readPosition: ReadPosition;
  /** Where patches are written in the test: the layer best on validation items, all of them, or these. */
  readonly layers: 'validation' | 'all' | readonly number[];
  readonly op: 'replace' | 'add';
  /** Factor on the vector. */
  readonly strength: number;
  readonly maxTokens: number;
  /** Compare answers without regard to case. */
  readonly ignoreCase: boolean;
  /** In addition to the lenient and the strict score. `likelihood` asks every choice of an item, or every answer of the task, and is slow. */
  readonly scores: readonly ('probability' | 'likelihood')[];
  /** Model of `foreign` conditions: as `-m` takes it. */
  readonly vectorModel?: string;
  /** `compute`: time and memory of prompting, of patching and of the bare query (`runCompute`) instead of answers; without conditions. */
  readonly measure?: 'compute';
  readonly conditions: readonly Condition[];
}

/** What makes a scored query different from all others of a run: none is answered twice. */
export interface QueryKey {
  readonly stage: 'validation' | 'test';
  readonly condition: string;
  readonly task: string;
  readonly seed: number;
  /** Input of the item. */
  readonly item: string;
  /** Of `patch`. */
  readonly layer?: number;
}

/** One line of results.jsonl: a scored query with what is needed to ask it again. */
export interface ResultLine extends QueryKey {
  readonly domain: string;
  readonly expected: string;
  /** Other answers that count as right. */
  readonly also?: readonly string[];
  /** Greedy answer up to the stop; for a validation query only its first piece. */
  readonly answer: string;
  /** The first visible piece of the answer, nearly always its first token. The lenient score looks at this. */
  readonly firstToken: string;
  readonly lenient: boolean;
  /** The answer to the question of the rival task (`rivalAnswers`), if one was asked and its answer is known. */
  readonly rival?: string;
  /** Of a test query. */
  readonly strict?: boolean;
  /** The answer was cut off by `maxTokens`, so it is not strictly right; absent otherwise. */
  readonly cut?: true;
  /**
   * Probability of the first token of the expected answer that shows something of it, and its rank from 0. Where the template, or the
   * tokenizer, has tokens between the query and that one (a lone space, a line break), it is the one after them. Of several right
   * answers the one with the most probable first token counts.
   */
  readonly probability?: number;
  readonly rank?: number;
  /**
   * Rank from 0 of the expected answer among the choices of the item, else all answers of the task, by log-likelihood, and its log-likelihood, nats: over all tokens
   * from the end of the query to the end of the answer, including those that the template puts in between; not what ends the answer.
   * Of several right answers the likeliest counts.
   */
  readonly answerRank?: number;
  readonly logLikelihood?: number;
  /**
   * For a foreign vector: KL divergence, nats, of the model's next token from that with its own vector in the same
   * place. With score `probability`.
   */
  readonly kl?: number;
  /** Name of the vector that was patched in, a file of vectors/. */
  readonly vector?: string;
  /** L2 norm of what the patch changed. */
  readonly delta?: number;
  /** Custom scores by name (`scoreLines`). */
  readonly own?: Readonly<Record<string, number>>;
  /** The prompt as the model saw it; absent for `majority` and validation queries. */
  readonly prompt?: PromptRecord;
}

/** One line of a study: a part of its work, and the result. */
export interface StudyLine {
  /** Unique in its run. */
  readonly unit: string;
  /** Name of what it left among the vectors of the run. */
  readonly vector?: string;
}

/** One line of results.jsonl. */
export type RunLine = ResultLine | StudyLine;

/** What can be kept as a file: a vector, a lens. */
export interface Saved {
  save(path: string): Promise<void>;
}

/** Where a run is stored. Everything handed over is durable when the promise resolves. */
export interface RunStore<Line extends RunLine = ResultLine> {
  /** Queries answered before, by an earlier process of this run. */
  readonly known: ReadonlySet<string>;
  /** Vectors that lines name and that are gone. Defaults to none. */
  readonly lost?: ReadonlySet<string>;
  /** All lines so far, those of earlier processes first, in order. */
  lines(): AsyncIterable<Line>;
  /** Keeps further lines. */
  append(lines: readonly Line[]): Promise<void>;
  /** Keeps a vector under a name. */
  saveVector(name: string, vector: Saved): Promise<void>;
  /** undefined if the run has none of this name. */
  loadVector(name: string): Promise<TaskVector | undefined>;
  /** The same for what is not a task vector. @param open reads such a file */
  load<T extends Saved>(name: string, open: (path: string) => Promise<T>): Promise<T | undefined>;
}

/** A key as in `RunStore.known`. */
export function keyOf(line: QueryKey | StudyLine): string {
  if ('unit' in line) return line.unit;
  const { stage, condition, task, seed, item, layer } = line;
  return JSON.stringify([stage, condition, task, seed, item, layer ?? null]);
}

/** What a plan says before anything runs. */
export interface Plan {
  readonly model: ModelIdentity;
  /** Scored queries of each stage and condition. */
  readonly queries: readonly {
    readonly stage: QueryKey['stage'];
    readonly condition: string;
    readonly count: number;
  }[];
  readonly vectors: number;
  readonly pictures: number;
  /**
   * Passes over prompts: one per vector, one per batch of items and stage, and those for own states and likelihoods. Little memory
   * means more.
   */
  readonly passes: number;
  /** Positions to decode, shared prefixes counted once, and the most new tokens. */
  readonly tokens: number;
  readonly newTokens: number;
  /** How the work divides, in positions; a new token counts a quarter, as most answers end long before the bound. */
  readonly work: ExperimentWork;
  /** Positions of the longest prompt, new tokens included: what a context must hold. */
  readonly longest: number;
  /** What may be surprising in the numbers, such as answers that share their first token. */
  readonly warnings: readonly string[];
}

/** What a run does in sequence, and how much of it. */
export type ExperimentWork = Readonly<Record<'vectors' | QueryKey['stage'], number>>;

/** How far a run is. Queries answered by an earlier process count as done. */
export interface ExperimentProgress {
  /** Scored queries and prompts of vectors. */
  readonly done: number;
  readonly total: number;
  /** What this process did of `done`. */
  readonly fresh: number;
  /** Fractions of the whole work, from 0 to 1: what this process did, and what is left. */
  readonly worked: number;
  readonly left: number;
  readonly stage: 'vectors' | QueryKey['stage'];
  readonly task: string;
  readonly seed: number;
}
