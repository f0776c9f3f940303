import { existsSync } from 'node:fs';
import { basename, resolve, win32 } from 'node:path';
import type { Experiment, ResultLine } from '../../experiment/types.js';
import { picturesFolder } from '../../tasks/task.js';
import { smallest } from '../../util/extremes.js';
import { Random } from '../../util/random.js';
import type { WorkedExample } from '../report.js';
import { CELLS, type EffectPair, type PairedQuery } from './effect.js';
import { atLayer, type ExperimentLines } from './lines.js';
import { tasksOf } from './tables.js';

/** Examples of what can become of a query under a patch and a prompt. */
const DRAWN = 2;

/** The first test query of each task under the first seed: chosen before any answer is known. */
export function workedExamples(experiment: Experiment, { test }: ExperimentLines): WorkedExample[] {
  const asked = test.filter(({ prompt }) => prompt !== undefined);
  const seed = smallest(asked.map((line) => line.seed));
  return tasksOf(experiment, asked).flatMap((task) => {
    const first = asked.find((line) => line.task === task && line.seed === seed);
    return first ? [exampleOf(experiment, asked, first)] : [];
  });
}

/** Queries of which the patch, the prompt, both or neither were right: a few of each, drawn with a seed of their own. */
export function pairedExamples(
  experiment: Experiment,
  { test }: ExperimentLines,
  pair: EffectPair,
  queries: readonly PairedQuery[],
): WorkedExample[] {
  const asked = test.filter(({ prompt }) => prompt !== undefined);
  return CELLS.flatMap((cell) => {
    const own = queries.filter((query) => query.cell === cell);
    const drawn = new Random(0, 'examples', cell).sample(own, Math.min(DRAWN, own.length));
    return drawn.map(({ patch }) => ({ ...exampleOf(experiment, asked, patch, pair), cell }));
  });
}

function exampleOf(
  experiment: Experiment,
  lines: readonly ResultLine[],
  { task, seed, item, expected }: ResultLine,
  pair?: EffectPair,
): WorkedExample {
  const same = lines.filter((line) => line.task === task && line.seed === seed && line.item === item);
  const picture = pictureOf(experiment, same);
  const first = pair ? [pair.prompt.condition, pair.patch.condition] : [];
  const others = experiment.conditions.map(({ name }) => name).filter((name) => !first.includes(name));
  return {
    task,
    query: picture === undefined ? item : basename(picture),
    ...(picture !== undefined && existsSync(picture) && { picture }),
    expected,
    answers: [...first, ...others].flatMap((name) => {
      const line = same.find(({ condition }) => named(condition, name));
      return line ? [{ condition: line.condition, answer: line.answer.trim(), correct: line.strict === true }] : [];
    }),
  };
}

/** The picture of an image query is the last one of its prompt; it may be missing on this machine. */
function pictureOf({ conditions, query, tasks }: Experiment, lines: readonly ResultLine[]): string | undefined {
  const shown = lines.find(({ condition }) =>
    conditions.some((one) => named(condition, one.name) && (one.query ?? query) === 'image'),
  );
  const name = shown?.prompt?.images?.at(-1);
  const source = tasks.find((task) => win32.parse(task).name === shown?.task);
  return name && resolve(picturesFolder(source ?? ''), name);
}

/** Whether a line is of a condition, at whatever layer. */
function named(label: string, condition: string): boolean {
  return label === condition || label.startsWith(atLayer(condition, ''));
}
