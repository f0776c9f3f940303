import { existsSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { basename, dirname, extname, join, resolve } from 'node:path';
import { nameOfFile } from '../prompt/prompt-record.js';
import { XpatchError } from '../util/errors.js';
import { didYouMean } from '../util/nearest.js';
import { PACKAGE_ROOT } from '../util/package-root.js';
import { checkItem, type RawItem, readTaskFile } from './task-file.js';
import { readTaskIndex, TASKS_FOLDER, type TaskIndexEntry } from './task-index.js';

/** One fact: the answer of a task for one input, and a picture that may stand for the input. */
export interface TaskItem {
  readonly input: string;
  /** What examples show, and probabilities and likelihoods are of. */
  readonly output: string;
  /** Other answers that count as right. Defaults to none. */
  readonly also?: readonly string[];
  /** What the likelihood of the answer is compared among. Defaults to all answers of the task. */
  readonly choices?: readonly string[];
  /** Absolute path. Only when the task was loaded with pictures. */
  readonly image?: string;
}

/** A mapping from inputs to answers, e.g. from countries to capitals. */
export interface Task {
  readonly name: string;
  /** What the inputs are; tasks of one domain ask about the same things. Defaults to the name of a file of yours. */
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
  /**
   * What results call the pictures, by absolute path: the path from the package's folder of a shipped one, what the file says
   * (a path from where its image paths start) of others. Only when the task was loaded with pictures.
   */
  readonly pictures?: ReadonlyMap<string, string>;
}

/** Whether the items come with pictures, and which. */
export interface LoadTaskOptions {
  /** Look up the pictures of the items too. Defaults to false: text only, no picture needs to exist. */
  readonly pictures?: boolean;
  /**
   * Drawing style of the shipped pictures, a folder of data/images. An item that the style has no picture of counts as one
   * without; a shipped task that has pictures of its own allows no other style than the default. Defaults to `twemoji`, the style the
   * demo model was never trained on.
   */
  readonly style?: string;
  /** Folder that the `image` paths of a task file start from; every picture must exist. Defaults to the file's folder. */
  readonly imagesRoot?: string;
  /** Instruction of a task file, ending in a colon. Defaults to what the file says, if it does. */
  readonly instruction?: string;
}

const IMAGES_FOLDER = join(PACKAGE_ROOT, 'data', 'images');
const DEFAULT_STYLE = 'twemoji';

/**
 * Loads a shipped task by name, or a JSON file: an array of `{ "input", "output", "image"? }`, as the paper's own files are,
 * or an object that has it as `items`, along with any of `instruction`, `question`, `taskWord` and `domain`; or JSON Lines, CSV or TSV with
 * these fields. `output` may be a list, in tables with `|` between the answers: the first one is shown, all are right. `choices` is a list of
 * what the likelihood of an item's answer is compared among. Other fields are refused.
 *
 * @param source a name (see `listTasks`) or the path of a file (it contains a slash or a dot)
 * @throws {XpatchError} FILE_NOT_FOUND, for a picture too; TASK_INVALID, naming the file, the item and the field
 *
 * @example
 * ```ts
 * const task = await loadTask('country-capital', { pictures: true });
 * const { input, output, image } = task.items[0];
 * ```
 */
export async function loadTask(source: string, options: LoadTaskOptions = {}): Promise<Task> {
  const { name, file, imagesRoot, entry } = await locateTask(source, options);
  const { items: raw, hash, ...fields } = await readItems(file);
  const root = options.pictures ? imagesRoot : undefined;
  const items = entry ? shippedPictures(raw, root) : filePictures(raw, file, root);
  const shown = options.pictures && { pictures: pictureNames(source, raw, items) };
  if (entry) return freeze({ name, ...entry, file, hash, items, ...shown });
  const { instruction = fields.instruction } = options;
  const task = { domain: name, ...fields, name, file, hash, items, ...shown };
  return freeze(instruction === undefined ? task : { ...task, instruction });
}

/** Where a task and its pictures are. */
export interface TaskPlace {
  readonly name: string;
  readonly file: string;
  /** Folder that `image` paths start from. */
  readonly imagesRoot: string;
  /** What the index says of a task of the paper. */
  readonly entry?: TaskIndexEntry;
}

/** @throws {XpatchError} TASK_INVALID for a name that no shipped task or style has, and for a style of a task without styles */
export async function locateTask(
  source: string,
  { imagesRoot, style = DEFAULT_STYLE }: Pick<LoadTaskOptions, 'imagesRoot' | 'style'> = {},
): Promise<TaskPlace> {
  if (isTaskFile(source)) {
    const file = resolve(source);
    return { name: basename(file, extname(file)), file, imagesRoot: resolve(imagesRoot ?? dirname(file)) };
  }
  const entry = (await readTaskIndex()).get(source);
  const file = join(TASKS_FOLDER, `${source}.json`);
  if (entry) return { name: source, file, imagesRoot: styleFolder(style), entry };
  const more = await moreTasks();
  if (more.includes(source)) {
    if (style !== DEFAULT_STYLE) {
      const message = `Task ${source} has pictures of its own, and not in the style ${JSON.stringify(style)}`;
      throw new XpatchError('TASK_INVALID', `${message}. Leave out the style, or ask for it without this task.`);
    }
    return { name: source, file, imagesRoot: TASKS_FOLDER };
  }
  const names = [...(await listTasks()), ...more];
  const hint = didYouMean(source, names);
  const wayOut = `Shipped tasks: ${names.join(', ')}. For a file of yours give its path, such as ./mine.json or ./mine.csv.`;
  throw new XpatchError('TASK_INVALID', `There is no task named ${JSON.stringify(source)}.${hint} ${wayOut}`);
}

/**
 * Names of the shipped tasks that are the paper's, in its order.
 *
 * @example
 * ```ts
 * for (const name of await listTasks()) console.log((await loadTask(name)).instruction);
 * ```
 */
export async function listTasks(): Promise<string[]> {
  return [...(await readTaskIndex()).keys()];
}

/** Shipped tasks other than the paper's: files that say everything themselves. */
async function moreTasks(): Promise<string[]> {
  const index = await readTaskIndex();
  const names = (await readdir(TASKS_FOLDER)).filter((file) => file.endsWith('.json')).map((file) => file.slice(0, -5));
  return names.filter((name) => name !== 'index' && !index.has(name)).sort();
}

async function readItems(file: string) {
  const { items, ...rest } = await readTaskFile(file);
  return { ...rest, items: items.map((item, index) => checkItem(file, index, item)) };
}

/** Whether a source is a file rather than the name of a shipped task. */
export function isTaskFile(source: string): boolean {
  return /[./\\]/.test(source);
}

function freeze(task: Task): Task {
  return Object.freeze({ ...task, items: Object.freeze(task.items.map((item) => Object.freeze(item))) });
}

function styleFolder(style: string): string {
  const folder = join(IMAGES_FOLDER, style);
  // A style is a name, never a path out of the folder.
  if (/^[\w-]+$/.test(style) && existsSync(folder)) return folder;
  const message = `There are no shipped pictures in the style ${JSON.stringify(style)}.`;
  throw new XpatchError('TASK_INVALID', `${message} The styles are the folders of ${IMAGES_FOLDER}.`);
}

function shippedPictures(items: readonly RawItem[], root: string | undefined): TaskItem[] {
  return items.map(({ image, ...item }) => {
    const path = root !== undefined && image !== undefined ? join(root, image) : undefined;
    return path !== undefined && existsSync(path) ? { ...item, image: path } : item;
  });
}

function filePictures(items: readonly RawItem[], file: string, root: string | undefined): TaskItem[] {
  return items.map(({ image, ...item }, index) => {
    if (root === undefined || image === undefined) return item;
    const path = resolve(root, image);
    if (existsSync(path)) return { ...item, image: path };
    const wayOut = 'Name the folder that image paths start from, or correct the path.';
    throw new XpatchError('FILE_NOT_FOUND', `${file}: item ${index}, field "image": ${path} does not exist. ${wayOut}`);
  });
}

function pictureNames(source: string, raw: readonly RawItem[], items: readonly TaskItem[]): Map<string, string> {
  const names = new Map<string, string>();
  for (const [i, { image }] of items.entries()) {
    if (image !== undefined) names.set(image, isTaskFile(source) ? (raw[i]?.image as string) : nameOfFile(image));
  }
  return names;
}

/** The folder that the names of a task's pictures start from: `resolve` makes paths of them. */
export function picturesFolder(source: string): string {
  return isTaskFile(source) ? dirname(resolve(source)) : PACKAGE_ROOT;
}
