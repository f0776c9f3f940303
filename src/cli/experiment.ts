import type { Argv } from 'yargs';
import { listTasks, loadTask } from '../tasks/task.js';
import { usageError } from './errors.js';
import { textOption, wholeOption } from './options.js';

/** What commands take that draw prompts from tasks. */
export interface ExperimentArguments {
  tasks?: string;
  seed?: number;
  style?: string;
  shots?: number;
  prompts?: number;
}

/** @param prompts what `--prompts` counts, and how many by default */
export function experimentOptions<T>(yargs: Argv<T>, prompts: string): Argv<T & ExperimentArguments> {
  return yargs
    .option(
      'tasks',
      textOption('tasks', 'Shipped tasks, or task files ending in .json, with commas. Defaults to all six'),
    )
    .option('seed', wholeOption('seed', 0, 'Seed of the items and the examples. Defaults to 1'))
    .option('style', textOption('style', 'Drawing style of the shipped pictures. Defaults to twemoji'))
    .option('shots', wholeOption('shots', 1, 'Examples in a prompt, the last without its answer. Defaults to 5'))
    .option('prompts', wholeOption('prompts', 1, prompts))
    .group(['tasks', 'seed', 'style', 'shots', 'prompts'], 'Task:') as Argv<T & ExperimentArguments>;
}

/** The tasks of `--tasks`, or all shipped ones. @throws {XpatchError} TASK_INVALID, FILE_NOT_FOUND */
export async function parseTasks(text: string | undefined): Promise<string[]> {
  const tasks = text === undefined ? await listTasks() : parseNames('tasks', text);
  const loaded = await Promise.all(tasks.map((name) => loadTask(name)));
  const names = loaded.map(({ name }) => name);
  const twice = names.find((name, i) => names.indexOf(name) < i);
  if (twice !== undefined) throw usageError(`--tasks has two tasks of the name ${twice}. Rename one of the files.`);
  return tasks;
}

/** `a,b,c`: different names, at least one, of `allowed` when it is given. */
export function parseNames<Name extends string>(option: string, text: string, allowed?: readonly Name[]): Name[] {
  const names = text.split(',').map((name) => name.trim());
  const bad = names.find((name) => name === '' || (allowed !== undefined && !allowed.includes(name as Name)));
  if (bad !== undefined) {
    const expected = allowed ? `some of ${allowed.join(', ')}` : 'names';
    throw usageError(`--${option} takes ${expected} with commas between them; ${JSON.stringify(bad)} is none.`);
  }
  if (new Set(names).size < names.length) throw usageError(`--${option} repeats one. Name each one once.`);
  return names as Name[];
}

/** The shipped ones among tasks, whose hashes a manifest records. */
export async function shippedTasks(tasks: readonly string[]): Promise<string[]> {
  const shipped = await listTasks();
  return tasks.filter((name) => shipped.includes(name));
}
