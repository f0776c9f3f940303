import { createHash } from 'node:crypto';
import { dirname, isAbsolute, relative, resolve, sep } from 'node:path';
import { XpatchError } from '../util/errors.js';
import { writeFileAtomic } from '../util/files.js';
import { isRecord } from '../util/json.js';
import { type CheckOptions, checkItems, type TaskCheck } from './check.js';
import { quote, quoteSome } from './findings.js';
import { readJsonFile, type TaskFileFields } from './task-file.js';

export interface ImportOptions extends TaskFileFields, Pick<CheckOptions, 'firstTokens' | 'signal' | 'onProgress'> {
  /** Folder that the `image` paths of the file start from. */
  readonly images: string;
  /** Task file to write. */
  readonly output: string;
  /** Folder that the paths in it start from. Defaults to its own. */
  readonly folder?: string;
}

interface Entry {
  readonly input: string;
  readonly output: string;
  readonly image: string;
  readonly question?: string;
}

/** The paper's data, and files of visual question answering. */
const FORMS = [
  ['input', 'output', 'image'],
  ['image', 'question', 'answer'],
] as const;

/**
 * Makes a task file of the paper's data, a JSON list of `{ "input", "output", "image" }`, or of visual question answering,
 * a list of `{ "image", "question", "answer" }`, and checks it. The pictures stay where they are; the task file names them
 * relative to itself.
 *
 * A task asks one thing: of a file with several questions, `question` chooses one. Its items have the picture's path as
 * input, which says nothing, so that only pictures can be examples and queries; its instruction defaults to the question
 * with a colon at its end.
 *
 * Nothing is written when an entry has other fields than these, or a picture is missing or broken.
 *
 * @throws {XpatchError} FILE_NOT_FOUND; TASK_INVALID, naming the entries that are wrong; FILE_WRITE; ABORTED
 */
export async function importTask(file: string, options: ImportOptions): Promise<TaskCheck> {
  const {
    images,
    output,
    folder = dirname(resolve(output)),
    firstTokens,
    signal,
    onProgress,
    question,
    ...given
  } = options;
  const { json } = await readJsonFile(file);
  const entries = chooseQuestion(file, readEntries(file, json, resolve(images)), question);
  const items = entries.map(({ input, output, image }) => ({
    input,
    output,
    image: relative(folder, resolve(images, image)).split(sep).join('/'),
  }));
  const asked = question ?? entries[0]?.question;
  const instruction = given.instruction ?? asked?.replace(/[?:\s]*$/, ':');
  const fields = { ...given, ...(instruction && { instruction }), ...(asked && { question: asked }) };
  const content = taskFileText(fields, items);
  const hash = createHash('sha256').update(content).digest('hex');
  const place = { name: output, file: resolve(output), imagesRoot: folder };
  const check = await checkItems(place, { items, hash }, { firstTokens, signal, onProgress });
  const broken = check.findings.filter(({ kind }) => kind === 'missing-picture' || kind === 'broken-picture');
  if (broken.length > 0) {
    throw refusal(
      file,
      broken.map(({ message }) => message.replace(/^item/, 'entry')),
      entries.length,
    );
  }
  await writeFileAtomic(output, content);
  return check;
}

/** One item a line, as in the shipped files; a bare list when there is nothing to say about them. */
function taskFileText(fields: TaskFileFields, items: readonly object[]): string {
  const lines = items.map((item) => JSON.stringify(item));
  if (Object.keys(fields).length === 0) return `[\n  ${lines.join(',\n  ')}\n]\n`;
  const about = Object.entries(fields).map(([name, value]) => `  ${JSON.stringify(name)}: ${JSON.stringify(value)},\n`);
  return `{\n${about.join('')}  "items": [\n    ${lines.join(',\n    ')}\n  ]\n}\n`;
}

function readEntries(file: string, json: unknown, images: string): Entry[] {
  if (!Array.isArray(json) || json.length === 0) {
    throw new XpatchError('TASK_INVALID', `${file}: not a list with at least one entry. ${WAY_OUT}`);
  }
  const form = FORMS.find((fields) => fields.every((field) => has(json[0], field))) ?? FORMS[0];
  const problems = json.flatMap((entry: unknown, i) =>
    entryProblems(entry, form, images).map((problem) => `entry ${i}: ${problem}`),
  );
  if (problems.length > 0) throw refusal(file, problems, json.length);
  return (json as Record<string, string>[]).map((entry) => {
    const { input, output, image = '', question, answer } = entry;
    if (form === FORMS[0]) return { input, output, image } as Entry;
    return { input: image, output: answer as string, image, question };
  });
}

function entryProblems(entry: unknown, form: readonly string[], images: string): string[] {
  if (!isRecord(entry)) return ['not an object'];
  const unknown = Object.keys(entry).filter((field) => !form.includes(field));
  const problems = unknown.map((field) => `field ${quote(field)} is not one of ${form.join(', ')}`);
  for (const field of form) {
    const value = entry[field];
    if (typeof value !== 'string' || value.trim() === '') {
      problems.push(`field "${field}": a string with more than spaces is needed`);
    } else if ((field === 'output' || field === 'answer') && /[\r\n]/.test(value.trim())) {
      problems.push(`field "${field}": an answer is one line, as a line break ends it`);
    } else if (field === 'image') {
      const path = relative(images, resolve(images, value));
      const outside = isAbsolute(value) || path.split(sep)[0] === '..' || isAbsolute(path);
      if (outside) problems.push(`field "image": ${quote(value)} leads outside ${images}`);
    }
  }
  return problems;
}

function chooseQuestion(file: string, entries: readonly Entry[], question: string | undefined): readonly Entry[] {
  const questions = [...new Set(entries.flatMap((entry) => entry.question ?? []))];
  if (questions.length === 0 || (questions.length === 1 && question === undefined)) return entries;
  const chosen = entries.filter((entry) => entry.question === question);
  if (chosen.length > 0) return chosen;
  const problem = question === undefined ? 'a task asks one' : `${quote(question)} is not one of them`;
  const message = `${file} has ${questions.length} questions (${quoteSome(questions)}), but ${problem}`;
  throw new XpatchError('TASK_INVALID', `${message}. Choose one of them.`);
}

const WAY_OUT =
  'The paper\'s files are JSON lists of { "input": "Peru", "output": "Lima", "image": "peru.png" }; those of visual ' +
  'question answering have image, question and answer.';

function refusal(file: string, problems: readonly string[], entries: number): XpatchError {
  const shown = problems.slice(0, 5).join('; ');
  const more = problems.length > 5 ? `; and ${problems.length - 5} more` : '';
  return new XpatchError('TASK_INVALID', `${file}, ${entries} entries: ${shown}${more}. ${WAY_OUT}`);
}

function has(entry: unknown, field: string): boolean {
  return typeof entry === 'object' && entry !== null && Object.hasOwn(entry, field);
}
