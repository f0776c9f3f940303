import type { Context } from '../model/context.js';
import { answerTokens, requireApart } from '../tasks/answer-tokens.js';
import { promptFormat } from '../tasks/model-format.js';
import { type Modality, vectorPrompts } from '../tasks/prompts.js';
import type { TaskSplit } from '../tasks/split.js';
import type { TaskItem } from '../tasks/task.js';
import { DELIMITER, type PromptTemplate } from '../tasks/template.js';
import { Random } from '../util/random.js';
import { type CorruptPrompt, type HeadEffects, headEffects } from './function-vector.js';
import type { MeasureOptions } from './measure.js';

/** Which prompts of a task head effects are taken of. */
export interface TaskHeadOptions extends MeasureOptions {
  /** Text or image examples. Defaults to `text`. */
  spec?: Modality;
  /** Examples a prompt. Defaults to 5. */
  shots?: number;
  /** Prompts whose mean is taken. Defaults to 10, at most one a validation item. */
  prompts?: number;
  /** Prompts with shuffled labels, on which the effects are measured. Defaults to 10. */
  corrupt?: number;
  /** How prompts are written. Defaults to the paper's template. */
  template?: PromptTemplate;
}

/**
 * Effects of all heads on a task in context: their means over prompts of examples with a query after them, and
 * the effect on the same prompts with the examples' labels exchanged among each other. Only validation items are used. So each mean
 * holds, as one of `prompts`, the prompt that it is patched into, with its labels right (in Todd et al. both are drawn from one set too).
 *
 * @throws {XpatchError} TASK_INVALID, INVALID_ARGUMENT, MARK_AMBIGUOUS, IMAGE_UNSUPPORTED, and as `headEffects`
 */
export async function taskHeadEffects(
  context: Context,
  split: TaskSplit,
  options: TaskHeadOptions = {},
): Promise<HeadEffects> {
  const { spec = 'text', shots = 5, template, signal, onProgress } = options;
  const most = split.validation.length;
  const { prompts: count = Math.min(10, most), corrupt: corruptCount = Math.min(10, most) } = options;
  const format = await promptFormat(context.model, template);
  const written = vectorPrompts(split, spec, {
    shots,
    count: Math.max(count, corruptCount),
    readPosition: 'dummy-query',
    format,
  });
  const corrupt: CorruptPrompt[] = [];
  for (const { shots: examples, query } of written.slice(0, corruptCount)) {
    const item = query as TaskItem;
    const wrong = exchanged(examples, split.seed, item.input);
    const parts = format.write({ shots: wrong, shotModality: spec, query: item, queryModality: spec });
    const [answer] = await answerTokens(context.model, parts, format, [item.output]);
    if (answer === undefined) continue;
    requireApart(answer, parts, item.output);
    const prompt = (await context.model.prompt(parts, { signal })).append(answer.tokens.slice(0, answer.first));
    corrupt.push({ prompt, answer: answer.tokens[answer.first] as number });
  }
  const prompts = written.slice(0, count).map(({ parts }) => parts);
  return headEffects(context, {
    prompts,
    corrupt,
    position: DELIMITER,
    pictures: split.task.pictures,
    signal,
    onProgress,
  });
}

/** The examples with each other's labels. */
function exchanged(shots: readonly TaskItem[], seed: number, query: string): TaskItem[] {
  const labels = new Random(seed, 'function-vector', query).sample(shots.map(({ output }) => output));
  return shots.map((shot, i) => ({ ...shot, output: labels[i] as string }));
}
