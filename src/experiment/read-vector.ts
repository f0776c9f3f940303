import { type CorruptPrompt, functionVector, headEffects } from '../circuits/function-vector.js';
import type { Context, PassOptions } from '../model/context.js';
import { answerTokens, requireApart } from '../tasks/answer-tokens.js';
import { DELIMITER, type Modality, vectorExamples } from '../tasks/prompts.js';
import { vectorOfPrompts } from '../vectors/extract.js';
import type { TaskVector } from '../vectors/task-vector.js';
import type { Lane } from './lanes.js';
import type { Study } from './study.js';
import type { VectorSpec } from './types.js';
import { promptsOf, shuffleLabels, type WantedVector } from './vectors.js';

/** Prompts with shuffled labels that effects of heads are measured on, at most. */
const CORRUPT = 10;

/** Reads a vector that has no sources. @throws {XpatchError} as `Context.pass` */
export function readVector(
  { context, foreign }: Lane,
  study: Study,
  wanted: WantedVector,
  { signal, onProgress }: PassOptions = {},
): Promise<TaskVector> {
  const { task, seed } = wanted.cell.split;
  const { shots, readPosition, template } = study.experiment;
  const isInstruction = wanted.spec === 'instruction';
  const where = wanted.foreign ? (foreign as Context) : context;
  if (wanted.vector === 'function') return readFunctionVector(where, study, wanted, { signal, onProgress });
  return vectorOfPrompts(where, promptsOf(study, wanted), {
    task: task.name,
    pictures: task.pictures,
    spec: wanted.spec as Exclude<VectorSpec, 'ensemble'>,
    seed,
    shots: isInstruction ? 0 : shots,
    readPosition: isInstruction ? 'instruction' : readPosition,
    template,
    signal,
    onProgress: ({ stage, done, total }) => stage === 'pass' && onProgress?.({ done, total }),
  });
}

/**
 * The function vector of a cell: heads are ranked by their effect on its own prompts with shuffled labels.
 *
 * @throws {XpatchError} MARK_AMBIGUOUS, and as `headEffects` and `functionVector`
 */
async function readFunctionVector(
  context: Context,
  study: Study,
  wanted: WantedVector,
  { signal, onProgress }: PassOptions,
): Promise<TaskVector> {
  const { format, experiment } = study;
  const { cell, prompts, heads } = wanted;
  const modality = wanted.spec as Modality;
  const { model } = context;
  const { shots, readPosition } = experiment;
  const corrupt: CorruptPrompt[] = [];
  for (const { whole, last, query } of vectorExamples(cell.split, { shots, count: corruptOf(prompts), readPosition })) {
    const examples = shuffleLabels(whole, cell.split.seed, `function-vector ${query.input}`);
    const parts = format.write({ shots: examples, shotModality: modality, query: last, queryModality: modality });
    const [answer] = await answerTokens(model, parts, format, [last.output]);
    if (answer === undefined) continue;
    requireApart(answer, parts, last.output);
    const prompt = (await model.prompt(parts, { signal })).append(answer.tokens.slice(0, answer.first));
    corrupt.push({ prompt, answer: answer.tokens[answer.first] as number });
  }
  const effects = await headEffects(context, {
    prompts: promptsOf(study, wanted),
    corrupt,
    position: DELIMITER,
    pictures: cell.split.task.pictures,
    signal,
    onProgress,
  });
  return functionVector(context, effects, Math.min(heads, effects.effects.heads.length));
}

/** How many of so many prompts have their labels shuffled. */
export function corruptOf(prompts: number): number {
  return Math.min(prompts, CORRUPT);
}
