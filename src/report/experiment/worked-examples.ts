import { existsSync } from 'node:fs';
import { basename, resolve, win32 } from 'node:path';
import type { Experiment, ResultLine } from '../../experiment/types.js';
import { picturesFolder } from '../../tasks/task.js';
import type { WorkedExample } from '../report.js';
import { atLayer, type ExperimentLines } from './lines.js';
import { tasksOf } from './tables.js';

/** The first test query of each task under the first seed: chosen before any answer is known. */
export function workedExamples(experiment: Experiment, { test }: ExperimentLines): WorkedExample[] {
  const asked = test.filter(({ prompt }) => prompt !== undefined);
  const seed = Math.min(...asked.map((line) => line.seed));
  return tasksOf(experiment, asked).flatMap((task) => {
    const own = asked.filter((line) => line.task === task && line.seed === seed);
    const same = own.filter(({ item }) => item === own[0]?.item);
    const [first] = same;
    if (first === undefined) return [];
    const picture = pictureOf(experiment, same);
    return {
      task,
      query: picture === undefined ? first.item : basename(picture),
      ...(picture !== undefined && existsSync(picture) && { picture }),
      expected: first.expected,
      answers: experiment.conditions.flatMap(({ name }) => {
        const line = same.find(({ condition }) => named(condition, name));
        return line ? [{ condition: line.condition, answer: line.answer.trim(), correct: line.strict === true }] : [];
      }),
    };
  });
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
