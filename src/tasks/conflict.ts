import { XpatchError } from '../util/errors.js';
import { answersCollide } from './answers.js';
import { type LoadTaskOptions, loadTask, type Task } from './task.js';
import { readTaskIndex } from './task-index.js';

/**
 * Another shipped task about the same items, for the task-conflict experiment: the next one of the same domain, after the
 * last one the first. It has a `question`.
 * @throws {XpatchError} TASK_INVALID when there is none, as for a task file
 */
export async function rivalTask(task: Pick<Task, 'name' | 'domain'>, options: LoadTaskOptions = {}): Promise<Task> {
  const names = [...(await readTaskIndex())].filter(([, { domain }]) => domain === task.domain).map(([name]) => name);
  const next = names[(names.indexOf(task.name) + 1) % names.length];
  if (names.includes(task.name) && next !== undefined && next !== task.name) return loadTask(next, options);
  const message = `Task ${task.name} has no other task that asks about the same items`;
  throw new XpatchError('TASK_INVALID', `${message}: use shipped tasks such as food-color for a conflict of tasks.`);
}

/**
 * What the rival task answers for the inputs of `task`. Inputs that the rival lacks are left out, and those whose two
 * answers the lenient score could not tell apart (see `answersCollide`).
 */
export function rivalAnswers(task: Pick<Task, 'items'>, rival: Pick<Task, 'items'>): ReadonlyMap<string, string> {
  const others = new Map(rival.items.toReversed().map(({ input, output }) => [input, output]));
  const answers = new Map<string, string>();
  for (const { input, output } of task.items.toReversed()) {
    const other = others.get(input);
    if (other !== undefined && !answersCollide(output, other)) answers.set(input, other);
  }
  return answers;
}
