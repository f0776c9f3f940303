import { createRequire } from 'node:module';
import { basename, extname } from 'node:path';
import { locateTask } from '../tasks/task.js';
import type { Template } from '../tasks/template.js';
import { counted, plural } from '../util/counted.js';
import { XpatchError } from '../util/errors.js';
import { isRecord, isShallow, MAX_DEPTH } from '../util/json.js';
import { didYouMean } from '../util/nearest.js';
import { readWhole } from '../util/read-file.js';
import { whatAre } from '../util/what-is.js';
import { fitToTasks, type LoadedExperiment } from './fit.js';
import { PRESETS } from './presets.js';
import { problemsOf } from './rules.js';
import { quote } from './schema.js';
import type { Experiment } from './types.js';

/** A config as in its file, not yet checked. */
type Raw = Record<string, unknown>;

/** An experiment is a page of text; the largest file is far longer than any. */
const FILE = { what: 'the config', maxBytes: 1 << 20, code: 'CONFIG_INVALID', pipe: true } as const;
/** Problems that one message lists. */
const MAX_PROBLEMS = 5;
/** How much YAML may repeat by aliases: a short file must not grow without bound. */
const MAX_ALIASES = 100;

export type { LoadedExperiment } from './fit.js';

/**
 * The experiment of a preset or of a config file, YAML or JSON, fully checked.
 *
 * @param source name of a preset, or path of a file (it has a slash or a dot)
 * @param settings `key=value` each, as `--set` takes them: dotted paths (`conditions.2.prompts=5`), values in YAML
 * @param entry what the catalogue knows of the model, for fields that are not set: `baseModel` is the `vectorModel` of the preset
 *   llm-to-vlm, and `template` replaces the paper's. Defaults to nothing
 * @throws {XpatchError} FILE_NOT_FOUND; CONFIG_INVALID, naming the path in the config and what it may be; TASK_INVALID for a
 *   shipped task that does not exist
 */
export async function loadExperiment(
  source: string,
  settings: readonly string[] = [],
  { baseModel, template }: { readonly baseModel?: string; readonly template?: Template } = {},
): Promise<LoadedExperiment> {
  const isFile = /[./\\]/.test(source);
  if (!isFile && !Object.hasOwn(PRESETS, source)) {
    const presets = Object.keys(PRESETS);
    const hint = didYouMean(source, presets);
    const message = `There is no preset ${quote(source)}.${hint} Presets: ${presets.join(', ')}. For your own file give its path, such as ./${source}.yaml.`;
    throw new XpatchError('CONFIG_INVALID', message);
  }
  const raw = isFile ? parseConfig(await readText(source), source) : { preset: source };
  const name = basename(source, extname(source)).toLowerCase();
  const config = applySettings(raw, settings) as Raw;
  if (config.preset === 'llm-to-vlm' && baseModel !== undefined) config.vectorModel ??= baseModel;
  if (template !== undefined && !presetOf(config)?.config.template) config.template ??= template;
  // Before all else: a misspelt task is not too few tasks for a control.
  const tasks = Array.isArray(config.tasks) ? config.tasks : [];
  for (const task of tasks) if (typeof task === 'string') await locateTask(task);
  return experimentOf(config, { name: name.replace(/[^a-z0-9]+/g, '-'), file: source });
}

/**
 * A config with its preset and defaults filled in.
 *
 * @param config as in a file
 * @param about.name used if the config has no name and no preset
 * @param about.file named in errors. Defaults to none
 * @throws {XpatchError} CONFIG_INVALID
 */
export function experimentOf(config: object, about: { name: string; file?: string }): LoadedExperiment {
  const { preset, ...own } = structuredClone(config) as Raw;
  const invalid = (problems: readonly string[]) => configError(about.file, problems);
  const known = presetOf({ preset });
  if (preset !== undefined && !known) {
    throw invalid([`preset: must be one of ${Object.keys(PRESETS).join(', ')}, not ${quote(preset)}`]);
  }
  const base = known && { preset, name: preset, title: known.title, ...known.config };
  const merged: Raw = { ...structuredClone(base), ...own };
  merged.name ??= about.name.replace(/^-+|-+$/g, '') || 'experiment';
  merged.title ??= merged.name;
  const fitted = known && own.conditions === undefined ? fitToTasks(merged as unknown as Experiment) : undefined;
  const experiment = fitted?.experiment ?? (merged as unknown as Experiment);
  const problems = problemsOf(experiment);
  if (problems.length === 0) problems.push(...vectorModelProblems(experiment));
  if (problems.length > 0) throw invalid(problems);
  const prompts = experiment.prompts ?? experiment.validation;
  const spelt = own.query !== undefined || own.conditions !== undefined;
  const textToo = known?.textToo === true && !spelt;
  return { experiment: { ...experiment, prompts }, textToo, left: fitted?.notes ?? [] };
}

function presetOf({ preset }: Raw) {
  return typeof preset === 'string' && Object.hasOwn(PRESETS, preset) ? PRESETS[preset] : undefined;
}

/**
 * The object of a YAML or JSON text. Duplicate keys, unknown tags and several documents are refused.
 * @throws {XpatchError} CONFIG_INVALID
 */
export function parseConfig(text: string, file?: string): object {
  const value = readYaml(text, (problem) => configError(file, [problem]));
  if (isRecord(value)) return value;
  throw configError(file, ['is not an object of settings, such as "preset: main"']);
}

/** @throws {XpatchError} CONFIG_INVALID */
function applySettings(config: object, settings: readonly string[]): object {
  const result = structuredClone(config) as Raw;
  const given = new Set<string>();
  for (const setting of settings) {
    const [, key, text] = /^([^=]+)=(.*)$/s.exec(setting) ?? [];
    if (key === undefined || text === undefined) {
      const message = `--set ${quote(setting)} is not key=value, such as seeds=[1,2] or test=20.`;
      throw new XpatchError('CONFIG_INVALID', message);
    }
    const value = readYaml(
      text,
      (problem) => new XpatchError('CONFIG_INVALID', `--set ${key.trim()}: the value ${problem}.`),
    );
    const name = key.trim();
    if (given.has(name)) {
      const message = `${name} is set twice. Give it once, as an option or with --set.`;
      throw new XpatchError('CONFIG_INVALID', message);
    }
    given.add(name);
    setAt(result, name.split('.'), value, name);
  }
  return result;
}

function setAt(config: Raw, path: readonly string[], value: unknown, key: string): void {
  let target: Raw = config;
  for (const [i, part] of path.entries()) {
    if (part === '' || part === '__proto__' || (Array.isArray(target) && !/^\d{1,6}$/.test(part))) {
      const message = `--set ${key}: ${quote(part)} is not ${Array.isArray(target) ? 'the number of an entry, from 0' : 'the name of a setting'}.`;
      throw new XpatchError('CONFIG_INVALID', message);
    }
    if (i === path.length - 1) {
      if (Array.isArray(target) && Number(part) > target.length) {
        const message = `--set ${key}: there ${plural(target.length, 'is', 'are')} ${counted(target.length, 'entry', 'entries')}; the next one is number ${target.length}.`;
        throw new XpatchError('CONFIG_INVALID', message);
      }
      target[part] = value;
      return;
    }
    // What is inside a preset's conditions can only be set once they are there.
    if (i === 0 && target[part] === undefined) target[part] = inherited(config, part);
    const next = target[part];
    if (!isRecord(next) && !Array.isArray(next)) {
      const at = path.slice(0, i + 1).join('.');
      const wayOut =
        Array.isArray(target) && Number(part) >= target.length
          ? `There ${plural(target.length, 'is', 'are')} ${counted(target.length, 'entry', 'entries')}, counted from 0.`
          : `${at} has no settings inside it. Set ${at} itself.`;
      const message = `--set ${key}: ${wayOut}`;
      throw new XpatchError('CONFIG_INVALID', message);
    }
    target = next as Raw;
  }
}

function inherited(config: Raw, key: string): unknown {
  const value = (presetOf(config)?.config as Raw | undefined)?.[key];
  // A missing object, such as a template, begins empty; its defaults are filled in later.
  return value === undefined && key === 'template' ? {} : structuredClone(value);
}

function readYaml(text: string, fail: (problem: string) => XpatchError): unknown {
  const { parseDocument } = createRequire(import.meta.url)('yaml') as typeof import('yaml'); // few commands need it
  try {
    const document = parseDocument(text, { strict: true, uniqueKeys: true, prettyErrors: true });
    const [problem] = [...document.errors, ...document.warnings];
    if (problem) throw new Error(problem.message.split(/:?\n|; please use/)[0]); // no advice to programmers
    const value: unknown = document.toJS({ maxAliasCount: MAX_ALIASES });
    if (!isShallow(value)) throw new RangeError();
    return value;
  } catch (cause) {
    // The parser recurses into nested values.
    const why = cause instanceof RangeError || /call stack/.test(String(cause)) ? TOO_DEEP : (cause as Error).message;
    throw fail(`is not valid YAML: ${why}`);
  }
}

const TOO_DEEP = `it is nested more than ${MAX_DEPTH} deep, or an alias is inside what it repeats`;

async function readText(file: string): Promise<string> {
  const bytes = await readWhole(file, FILE);
  const other = whatAre(bytes, 'YAML');
  if (other !== undefined) throw configError(file, [other]);
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    throw configError(file, ['is not text in UTF-8']);
  }
}

function configError(file: string | undefined, problems: readonly string[]): XpatchError {
  const shown = problems.slice(0, MAX_PROBLEMS).join('; ');
  const more = problems.length > MAX_PROBLEMS ? `; and ${problems.length - MAX_PROBLEMS} more` : '';
  return new XpatchError('CONFIG_INVALID', `${file === undefined ? '' : `${file}: `}${shown}${more}.`);
}

/** A config names the model that foreign conditions need; code may hand one over without a name. */
function vectorModelProblems({ conditions, vectorModel }: Experiment): string[] {
  const problems: string[] = [];
  const need = (right: boolean, problem: string) => right || problems.push(problem);
  const foreignAt = conditions.findIndex(({ foreign }) => foreign);
  need(
    foreignAt < 0 || vectorModel !== undefined,
    `vectorModel: is missing; conditions[${foreignAt}] is foreign and needs it: name the model whose vectors to use (--set vectorModel=FILE)`,
  );
  need(
    vectorModel === undefined || conditions.some(({ foreign }) => foreign),
    'vectorModel: no condition is foreign, so it would not be used; give a patch foreign: true',
  );
  return problems;
}
