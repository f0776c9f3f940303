import { HOOKS, type HookName, type Steps } from '../hooks/types.js';
import type { PicturePositions, TextPositions } from '../prompt/types.js';
import { didYouMean } from '../util/nearest.js';
import { usageError } from './errors.js';
import {
  type ArgumentsOf,
  choice,
  flag,
  grouped,
  number,
  type Option,
  orList,
  parsed,
  several,
  text,
  toFolder,
  vary,
  whole,
} from './option.js';

/** Where a picture goes in a prompt. */
export const IMAGE = '<image>';

// The vocabulary: an option that two commands share is here, once. A command may vary its description or default.

export const OUTPUT_OPTIONS = {
  json: flag('Print the result, or the error, as one JSON object'),
  quiet: flag('Show no progress and no notes on stderr'),
};
export type OutputArguments = ArgumentsOf<typeof OUTPUT_OPTIONS>;

/** The model of a command that may do without; others take `MODEL_OPTIONS`. */
export const MODEL = text('GGUF file, a name from `models list`, or hf:USER/REPO[:Q4_K_M]; else $XPATCH_MODEL', {
  letter: 'm',
  value: 'MODEL',
  completes: 'model',
});
export const MMPROJ = text("GGUF file of the picture encoder. Defaults to the model's, if -m is a name or on the hub", {
  value: 'FILE',
  completes: 'file',
});
export const DEVICE = vary(text('auto, cpu, or a device that doctor lists', { value: 'NAME' }), { default: 'auto' });
export const THREADS = whole(1, 'CPU threads. Defaults to 1 for models under 64 MB, else the cores, at most 8');

/** Which model, and where it runs; of these, only the kernels affect its numbers. */
export const DEVICE_OPTIONS = grouped('Model', {
  model: vary(MODEL, { required: true }),
  mmproj: MMPROJ,
  device: DEVICE,
  rpc: parsed('Servers that also hold layers, separated by commas; see rpc-server', parseTexts, { value: 'HOST:PORT' }),
  gpuLayers: whole(0, 'Layers to keep on the device. Defaults to all'),
  threads: THREADS,
  imageCache: text('Folder that keeps encoded pictures between runs', { value: 'FOLDER', completes: 'folder' }),
});

/** What every command that runs a model takes. */
export const MODEL_OPTIONS = {
  ...DEVICE_OPTIONS,
  ...grouped('Model', {
    imageWidth: whole(1, "Scale pictures to this width first; the paper's is 224. Defaults to their own"),
    nCtx: whole(1, 'Positions that a context holds. Defaults to 4096'),
    nUbatch: whole(1, 'Positions decoded at once. Defaults to 512'),
    flashAttention: choice(['on', 'off', 'auto'], 'Defaults to auto, on wherever it can be'),
  }),
};
export type ModelArguments = ArgumentsOf<typeof MODEL_OPTIONS>;

/** A place to write to. */
export const OUTPUT_FILE = text('File to write, or - for standard output', {
  letter: 'o',
  value: 'FILE',
  completes: 'file',
});
export const OUTPUT_FOLDER = parsed('Folder to write to', toFolder, {
  letter: 'o',
  value: 'FOLDER',
  completes: 'folder',
});
/** If the run folder is the result, `--report` names it too. */
export const RUN_FOLDER = { ...OUTPUT_FOLDER, formerly: ['report'] };
export const REPORT = parsed('Write a report with tables and figures into this folder', toFolder, {
  value: 'FOLDER',
  completes: 'folder',
});
export const SAVE_LOGITS = text('Write logits to this file', { value: 'FILE', completes: 'file' });

export const LAYERS = parsed('all, or block outputs such as 0,3-5', parseLayers, {
  value: 'LIST',
  formerly: ['layer'],
});
export const POSITIONS = parsed('all, last, or positions such as 0,3-5,-1', parsePositions, {
  value: 'LIST',
  formerly: ['position'],
});
export const TOP = vary(whole(1, 'Best tokens of each state'), { default: 5 });
export const TRACK = several('Token to follow wherever it ranks; repeat for more', { value: 'TOKEN' });
export const AT = parsed(
  'Instead of positions: tokens of a text, its last occurrence or the N-th (-N: from the end); <image>: rows of pictures',
  parseAt,
  { value: 'TEXT[#N]' },
);

const VECTOR_ABOUT = { value: 'FILE', completes: 'file', formerly: ['patch'] } as const;
export const VECTOR = several('Vector to patch in: a file from extract or capture', VECTOR_ABOUT);
export const VECTOR_POSITION = whole(0, 'Which position of a capture file is the vector. Defaults to its last');
export const NUMBERING = choice(
  ['applied', 'measured'],
  'Where direction.N of a control vector (.gguf) belongs: to block N, or as cvector-generator measures, N - 1. Defaults to applied',
);
/** How a vector is written into a prompt. */
export const PATCH_OPTIONS = grouped('Patch', {
  vector: VECTOR,
  layers: LAYERS,
  positions: vary(POSITIONS, { describe: 'Where the vector is written: all, last, or positions. Defaults to last' }),
  at: AT,
  op: choice(
    ['replace', 'add'],
    'Replace the state with the vector, or add the vector to it. Defaults to replace; for a direction, add',
  ),
  strength: number('Factor on the vector. Defaults to 1'),
  vectorPosition: VECTOR_POSITION,
  numbering: NUMBERING,
});
export const HOOK: Option<HookName[] | undefined> = {
  ...several('Points to read, as listed by `hooks`, separated by commas', {
    value: 'LIST',
    choices: HOOKS,
    formerly: ['hooks'],
  }),
  read: (given: unknown, name) => (given === undefined ? undefined : parseHooks(texts(given), name)),
};
/** At which point a vector is written. */
export const HOOK_OPTIONS = grouped('Patch', {
  hook: vary(HOOK, { describe: 'Point to write, as listed by `hooks`. Defaults to that of the file, else resid_post' }),
  heads: parsed('Heads of it to write, such as 0,3-5. Defaults to all', parseHeads, { value: 'LIST' }),
});
export const STEPS = parsed(
  'When: in the prompt, at each generated token, at all of both, or at every N-th token. Defaults to prompt',
  parseSteps,
  { value: 'prompt|generated|all|N' },
);
export const TASKS = parsed(
  'Shipped tasks, or task files (.json, .jsonl, .csv), separated by commas. Defaults to all six',
  parseTexts,
  {
    value: 'TASKS',
    completes: 'task',
    formerly: ['task'],
  },
);
export const SPECS = parsed('How the task is shown, separated by commas', parseTexts, {
  value: 'LIST',
  formerly: ['spec', 'modalities'],
});
export const SEEDS = parsed('Seeds of the items and the examples, separated by commas', parseSeeds, {
  value: 'LIST',
  formerly: ['seed'],
});
export const SEED = whole(0, 'Seed of every draw. Defaults to 1', { formerly: ['seeds'] });
export const STYLE = text('Drawing style of the shipped pictures. Defaults to twemoji', { value: 'NAME' });
export const SHOTS = whole(1, 'Examples in a prompt. Defaults to 5');
export const PROMPTS = whole(1, 'Prompts');
export const IMAGES_ROOT = text("Folder that a task file's image paths start from. Defaults to the file's own", {
  value: 'FOLDER',
  completes: 'folder',
  formerly: ['images'],
});
export const DATA_FOLDER = text('Folder of task files that are not shipped', { value: 'FOLDER', completes: 'folder' });
export const PORT = whole(0, 'Port to listen on; 0 chooses a free one');
export const INSTRUCTION = text('Instruction of the task, ending in a colon');

export const TEMPLATE = text(
  "paper, chat, or an example with {input} and {output}. Defaults to the model's, else paper",
  { value: 'TEXT' },
);
export const CHAT = flag("Talk in the model's chat template, see /help there");

export const MAX_TOKENS = whole(0, 'Maximum number of new tokens', { letter: 'n' });

export function parseLayers(given: string, option = '--layers'): 'all' | number[] {
  if (given === 'all') return 'all';
  return given.split(',').flatMap((item) => {
    const [, first, last] = /^\s*(\d{1,4})\s*(?:-\s*(\d{1,4}))?\s*$/.exec(item) ?? [];
    const from = Number(first);
    const to = Number(last ?? first);
    if (first === undefined || to < from) {
      const problem = first === undefined ? 'is not one' : 'runs backwards';
      throw usageError(`${option} takes all, or layers such as 0,3-5; ${JSON.stringify(item)} ${problem}.`);
    }
    return Array.from({ length: to - from + 1 }, (_, i) => from + i);
  });
}

/** `0,3-5`: numbers and ranges of them; undefined for anything else. */
function numbersOf(text: string): number[] | undefined {
  const numbers: number[] = [];
  for (const item of text.split(',')) {
    const [, first, last] = /^\s*(\d{1,9})\s*(?:-\s*(\d{1,9}))?\s*$/.exec(item) ?? [];
    const from = Number(first);
    const to = Number(last ?? first);
    if (first === undefined || to < from || to - from > 100_000) return undefined;
    for (let i = from; i <= to; i++) numbers.push(i);
  }
  return numbers;
}

/** `0,3-5` */
export function parseHeads(text: string, option: string): number[] {
  const heads = numbersOf(text);
  if (heads) return heads;
  throw usageError(`${option} takes heads such as 0,3-5, not ${JSON.stringify(text)}.`);
}

/** `all`, `last` or `0,3-5,last,-2`; undefined for anything else. */
export function readPlaces(given: string): 'all' | 'last' | number[] | undefined {
  const whole = given.trim();
  if (whole === 'all' || whole === 'last') return whole;
  const found: number[] = [];
  for (const item of whole.split(',')) {
    const word = item.trim();
    const numbers = word === 'last' ? [-1] : /^-\d{1,9}$/.test(word) ? [Number(word)] : numbersOf(word);
    if (!numbers) return undefined;
    found.push(...numbers);
  }
  return found;
}

/** The same, which it must be. */
export function parsePositions(given: string, option: string): 'all' | 'last' | number[] {
  const places = readPlaces(given);
  if (places) return places;
  const wrong = given.split(',').find((item) => item.trim() === 'all' || !readPlaces(item));
  throw usageError(`${option} takes all, last, or positions such as 0,3-5,-1; ${JSON.stringify(wrong)} is not one.`);
}

/** `Peru`: the last one; `Peru#2`: the second; `<image>` and `<image>#2`: rows of all pictures, or of the second */
export function parseAt(given: string): TextPositions | PicturePositions {
  const [, text = given, number] = /^(.+)#(-?[1-9]\d{0,5})$/s.exec(given) ?? [];
  if (text === IMAGE) return { picture: number === undefined ? 'all' : Number(number) };
  return { text, ...(number !== undefined && { occurrence: Number(number) }) };
}

/** The positions that are asked for with --positions or --at. */
export function placesOf<Places = never, Default = never>(
  args: {
    at?: TextPositions | PicturePositions | undefined;
    positions?: Places | undefined;
    escape?: boolean;
  },
  otherwise: Default,
): TextPositions | PicturePositions | Places | Default {
  const { at, positions, escape: escaped = true } = args;
  if (at === undefined) return positions ?? otherwise;
  if (positions !== undefined) throw usageError('Give either --at or --positions.');
  return escaped && 'text' in at ? { ...at, text: unescapeText(at.text) } : at;
}

const texts = (given: unknown): string[] =>
  [given].flat().flatMap((text) =>
    String(text)
      .split(',')
      .map((one) => one.trim()),
  );

function parseHooks(given: readonly string[], option: string): HookName[] {
  const known: readonly string[] = HOOKS;
  const unknown = given.find((hook) => !known.includes(hook));
  if (unknown !== undefined) {
    const problem = `${option} takes ${orList(HOOKS)}, not ${JSON.stringify(unknown)}.`;
    throw usageError(`${problem}${didYouMean(unknown, HOOKS)}`);
  }
  if (new Set(given).size < given.length) throw usageError(`${option} names a point twice: ${given.join(', ')}.`);
  return given as HookName[];
}

/** `1,2,3` */
export function parseTokens(given: string, option: string): number[] {
  return given.split(',').map((item) => {
    if (/^\d{1,9}$/.test(item.trim())) return Number(item);
    throw usageError(`${option} takes token ids such as 1,2,3; ${JSON.stringify(item)} is not one.`);
  });
}

function parseSeeds(given: string, option: string): number[] {
  const seeds = given.split(',').map((item) => {
    if (/^\s*\d{1,15}\s*$/.test(item)) return Number(item);
    throw usageError(`${option} takes whole numbers such as 1,2,3; ${JSON.stringify(item)} is not one.`);
  });
  if (new Set(seeds).size === seeds.length) return seeds;
  throw usageError(`${option} repeats one. Name each one once.`);
}

/** `a,b`: different texts, at least one. */
export function parseTexts(given: string, option: string): string[] {
  const texts = given.split(',').map((item) => item.trim());
  if (texts.includes('')) throw usageError(`${option} takes names separated by commas; "" is not one.`);
  if (new Set(texts).size < texts.length) throw usageError(`${option} repeats one. Name each one once.`);
  return texts;
}

/** `prompt`, `generated`, `all`, or a number for every n-th generated token. */
function parseSteps(given: string, option: string): Steps {
  if (given === 'prompt' || given === 'generated' || given === 'all') return given;
  if (/^[1-9]\d{0,8}$/.test(given)) return { every: Number(given) };
  throw usageError(`${option} takes prompt, generated, all, or a number n for every n-th generated token.`);
}

/** The one value of an option that takes several elsewhere. */
export function theOne<T>(name: string, values: readonly T[] | undefined): T | undefined {
  if (values === undefined || values.length === 1) return values?.[0];
  throw usageError(`${name} takes one here, not ${values.length}.`);
}

/** The one layer of a command that takes several elsewhere. */
export function theLayer(layers: 'all' | readonly number[] | undefined): number | undefined {
  if (layers === 'all') throw usageError('--layers takes one here, not all.');
  return theOne('--layers', layers);
}

/** The one position of a command that takes several elsewhere. */
export function thePosition(name: string, positions: 'all' | 'last' | readonly number[]): 'last' | number {
  if (positions === 'last') return positions;
  if (positions === 'all') throw usageError(`${name} takes one here, not all.`);
  return theOne(name, positions) as number;
}

const ESCAPES: Record<string, string> = { n: '\n', t: '\t', r: '\r', '\\': '\\' };

/** Turns `\n`, `\t`, `\r` and `\\` into what they stand for; any other backslash stays. */
export function unescapeText(given: string): string {
  return given.replace(/\\([ntr\\])/g, (_, letter: string) => ESCAPES[letter] as string);
}
