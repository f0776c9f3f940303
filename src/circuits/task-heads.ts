import type { Context } from '../model/context.js';
import { answerTokens, plainAnswers, requireApart } from '../tasks/answer-tokens.js';
import { fewShotPrompt, type Modality, vectorPrompts } from '../tasks/prompts.js';
import type { TaskSplit } from '../tasks/split.js';
import type { TaskItem } from '../tasks/task.js';
import { DELIMITER, PAPER_TEMPLATE } from '../tasks/template.js';
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
}

/**
 * Effects of all heads on a task in context, in the paper's template: their means over prompts of examples with a query after them, and
 * the effect on the same prompts with the examples' labels exchanged among each other. Only validation items are used.
 *
 * @throws {XpatchError} TASK_INVALID, INVALID_ARGUMENT, MARK_AMBIGUOUS, IMAGE_UNSUPPORTED, and as `headEffects`
 */
export async function taskHeadEffects(
  context: Context,
  split: TaskSplit,
  options: TaskHeadOptions = {},
): Promise<HeadEffects> {
  const { spec = 'text', shots = 5, signal, onProgress } = options;
  const most = split.validation.length;
  const { prompts: count = Math.min(10, most), corrupt: corruptCount = Math.min(10, most) } = options;
  const written = vectorPrompts(split, spec, {
    shots,
    count: Math.max(count, corruptCount),
    readPosition: 'dummy-query',
  });
  const format = plainAnswers(PAPER_TEMPLATE);
  const corrupt: CorruptPrompt[] = [];
  for (const { shots: examples, query } of written.slice(0, corruptCount)) {
    const item = query as TaskItem;
    const prompt = fewShotPrompt(exchanged(examples, split.seed, item.input), spec, item, spec);
    const [answer] = await answerTokens(context.model, prompt, format, [item.output]);
    if (answer === undefined) continue;
    requireApart(answer, prompt, item.output);
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
