import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { readFile, stat } from 'node:fs/promises';
import { basename, dirname, extname, join, resolve } from 'node:path';
import { XpatchError } from '../errors.js';
import { PACKAGE_ROOT } from '../package-root.js';
import { readTaskIndex, TASKS_FOLDER } from './task-index.js';

/** One fact: the answer of a task for one input, and a picture that may stand for the input. */
export interface TaskItem {
  readonly input: string;
  readonly output: string;
  /** Absolute path. Only when the task was loaded with pictures. */
  readonly image?: string;
}

export interface Task {
  readonly name: string;
  /** What the inputs are; tasks of one domain ask about the same things. The task's own name for a file of yours. */
  readonly domain: string;
  /** The raw instruction, ending in a colon; shipped tasks have one. */
  readonly instruction?: string;
  /** The task as a question about one input, e.g. `What is the color of the food?`; shipped tasks have one. */
  readonly question?: string;
  /** The word a logit lens may show for the task, e.g. `capital`; shipped tasks have one. */
  readonly taskWord?: string;
  /** Absolute path of the file and SHA-256 of its bytes, hex. */
  readonly file: string;
  readonly hash: string;
  readonly items: readonly TaskItem[];
}

export interface LoadTaskOptions {
  /** Look up the pictures of the items too. Defaults to false: text only, no picture needs to exist. */
  readonly pictures?: boolean;
  /**
   * Drawing style of the shipped pictures, a folder of data/images. An item that the style has no picture of counts as one
   * without. Defaults to `twemoji`, the style the demo model was never trained on.
   */
  readonly style?: string;
  /** Folder that the `image` paths of a task file start from; every picture must exist. Defaults to the file's folder. */
  readonly imagesRoot?: string;
  /** Instruction of a task file, ending in a colon. */
  readonly instruction?: string;
}

/** No task file has reason to be larger; the largest shipped one has less than 0.1 MB. */
const MAX_FILE_BYTES = 64 * 1024 * 1024;
const IMAGES_FOLDER = join(PACKAGE_ROOT, 'data', 'images');
const DEFAULT_STYLE = 'twemoji';

/**
 * Loads a shipped task by name, or a JSON file: an array of `{ "input", "output", "image"? }`, as the paper's own files are.
 *
 * @param source a name (see `listTasks`) or the path of a file (it contains a slash or ends in .json)
 * @throws {XpatchError} FILE_NOT_FOUND; TASK_INVALID, naming the file, the item and the field
 */
export async function loadTask(source: string, options: LoadTaskOptions = {}): Promise<Task> {
  if (isPath(source)) return loadFile(source, options);
  const entry = (await readTaskIndex()).get(source);
  if (entry === undefined) {
    const names = (await listTasks()).join(', ');
    const wayOut = `Shipped tasks: ${names}. For a file of yours give its path, ending in .json.`;
    throw new XpatchError('TASK_INVALID', `There is no task named ${JSON.stringify(source)}. ${wayOut}`);
  }
  const file = join(TASKS_FOLDER, `${source}.json`);
  const { items, hash } = await readItems(file);
  const root = options.pictures ? styleFolder(options.style ?? DEFAULT_STYLE) : undefined;
  return freeze({ name: source, ...entry, file, hash, items: shippedPictures(items, root) });
}

/** Names of the shipped tasks, in the paper's order. */
export async function listTasks(): Promise<string[]> {
  return [...(await readTaskIndex()).keys()];
}

async function loadFile(source: string, options: LoadTaskOptions): Promise<Task> {
  const file = resolve(source);
  const { items, hash } = await readItems(file);
  const name = basename(file, extname(file));
  const { instruction } = options;
  const root = options.pictures ? resolve(options.imagesRoot ?? dirname(file)) : undefined;
  const task = { name, domain: name, file, hash, items: filePictures(items, file, root) };
  return freeze(instruction === undefined ? task : { ...task, instruction });
}

function isPath(source: string): boolean {
  return source.endsWith('.json') || source.includes('/') || source.includes('\\');
}

function freeze(task: Task): Task {
  return Object.freeze({ ...task, items: Object.freeze(task.items.map((item) => Object.freeze(item))) });
}

interface RawItem {
  readonly input: string;
  readonly output: string;
  readonly image?: string;
}

async function readItems(file: string): Promise<{ items: RawItem[]; hash: string }> {
  let bytes: Buffer;
  try {
    const { size } = await stat(file);
    if (size > MAX_FILE_BYTES) throw taskError(file, `it has ${size} bytes, more than a task file may have (64 MiB)`);
    bytes = await readFile(file);
  } catch (cause) {
    if (cause instanceof XpatchError) throw cause;
    const message = `Cannot read the task file ${file}: ${(cause as Error).message}. Check the path.`;
    throw new XpatchError('FILE_NOT_FOUND', message, { cause });
  }
  let json: unknown;
  try {
    json = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch (cause) {
    throw taskError(file, `it is not JSON in UTF-8 (${(cause as Error).message})`, cause);
  }
  if (!Array.isArray(json) || json.length === 0) throw taskError(file, 'it is not an array with at least one item');
  const items = json.map((item: unknown, index) => checkItem(file, index, item));
  return { items, hash: createHash('sha256').update(bytes).digest('hex') };
}

function checkItem(file: string, index: number, item: unknown): RawItem {
  if (typeof item !== 'object' || item === null || Array.isArray(item)) {
    throw taskError(file, `item ${index} is not an object`);
  }
  const { input, output, image } = item as Record<string, unknown>;
  const text = (field: string, value: unknown): string => {
    if (typeof value === 'string' && value.trim() !== '') return value;
    throw taskError(file, `item ${index}, field "${field}": a string with more than blanks is needed`);
  };
  const checked = { input: text('input', input), output: text('output', output) };
  if (/[\r\n]/.test(checked.output.trim())) {
    throw taskError(file, `item ${index}, field "output": an answer is one line, as a line break ends it`);
  }
  return image === undefined || image === null ? checked : { ...checked, image: text('image', image) };
}

function taskError(file: string, problem: string, cause?: unknown): XpatchError {
  const wayOut =
    'A task file is a JSON array of { "input": "Peru", "output": "Lima", "image": "peru.png" (optional) }.';
  return new XpatchError('TASK_INVALID', `${file}: ${problem}. ${wayOut}`, { cause });
}

function styleFolder(style: string): string {
  const folder = join(IMAGES_FOLDER, style);
  // A style is a name, never a path out of the folder.
  if (/^[\w-]+$/.test(style) && existsSync(folder)) return folder;
  const message = `There are no shipped pictures in the style ${JSON.stringify(style)}.`;
  throw new XpatchError('TASK_INVALID', `${message} The styles are the folders of ${IMAGES_FOLDER}.`);
}

function shippedPictures(items: readonly RawItem[], root: string | undefined): TaskItem[] {
  return items.map(({ input, output, image }) => {
    const path = root !== undefined && image !== undefined ? join(root, image) : undefined;
    return path !== undefined && existsSync(path) ? { input, output, image: path } : { input, output };
  });
}

function filePictures(items: readonly RawItem[], file: string, root: string | undefined): TaskItem[] {
  return items.map(({ input, output, image }, index) => {
    if (root === undefined || image === undefined) return { input, output };
    const path = resolve(root, image);
    if (existsSync(path)) return { input, output, image: path };
    const wayOut = 'Name the folder that the image paths start from, or mend the path.';
    throw new XpatchError('TASK_INVALID', `${file}: item ${index}, field "image": ${path} does not exist. ${wayOut}`);
  });
}
