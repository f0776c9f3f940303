import type { Context } from '../model/context.js';
import type { Progress } from '../model/types.js';
import type { Prompt } from '../prompt/prompt.js';
import type { PromptPart } from '../prompt/types.js';
import { promptFormat } from '../tasks/model-format.js';
import { DELIMITER, type ReadPosition, type TaskSpec, vectorPrompts } from '../tasks/prompts.js';
import type { TaskSplit } from '../tasks/split.js';
import type { Task } from '../tasks/task.js';
import type { PromptTemplate } from '../tasks/template.js';
import { TaskVector } from './task-vector.js';

/** Which prompts a task vector is read from. */
export interface ExtractOptions {
  /** What specifies the task: text examples, image examples, or the instruction alone. */
  spec: TaskSpec;
  /** Examples per prompt. Not used by `instruction`. Defaults to 5. */
  shots?: number;
  /** Prompts to average, at most one per validation item. Not used by `instruction`. Defaults to all validation items. */
  prompts?: number;
  /** Which `:` of an example prompt is read. Not used by `instruction`. Defaults to `last-example`, the paper's. */
  readPosition?: ReadPosition;
  /** How prompts are written. Defaults to the paper's template. */
  template?: PromptTemplate;
  signal?: AbortSignal;
  /** `prompts` counts the prompts that are tokenised and their pictures encoded, `pass` the positions decoded. */
  onProgress?: (progress: Progress & { stage: 'prompts' | 'pass' }) => void;
}

/**
 * Extracts the task vector of a split: the residual stream after every block at the delimiter of each prompt, averaged over
 * the prompts (Luo, Darrell and Bar, "Task Vectors are Cross-Modal", 2024). All prompts go through one pass, so their
 * common beginning is computed once. Only validation items are used.
 *
 * @returns A vector of all layers, [n_layers, n_embd].
 * @throws {XpatchError} TASK_INVALID, INVALID_ARGUMENT, IMAGE_UNSUPPORTED, CONFIG_INVALID for a template that cannot be used, and as
 *   `Context.pass`.
 *
 * @example
 * ```ts
 * const split = splitTask(await loadTask('country-capital'), 1);
 * const vector = await extractTaskVector(context, split, { spec: 'text' });
 * await vector.save('capital.safetensors');
 * ```
 */
export async function extractTaskVector(
  context: Context,
  split: TaskSplit,
  options: ExtractOptions,
): Promise<TaskVector> {
  const { spec, shots = 5, prompts: count, readPosition = 'last-example', template, signal, onProgress } = options;
  const format = await promptFormat(context.model, template);
  const prompts = vectorPrompts(split, spec, { shots, count, readPosition, format }).map(({ parts }) => parts);
  const { task, seed } = split;
  const made = { task: task.name, spec, seed, shots: spec === 'instruction' ? 0 : shots, pictures: task.pictures };
  return vectorOfPrompts(context, prompts, {
    ...made,
    readPosition: spec === 'instruction' ? 'instruction' : readPosition,
    template,
    signal,
    onProgress,
  });
}

/**
 * The mean state at the delimiter of prompts, after every block. All prompts go through one pass.
 *
 * @param prompts parts that have the mark `DELIMITER`
 * @param made what the vector says about itself, and the events
 * @throws {XpatchError} as `extractTaskVector`
 */
export async function vectorOfPrompts(
  context: Context,
  prompts: readonly (readonly PromptPart[])[],
  made: { task: string; spec: TaskSpec; seed: number; shots: number; readPosition: string } & Pick<Task, 'pictures'> &
    Pick<ExtractOptions, 'template' | 'signal' | 'onProgress'>,
): Promise<TaskVector> {
  const { readPosition, pictures, template = 'paper', signal, onProgress, ...origin } = made;
  const { model } = context;
  const built: Prompt[] = [];
  for (const parts of prompts) {
    built.push(await model.prompt(parts, { signal }));
    onProgress?.({ stage: 'prompts', done: built.length, total: prompts.length });
  }
  const results = await context.pass(
    built.map((prompt) => ({ prompt, capture: { positions: DELIMITER } })),
    { signal, onProgress: (progress) => onProgress?.({ stage: 'pass', ...progress }) },
  );
  const vectors = results.map(({ states, prompt }) =>
    TaskVector.fromStates(states, {
      model: model.identity,
      readPosition,
      origin: {
        op: 'prompts',
        ...origin,
        ...(template !== 'paper' && { template }),
        prompts: [prompt.record(pictures)],
      },
    }),
  );
  return TaskVector.mean(vectors);
}
