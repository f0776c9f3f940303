import { findEntry } from '../hub/catalogue.js';
import type { Model } from '../model/model.js';
import type { Modality } from '../tasks/prompts.js';
import { listTasks, loadTask } from '../tasks/task.js';
import { checkTemplate, type PromptTemplate, type Template } from '../tasks/template.js';
import { didYouMean } from '../util/nearest.js';
import { usageError } from './errors.js';
import { type ArgumentsOf, grouped, vary } from './option.js';
import { SEEDS, SHOTS, STYLE, TASKS, TEMPLATE, unescapeText } from './options.js';

/** Options of commands that draw prompts from tasks. */
export const TASK_OPTIONS = grouped('Task', {
  tasks: TASKS,
  seeds: vary(SEEDS, { describe: 'Each draws its own items and examples. Defaults to 1' }),
  style: STYLE,
  shots: vary(SHOTS, { describe: 'Examples in a prompt, the last without its answer. Defaults to 5' }),
  template: TEMPLATE,
});

/** How prompts are written: as --template says, else as the catalogue has it of the model; undefined for the paper's way. */
export function templateOf(args: { template?: string; model: string }): 'chat' | Template | undefined {
  const template = args.template === undefined ? findEntry(args.model)?.template : readTemplate(args.template);
  return template === 'paper' ? undefined : template;
}

/** Which prompts of tasks a study reads. @throws {XpatchError} as `requireTasks` and `templateOf` */
export async function taskPromptsOf(args: ArgumentsOf<typeof TASK_OPTIONS> & { model: string }) {
  const tasks = await requireTasks(args.tasks);
  const template = templateOf(args);
  const { seeds = [1], style, shots = 5 } = args;
  return { tasks, seeds, style, shots, ...(template && { template }) };
}

/** A template as it is typed. @throws {XpatchError} CONFIG_INVALID for a text without {input} and {output} */
export function readTemplate(given: string): PromptTemplate {
  if (given === 'paper' || given === 'chat') return given;
  const example = unescapeText(given);
  const query = example.slice(0, Math.max(0, example.indexOf('{output}'))).trimEnd();
  const template = { example, query, stop: '\n' };
  checkTemplate(template);
  return template;
}

/** What a report says of a template that is not the paper's. */
export function templateNotes(template: PromptTemplate = 'paper'): string[] {
  if (template === 'paper') return [];
  if (template === 'chat') return ["Prompts are written in the model's chat template."];
  const [example, query] = [template.example, template.query].map((text) => JSON.stringify(text));
  return [`Prompts are written as ${example}, and queries as ${query}.`];
}

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
