import { didYouMean } from '../util/nearest.js';
import { usageError } from './errors.js';

/** What a shell offers as a value. */
export type Completion = 'file' | 'folder' | 'model' | 'task' | 'preset';

/** An option or a positional argument of a command: everything that help, parsing and completion know about it. */
export interface Option<Value = unknown> {
  readonly type: 'string' | 'number' | 'boolean';
  /** May be given several times. */
  readonly array?: boolean;
  readonly describe: string;
  /** What help shows for the value. Defaults to the type's. */
  readonly value?: string;
  readonly completes?: Completion;
  /** `m` for `-m`. */
  readonly letter?: string;
  /** Names of earlier versions, which scripts rely on. Help does not show them. */
  readonly formerly?: readonly string[];
  /** Heading in the help. */
  readonly group?: string;
  readonly choices?: readonly string[];
  readonly default?: unknown;
  readonly required?: boolean;
  /** Not in the help. */
  readonly hidden?: boolean;
  /** Turns what was typed into what a command gets. @param name with its dashes */
  readonly read: (given: never, name: string) => Value;
}

/** By name, in camel case. */
export type Options = Readonly<Record<string, Option>>;

type ValueOf<O> = O extends Option<infer Value> ? Value : never;
type OptionalKeys<O> = { [K in keyof O]: undefined extends ValueOf<O[K]> ? K : never }[keyof O];

/** What a command with these options gets. */
export type ArgumentsOf<O extends Options> = { -readonly [K in Exclude<keyof O, OptionalKeys<O>>]: ValueOf<O[K]> } & {
  -readonly [K in OptionalKeys<O>]?: ValueOf<O[K]>;
};

type About = Partial<
  Pick<Option, 'value' | 'completes' | 'letter' | 'formerly' | 'group' | 'choices' | 'default' | 'required' | 'hidden'>
>;

/** What differs between the commands that share an option. */
type Variation = Partial<Pick<Option, 'describe' | 'value' | 'letter' | 'group' | 'default' | 'required' | 'hidden'>>;

/** The same option with another description or default in this command. */
export function vary<Value, const V extends Variation>(
  option: Option<Value>,
  variation: V,
): Option<V extends { required: true } | { default: unknown } ? NonNullable<Value> : Value> {
  return { ...option, ...variation } as never;
}

/** Puts options under one heading in the help. */
export function grouped<const O extends Options>(group: string, options: O): O {
  return Object.fromEntries(Object.entries(options).map(([name, option]) => [name, { ...option, group }])) as never;
}

/** The same options, hidden from help. */
export function hidden<O extends Options>(options: O): O {
  return Object.fromEntries(
    Object.entries(options).map(([name, option]) => [name, { ...option, hidden: true }]),
  ) as never;
}

/** An option whose text goes through `parse`. */
export function parsed<Value>(
  describe: string,
  parse: (text: string, name: string) => Value,
  about: About = {},
): Option<Value | undefined> {
  return {
    ...about,
    type: 'string',
    describe,
    read: (given: unknown, name) => {
      const text = single(name, given);
      return text === undefined ? undefined : parse(String(text), name);
    },
  };
}

const asText = (text: string) => text;

export function text(describe: string, about: About = {}): Option<string | undefined> {
  return parsed(describe, asText, about);
}

/** One of several words. */
export function choice<const Choice extends string>(
  choices: readonly Choice[],
  describe: string,
  about: About = {},
): Option<Choice | undefined> {
  const parse = (given: string, name: string) => {
    if (choices.includes(given as Choice)) return given as Choice;
    throw usageError(`${name} takes ${orList(choices)}, not ${JSON.stringify(given)}.${didYouMean(given, choices)}`);
  };
  return parsed(describe, parse, { value: choices.join('|'), ...about, choices });
}

/** A whole number from `min`. */
export function whole(min: number, describe: string, about: About = {}): Option<number | undefined> {
  return {
    ...about,
    type: 'number',
    describe,
    read: (given: unknown, name) => {
      const value = numeric(single(name, given));
      if (value === undefined || (Number.isSafeInteger(value) && value >= min)) return value;
      throw usageError(`${name} must be a whole number from ${min}.`);
    },
  };
}

export function number(describe: string, about: About = {}): Option<number | undefined> {
  return {
    ...about,
    type: 'number',
    describe,
    read: (given: unknown, name) => {
      const value = numeric(single(name, given));
      if (value === undefined || Number.isFinite(value)) return value;
      throw usageError(`${name} must be a number.`);
    },
  };
}

const NUMBER = /^\s*[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?\s*$/i;

/** A number in decimal digits, or a default. Anything else is NaN: `Number` takes an empty text, as of an unset variable, for 0. */
function numeric(given: unknown): number | undefined {
  if (given === undefined || typeof given === 'number') return given;
  return NUMBER.test(String(given)) ? Number(given) : Number.NaN;
}

/** A switch. With a default of true, `--no-NAME` turns it off. */
export function flag(describe: string, about: About = {}): Option<boolean> {
  return { default: false, ...about, type: 'boolean', describe, read: (given: unknown) => Boolean(given) };
}

/** A text that may be given several times, one value each; also the last positional argument of a command. */
export function several(describe: string, about: About = {}): Option<string[] | undefined> {
  const read = (given: unknown) => (given === undefined ? undefined : [given].flat().map(String));
  return { ...about, type: 'string', array: true, describe, read };
}

/** A folder to write to, not a stream. */
export function toFolder(text: string, name: string): string {
  if (text === '-') throw usageError(`${name} must be a folder, not -.`);
  return text;
}

/** Refused if given twice: nobody can know which one was meant. */
function single(name: string, value: unknown): unknown {
  if (Array.isArray(value)) throw usageError(`${name} was given ${value.length} times. Give it once.`);
  return value;
}

export function orList(words: readonly string[]): string {
  return words.length < 2 ? words.join('') : `${words.slice(0, -1).join(', ')} or ${words.at(-1)}`;
}

/** `maxTokens` as it is typed: `max-tokens`. */
export function dashed(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}
