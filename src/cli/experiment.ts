import type { Model } from '../model/model.js';
import type { Modality } from '../tasks/prompts.js';
import { listTasks, loadTask } from '../tasks/task.js';
import { didYouMean } from '../util/nearest.js';
import { usageError } from './errors.js';
import { grouped, vary } from './option.js';
import { SEEDS, SHOTS, STYLE, TASKS } from './options.js';

/** Options of commands that draw prompts from tasks. */
export const TASK_OPTIONS = grouped('Task', {
  tasks: TASKS,
  seeds: vary(SEEDS, { describe: 'Seed of the items and the examples. Defaults to 1' }),
  style: STYLE,
  shots: vary(SHOTS, { describe: 'Examples in a prompt, the last without its answer. Defaults to 5' }),
});

const MODALITIES: readonly Modality[] = ['text', 'image'];

/** The modalities in `--specs`; undefined for what the model can read. */
export function parseModalities(specs: readonly string[] | undefined): readonly Modality[] | undefined {
  return specs && parseNames('specs', specs, MODALITIES);
}

/** The modalities that a model can read. */
export function readable({ hasVision }: Model): readonly Modality[] {
  return hasVision ? MODALITIES : ['text'];
}

/** Checks the tasks of `--tasks`, or names all shipped ones. @throws {XpatchError} TASK_INVALID, FILE_NOT_FOUND */
export async function requireTasks(given: readonly string[] | undefined): Promise<readonly string[]> {
  const tasks = given ?? (await listTasks());
  const loaded = await Promise.all(tasks.map((name) => loadTask(name)));
  const names = loaded.map(({ name }) => name);
  const twice = names.find((name, i) => names.indexOf(name) < i);
  if (twice !== undefined) throw usageError(`--tasks has two tasks named ${twice}. Rename one of the files.`);
  return tasks;
}

/** Names of an option, all of them `allowed`. */
export function parseNames<Name extends string>(
  option: string,
  names: readonly string[],
  allowed: readonly Name[],
): readonly Name[] {
  const bad = names.find((name) => !allowed.includes(name as Name));
  if (bad === undefined) return names as Name[];
  const expected = `--${option} takes some of ${allowed.join(', ')}, separated by commas`;
  throw usageError(`${expected}; ${JSON.stringify(bad)} is not one.${didYouMean(bad, allowed)}`);
}
