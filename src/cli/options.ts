import type { Argv, Options } from 'yargs';
import { usageError } from './errors.js';

/** An option with one value. Given twice it is refused: nobody can know which one was meant. */
export function textOption(name: string, describe: string, more: Options = {}) {
  return { ...more, type: 'string', nargs: 1, describe, coerce: (value: unknown) => single(name, value) } as const;
}

/** An option that names a folder to write to: it is no stream. */
export function folderOption(name: string, describe: string, more: Options = {}) {
  const coerce = (value: unknown) => {
    const folder = single(name, value);
    if (folder === '-') throw usageError(`--${name} is a folder, which - is not: name one.`);
    return folder;
  };
  return { ...more, type: 'string', nargs: 1, describe, coerce } as const;
}

/** An option with a whole number. */
export function wholeOption(name: string, min: number, describe: string, more: Options = {}) {
  const coerce = (value: unknown) => {
    const number = single(name, value);
    if (number === undefined || (Number.isSafeInteger(number) && (number as number) >= min)) return number;
    throw usageError(`--${name} must be a whole number from ${min}.`);
  };
  return { ...more, type: 'number', nargs: 1, describe, coerce: coerce as (value: unknown) => number } as const;
}

/** An option with a number. */
export function numberOption(name: string, describe: string, more: Options = {}) {
  const coerce = (value: unknown) => {
    const number = single(name, value);
    if (number === undefined || Number.isFinite(number)) return number;
    throw usageError(`--${name} must be a number.`);
  };
  return { ...more, type: 'number', nargs: 1, describe, coerce: coerce as (value: unknown) => number } as const;
}

/** An option that may be given several times, one value each. */
export function repeatedOption(describe: string, more: Options = {}) {
  return { ...more, type: 'string', array: true, nargs: 1, describe } as const;
}

export function single<T>(name: string, value: T): T {
  if (Array.isArray(value)) throw usageError(`--${name} was given ${value.length} times. Give it once.`);
  return value;
}

/** `1,2,3` */
export function parseTokens(text: string): number[] {
  return text.split(',').map((item) => {
    if (/^\d{1,9}$/.test(item.trim())) return Number(item);
    throw usageError(`--tokens takes token ids with commas, such as 1,2,3; ${JSON.stringify(item)} is none.`);
  });
}

/** `all` or `0,3-5` */
export function parseLayers(text: string, option = '--layers'): 'all' | number[] {
  if (text === 'all') return 'all';
  return text.split(',').flatMap((item) => {
    const [, first, last] = /^\s*(\d{1,4})\s*(?:-\s*(\d{1,4}))?\s*$/.exec(item) ?? [];
    const from = Number(first);
    const to = Number(last ?? first);
    if (first === undefined || to < from) {
      const problem = first === undefined ? 'is none' : 'runs backwards';
      throw usageError(`${option} takes all, or layers with commas such as 0,3-5; ${JSON.stringify(item)} ${problem}.`);
    }
    return Array.from({ length: to - from + 1 }, (_, i) => from + i);
  });
}

/** `all`, `last` or `0,5,-1` */
export function parsePositions(text: string): 'all' | 'last' | number[] {
  if (text === 'all' || text === 'last') return text;
  return text.split(',').map((item) => {
    if (/^-?\d{1,9}$/.test(item.trim())) return Number(item);
    const problem = `${JSON.stringify(item)} is none`;
    throw usageError(`--positions takes all, last, or positions with commas such as 0,5,-1; ${problem}.`);
  });
}

/** `last` or `-2` */
export function parsePosition(text: string, option = '--position'): 'last' | number {
  if (text === 'last') return text;
  if (/^-?\d{1,9}$/.test(text.trim())) return Number(text);
  throw usageError(`${option} takes last or a number (negative from the end), not ${JSON.stringify(text)}.`);
}

const ESCAPES: Record<string, string> = { n: '\n', t: '\t', r: '\r', '\\': '\\' };

/** Turns `\n`, `\t`, `\r` and `\\` into what they stand for; any other backslash stays. */
export function unescapeText(text: string): string {
  return text.replace(/\\([ntr\\])/g, (_, letter: string) => ESCAPES[letter] as string);
}

/** Adds examples to the help, each under a line that says what it does: side by side they would be broken in two. */
export function withExamples<T>(
  yargs: Argv<T>,
  examples: readonly (readonly [what: string, command: string])[],
): Argv<T> {
  return examples.reduce((argv, [what, command]) => argv.example(`# ${what}`, '').example(`$0 ${command}`, ''), yargs);
}
