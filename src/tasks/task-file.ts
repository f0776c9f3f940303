import { createHash } from 'node:crypto';
import { XpatchError } from '../util/errors.js';
import { isRecord, parseJson } from '../util/json.js';
import { closestTo } from '../util/nearest.js';
import { readWhole } from '../util/read-file.js';
import { readRecords, recordFormat } from '../util/records.js';
import { whatAre } from '../util/what-is.js';

/** What a task file of the second form says about its items; each field may be left out. */
export interface TaskFileFields {
  /** Tasks of one domain ask about the same inputs. */
  readonly domain?: string;
  /** Ends in a colon. */
  readonly instruction?: string;
  readonly question?: string;
  readonly taskWord?: string;
}

/** A task file as it was read; the items are not checked yet. */
export interface TaskFile extends TaskFileFields {
  readonly items: readonly unknown[];
  /** SHA-256 of its bytes, hex. */
  readonly hash: string;
}

/** An item of a task file; the picture's path is as written. */
export interface RawItem {
  readonly input: string;
  readonly output: string;
  /** Other answers that are as right. */
  readonly also?: readonly string[];
  /** What its likelihood is compared among. */
  readonly choices?: readonly string[];
  readonly image?: string;
}

/** No task file has reason to be larger; the largest shipped one has less than 0.1 MB. */
const FILE = { what: 'the task file', maxBytes: 64 << 20, code: 'TASK_INVALID' } as const;
const FIELDS = ['domain', 'instruction', 'question', 'taskWord'] as const;
const ITEM_FIELDS = ['input', 'output', 'image', 'choices'] as const;

/**
 * Reads a task file: a JSON array of items, or an object with `items` and what is said about them; or a record an item, of JSON Lines
 * (`.jsonl`, `.ndjson`) or of a table with a line of names (`.csv`, `.tsv`), whose answers and choices are separated by `|`.
 *
 * @throws {XpatchError} FILE_NOT_FOUND; TASK_INVALID for what is none of these
 */
export async function readTaskFile(file: string): Promise<TaskFile> {
  const format = recordFormat(file);
  if (format !== undefined) return readRecordsFile(file, format !== 'jsonl');
  const { json, hash } = await readJsonFile(file);
  if (Array.isArray(json)) return { items: requireItems(file, json), hash };
  if (typeof json !== 'object' || json === null) throw taskError(file, 'it is neither an array nor an object');
  const { items, ...fields } = json as Record<string, unknown>;
  for (const [name, value] of Object.entries(fields)) {
    const [problem] = unknownFields([name], [...FIELDS, 'items']);
    if (problem !== undefined) throw taskError(file, problem);
    if (!isText(value)) throw taskError(file, `field "${name}": a string with more than spaces is needed`);
  }
  return { ...(fields as TaskFileFields), items: requireItems(file, items), hash };
}

async function readRecordsFile(file: string, isTable: boolean): Promise<TaskFile> {
  const hash = createHash('sha256')
    .update(await readWhole(file, FILE))
    .digest('hex');
  const items: Record<string, unknown>[] = [];
  try {
    for await (const { fields } of readRecords(file, { pipe: false })) items.push(isTable ? itemOfRow(fields) : fields);
  } catch (error) {
    if (!(error instanceof XpatchError) || error.code !== 'DATA_INVALID') throw error;
    throw new XpatchError('TASK_INVALID', error.message, { cause: error });
  }
  return { items: requireItems(file, items), hash };
}

/** An empty cell says nothing. */
function itemOfRow(fields: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const { output, choices, ...others } = Object.fromEntries(Object.entries(fields).filter(([, cell]) => cell !== ''));
  const listOf = (cell: unknown) =>
    String(cell)
      .split('|')
      .map((answer) => answer.trim());
  return {
    ...others,
    output: typeof output === 'string' && output.includes('|') ? listOf(output) : output,
    ...(choices !== undefined && { choices: listOf(choices) }),
  };
}

/** @throws {XpatchError} FILE_NOT_FOUND; TASK_INVALID for what is not JSON */
export async function readJsonFile(file: string): Promise<{ json: unknown; hash: string }> {
  const bytes = await readWhole(file, FILE);
  try {
    return { json: parseJson(bytes), hash: createHash('sha256').update(bytes).digest('hex') };
  } catch (cause) {
    const problem = whatAre(bytes, 'JSON') ?? `it ${(cause as Error).message}`;
    throw taskError(file, problem, cause);
  }
}

/** What keeps an item from being loaded, one line a field; nothing for a good one. */
export function itemProblems(item: unknown): string[] {
  if (!isRecord(item)) return ['not an object'];
  const { input, output, choices, image } = item;
  const outputs = Array.isArray(output) && output.length > 0 ? (output as unknown[]) : [output];
  const fields: [string, unknown][] = [['input', input], ...outputs.map((one): [string, unknown] => ['output', one])];
  if (image !== undefined && image !== null) fields.push(['image', image]);
  const empty = new Set(fields.filter(([, value]) => !isText(value)).map(([field]) => field));
  const problems = unknownFields(Object.keys(item), ITEM_FIELDS);
  problems.push(...[...empty].map((field) => `field "${field}": a string with more than spaces is needed`));
  if (outputs.some((one) => isText(one) && /[\r\n]/.test(one.trim()))) {
    problems.push('field "output": an answer is one line, as a line break ends it');
  }
  if (repeats(outputs)) problems.push('field "output": an answer appears twice');
  if (choices !== undefined && choices !== null) problems.push(...choiceProblems(choices, outputs));
  return problems;
}

/** What is not read would be missing without a word: a misspelt `image` is a picture that nobody sees. */
function unknownFields(names: readonly string[], known: readonly string[]): string[] {
  return names
    .filter((name) => !known.includes(name))
    .map((name) => {
      const near = closestTo(name, known);
      const hint = near === undefined ? '' : ` (did you mean ${near}?)`;
      return `field ${JSON.stringify(name)} is not one of ${known.join(', ')}${hint}`;
    });
}

function choiceProblems(choices: unknown, answers: readonly unknown[]): string[] {
  const wrong = (what: string) => [`field "choices": ${what}`];
  if (!Array.isArray(choices) || choices.length < 2 || !choices.every(isText))
    return wrong('a list of texts is needed');
  if (repeats(choices)) return wrong('a choice appears twice');
  const missing = answers.find((answer) => isText(answer) && !choices.includes(answer));
  return missing === undefined ? [] : wrong(`the answer ${JSON.stringify(missing)} is not among them`);
}

/** Whether two are the same text but for spaces around it, which no score sees. */
function repeats(texts: readonly unknown[]): boolean {
  return new Set(texts.map((text) => (isText(text) ? text.trim() : text))).size < texts.length;
}

/** What an item says that has no problems. */
export function rawItem(item: unknown): RawItem {
  const {
    input,
    output: given,
    choices,
    image,
  } = item as {
    input: string;
    output: string | string[];
    choices?: string[] | null;
    image?: string | null;
  };
  const [output, ...also] = [given].flat() as [string, ...string[]];
  return {
    input,
    output,
    ...(also.length > 0 && { also }),
    ...(choices && { choices }),
    ...(typeof image === 'string' && { image }),
  };
}

/** @throws {XpatchError} TASK_INVALID, naming the item and the field */
export function checkItem(file: string, index: number, item: unknown): RawItem {
  const [problem] = itemProblems(item);
  if (problem !== undefined) throw taskError(file, `item ${index}: ${problem}`);
  return rawItem(item);
}

function requireItems(file: string, items: unknown): readonly unknown[] {
  if (Array.isArray(items) && items.length > 0) return items;
  throw taskError(file, 'it has no array with at least one item');
}

function isText(value: unknown): value is string {
  return typeof value === 'string' && value.trim() !== '';
}

function taskError(file: string, problem: string, cause?: unknown): XpatchError {
  const wayOut =
    'A task file is a JSON array of { "input": "Peru", "output": "Lima", "image": "peru.png" (optional) }, or such fields in .jsonl, .csv or .tsv.';
  return new XpatchError('TASK_INVALID', `${file}: ${problem}. ${wayOut}`, { cause });
}
