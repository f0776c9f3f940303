import { access } from 'node:fs/promises';
import { resolve } from 'node:path';
import { imageFacts } from '../images/image.js';
import { XpatchError } from '../util/errors.js';
import { groupBy } from '../util/group.js';
import { rightAnswers } from './answers.js';
import { answerFindings } from './check-answers.js';
import { type Finding, type FirstTokens, finding, name, quote, repeated } from './findings.js';
import { splitTask } from './split.js';
import { locateTask, type TaskItem, type TaskPlace } from './task.js';
import { itemProblems, type RawItem, rawItem, readTaskFile, type TaskFile } from './task-file.js';

export interface CheckOptions {
  /** Folder that the `image` paths of a file start from. Defaults to the file's folder. */
  readonly imagesRoot?: string;
  /** Drawing style of a shipped task. Defaults to `twemoji`. */
  readonly style?: string;
  /** Splits that are searched for leaks. Defaults to 1, 2, 3 */
  readonly seeds?: readonly number[];
  /** Sizes of these splits. Default to the paper's, 30 and 100 */
  readonly validation?: number;
  readonly test?: number;
  /** Only splits of the items with a picture, or only those of all items, and then no picture is looked at. Defaults to both. */
  readonly pictures?: boolean;
  /** Tells which answers begin with the same token in some model. Defaults to none, and no such finding. */
  readonly firstTokens?: FirstTokens;
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: { done: number; total: number }) => void;
}

/** What a task file holds, and what is wrong with it. */
export interface TaskCheck {
  readonly name: string;
  readonly file: string;
  /** SHA-256 of the file, hex. */
  readonly hash: string;
  readonly items: number;
  /** Different inputs among the items that can be used, and among those of them that have a picture. */
  readonly inputs: number;
  readonly inputsWithPicture: number;
  readonly answers: number;
  /** Splits that were searched for leaks. */
  readonly seeds: readonly number[];
  /** Errors first. */
  readonly findings: readonly Finding[];
}

/** An item that can be used, with its place in the file. */
interface Entry extends TaskItem {
  readonly index: number;
  readonly pictureHash?: string;
}

/** The paper's sizes; five shots and a query are the least that a test needs. */
const VALIDATION = 30;
const TEST = 100;
const LEAST_TEST = 6;

/**
 * Looks for everything in a task that would stop an experiment or spoil its numbers. Errors are what the loader refuses
 * and what makes scores wrong: pictures that are missing or broken, one input with two answers, inputs or pictures that
 * are on both sides of a split. Warnings are what to know when the numbers are read.
 *
 * @param source a task file, or the name of a shipped task
 * @throws {XpatchError} FILE_NOT_FOUND; TASK_INVALID for what is not a task file at all; ABORTED
 */
export async function checkTask(source: string, options: CheckOptions = {}): Promise<TaskCheck> {
  const place = await locateTask(source, options);
  return checkItems(place, await readTaskFile(place.file), options);
}

/** The same for items that are not in a file yet: `place.file` is where they will be. */
export async function checkItems(
  place: TaskPlace,
  { items, hash }: Pick<TaskFile, 'items' | 'hash'>,
  options: CheckOptions = {},
): Promise<TaskCheck> {
  const { seeds = [1, 2, 3], pictures } = options;
  const findings: Finding[] = [];
  const good: (RawItem & { index: number })[] = [];
  for (const [index, item] of items.entries()) {
    const problems = itemProblems(item);
    findings.push(...problems.map((problem) => finding('error', 'invalid-item', [index], `item ${index}: ${problem}`)));
    if (problems.length > 0) continue;
    const { image, ...rest } = rawItem(item);
    good.push({ index, ...rest, ...(pictures !== false && image !== undefined && { image }) });
  }
  const entries = await lookAtPictures(good, place.imagesRoot, findings, options);
  findings.push(...sameInputs(entries));
  findings.push(...alike(entries, place, { ...options, seeds }));
  findings.push(...(await answerFindings(entries, options.firstTokens, options.signal)));
  const inputs = new Set(entries.map(({ input }) => input)).size;
  const inputsWithPicture = new Set(entries.filter(({ image }) => image).map(({ input }) => input)).size;
  findings.push(...tooFew(inputs, inputsWithPicture));
  return {
    name: place.name,
    file: place.file,
    hash,
    items: items.length,
    inputs,
    inputsWithPicture,
    answers: new Set(entries.flatMap(rightAnswers).map((answer) => answer.trim())).size,
    seeds,
    findings: [...findings.filter(({ level }) => level === 'error'), ...findings.filter((f) => f.level === 'warning')],
  };
}

/** Decodes every picture. An item with a bad picture is kept without it. */
async function lookAtPictures(
  items: readonly (RawItem & { index: number })[],
  root: string,
  findings: Finding[],
  { signal, onProgress }: CheckOptions,
): Promise<Entry[]> {
  const hashes = new Map<string, string | undefined>();
  const entries: Entry[] = [];
  for (const [done, { index, image, ...item }] of items.entries()) {
    if (signal?.aborted) throw new XpatchError('ABORTED', 'The check was aborted.', { cause: signal.reason });
    onProgress?.({ done, total: items.length });
    const path = image === undefined ? undefined : resolve(root, image);
    if (path !== undefined && !hashes.has(path)) {
      hashes.set(path, undefined);
      const problem = await imageFacts(path).then(
        ({ hash }) => void hashes.set(path, hash),
        (error: XpatchError) => {
          if (error.code === 'FILE_WRITE') throw error; // the picture is good, but a result would replace it
          return error.message;
        },
      );
      if (typeof problem === 'string') {
        const missing = await access(path).then(
          () => false,
          () => true,
        );
        findings.push(
          finding('error', missing ? 'missing-picture' : 'broken-picture', [index], `item ${index}: ${problem}`),
        );
      }
    }
    const pictureHash = path === undefined ? undefined : hashes.get(path);
    entries.push({ index, ...item, ...(pictureHash !== undefined && { image: path, pictureHash }) });
  }
  return entries;
}

function sameInputs(entries: readonly Entry[]): Finding[] {
  return repeated(entries, ({ input }) => input).map((group) => {
    const answers = differentAnswers(group);
    const which = `${name(group)} have the same input ${quote(group[0]?.input as string)}`;
    const items = group.map(({ index }) => index);
    if (answers.length > 1) {
      const shown = answers.map((some) => some.map(quote).join(' or ')).join(', ');
      return finding('error', 'contradiction', items, `${which} and different answers: ${shown}`);
    }
    const pictured = group.find(({ image }) => image !== undefined);
    const other = pictured && pictured !== group[0] ? `, and item ${pictured.index} where pictures are needed` : '';
    return finding('warning', 'duplicate', items, `${which}; only the first counts${other}`);
  });
}

/** The right answers of these items, where they differ; in another order they are the same. */
function differentAnswers(group: readonly Entry[]): string[][] {
  const answers = group.map((item) => rightAnswers(item).map((answer) => answer.trim()));
  const groups = groupBy(answers, (some) => JSON.stringify(some.toSorted()));
  return [...groups.values()].map(([first]) => first as string[]);
}

type Splits = Pick<CheckOptions, 'pictures' | 'validation' | 'test'> & { readonly seeds: readonly number[] };

/** Different inputs that are as good as the same: by their picture, or but for case and spaces. */
function alike(
  entries: readonly Entry[],
  { name: taskName, file }: TaskPlace,
  { seeds, pictures: only, validation: nValidation = VALIDATION, test: nTest = TEST }: Splits,
): Finding[] {
  const distinct = firsts(entries);
  const pictured = firsts(entries.filter(({ image }) => image !== undefined));
  const sides = (only === undefined ? [false, true] : [only]).flatMap((pictures) => {
    const task = {
      name: taskName,
      domain: taskName,
      file,
      hash: '',
      items: pictures ? pictured : distinct,
    };
    if (task.items.length < nValidation + 1) return [];
    return seeds.map((seed) => {
      const { validation, test } = splitTask(task, seed, { pictures, validation: nValidation, test: nTest });
      return { seed, pictures, validation: inputsOf(validation), test: inputsOf(test) };
    });
  });
  const report = (kind: 'same-picture' | 'near-duplicate', what: string) => (group: readonly Entry[]) => {
    const leaks = sides.filter(
      ({ validation, test, pictures }) =>
        (pictures || kind === 'near-duplicate') &&
        group.some(({ input }) => validation.has(input)) &&
        group.some(({ input }) => test.has(input)),
    );
    const indices = group.map(({ index }) => index);
    const which = `${name(group)} (${group.map(({ input }) => quote(input)).join(', ')}) have ${what}`;
    const message = differentAnswers(group).length === 1 ? which : `${which} but different answers`;
    if (leaks.length === 0) return finding('warning', kind, indices, message);
    const where = [...new Set(leaks.map(({ seed }) => seed))].join(', ');
    return finding('error', 'leak', indices, `${message}, and are split into validation and test under seed ${where}`);
  };
  return [
    ...repeated(pictured, ({ pictureHash }) => pictureHash as string).map(report('same-picture', 'the same picture')),
    ...repeated(distinct, ({ input }) => folded(input)).map(
      report('near-duplicate', 'inputs that differ only in case or spaces'),
    ),
  ];
}

/** The first item of every input: only that one counts, as in `splitTask`. */
function firsts(entries: readonly Entry[]): Entry[] {
  const first = new Map<string, Entry>();
  for (const entry of entries) if (!first.has(entry.input)) first.set(entry.input, entry);
  return [...first.values()];
}

function tooFew(inputs: number, pictured: number): Finding[] {
  const wanted = VALIDATION + TEST;
  const missing = (n: number, kind: string, level: Finding['level']) =>
    finding(
      level,
      'too-few-items',
      [],
      `${n} ${kind} are fewer than ${wanted}: ${VALIDATION} for validation and ${TEST} for testing`,
    );
  const findings: Finding[] = [];
  if (inputs < wanted)
    findings.push(missing(inputs, 'different inputs', inputs < VALIDATION + LEAST_TEST ? 'error' : 'warning'));
  if (pictured > 0 && pictured < wanted && pictured < inputs) {
    findings.push(missing(pictured, 'different inputs with a picture', 'warning'));
  }
  return findings;
}

function inputsOf(items: readonly TaskItem[]): Set<string> {
  return new Set(items.map(({ input }) => input));
}

function folded(text: string): string {
  return text.normalize('NFKC').toLowerCase().trim().replace(/\s+/g, ' ');
}
