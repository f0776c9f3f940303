import type { Argv, Options as YargsOptions } from 'yargs';
import { usageError } from './errors.js';
import { type ArgumentsOf, dashed, type Option, type Options, orList } from './option.js';
import type { Terminal } from './terminal.js';

/** A command of the command line: its help, its options, and what it does. */
export interface Command {
  /** Its name and positional arguments, as yargs reads them: `eval [experiment]`. */
  readonly command: string;
  readonly describe: string;
  /** What the positional arguments of `command` are. */
  readonly positionals: Options;
  readonly options: Options;
  readonly examples: readonly Example[];
  /** More to say under the options. */
  readonly more?: string;
  readonly subcommands?: readonly Command[];
  readonly run: (args: never, terminal: Terminal) => Promise<void> | void;
}

/** A line that says what it does, and the command after `xpatch`. */
export type Example = readonly [what: string, command: string];

export function defineCommand<const O extends Options, const P extends Options = Record<never, never>>(command: {
  readonly command: string;
  readonly describe: string;
  readonly positionals?: P;
  readonly options: O;
  readonly examples: readonly Example[];
  readonly more?: string;
  readonly run: (args: ArgumentsOf<O> & ArgumentsOf<P>, terminal: Terminal) => Promise<void> | void;
}): Command {
  return { positionals: {}, ...command } as Command;
}

/** A command that only holds others, such as `models`. */
export function defineGroup(
  group: Pick<Command, 'command' | 'describe' | 'examples'> & { subcommands: Command[] },
): Command {
  return { ...group, positionals: {}, options: {}, run: () => undefined };
}

/** Runs a command whose arguments have been read. */
export type Chosen = (terminal: Terminal) => Promise<void> | void;

export interface Parsing {
  /** Receives the user's choice; it runs only after everything has been parsed. */
  readonly choose: (chosen: Chosen) => void;
  /** The model for commands that need one and are given none. */
  readonly model?: string;
}

/** Registers commands with yargs. */
export function addCommands<T>(yargs: Argv<T>, commands: readonly Command[], parsing: Parsing): Argv<T> {
  for (const command of commands) {
    const { subcommands } = command;
    const options = withModel(command.options, parsing.model);
    const build = (argv: Argv) => {
      for (const [name, option] of Object.entries(command.positionals)) argv.positional(name, positional(option));
      for (const [name, option] of Object.entries(options)) argv.option(dashed(name), forYargs(option));
      return subcommands
        ? addCommands(argv, subcommands, parsing).demandCommand(
            1,
            `Name a command: ${orList(subcommands.map(nameOf))}.`,
          )
        : argv;
    };
    yargs.command(command.command, command.describe, build, (given) => {
      const args = { ...readArguments(command.positionals, given, ''), ...readArguments(options, given, '--') };
      parsing.choose((terminal) => command.run(args as never, terminal));
    });
  }
  return yargs;
}

function withModel(options: Options, model: string | undefined): Options {
  const { model: option } = options;
  if (model === undefined || !option?.required) return options;
  return { ...options, model: { ...option, required: false, default: model } };
}

function forYargs({ type, array, letter, formerly = [], default: fallback, required }: Option): YargsOptions {
  return {
    type: type === 'number' ? 'string' : type, // what yargs takes for a number is not always one
    ...(array && { array }),
    ...(type !== 'boolean' && { nargs: 1 }),
    alias: [...(letter === undefined ? [] : [letter]), ...formerly],
    ...(fallback !== undefined && { default: fallback }),
    ...(required && { demandOption: true }),
  };
}

function positional({ type, array, default: fallback }: Option) {
  return { type, ...(array && { array }), ...(fallback !== undefined && { default: fallback }) };
}

function readArguments(options: Options, given: Readonly<Record<string, unknown>>, dashes: string): object {
  return Object.fromEntries(
    Object.entries(options).map(([name, option]) => {
      const typed = dashed(name);
      const value = given[typed];
      // yargs takes --no-NAME for every option, and gives false as its value
      if (option.type !== 'boolean' && [value].flat().includes(false))
        throw usageError(`There is no option --no-${typed}: leave out ${dashes}${typed}.`);
      return [name, option.read(value as never, `${dashes}${typed}`)];
    }),
  );
}

export const nameOf = ({ command }: Pick<Command, 'command'>): string => command.split(' ')[0] as string;
