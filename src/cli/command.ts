import type { Argv } from 'yargs';
import { withExamples } from './options.js';
import type { Terminal } from './terminal.js';

/** A command of the command line: its help, its options, and what it does. */
export interface Command {
  /** Its name and positional arguments, as yargs reads them: `eval [experiment]`. */
  readonly command: string;
  readonly describe: string;
  readonly options: (yargs: Argv) => Argv;
  readonly examples: readonly Example[];
  readonly subcommands?: readonly Command[];
  readonly run: (args: never, terminal: Terminal) => Promise<void> | void;
}

/** A line that says what it does, and the command behind `xpatch`. */
export type Example = readonly [what: string, command: string];

/** @typeParam A the arguments that `options` and the positional ones of `command` make */
export function defineCommand<A>(command: {
  readonly command: string;
  readonly describe: string;
  readonly options: (yargs: Argv) => unknown;
  readonly examples: readonly Example[];
  readonly run: (args: A, terminal: Terminal) => Promise<void> | void;
}): Command {
  return command as Command;
}

/** A command that only holds others, such as `models`. */
export function defineGroup(
  group: Pick<Command, 'command' | 'describe' | 'examples'> & { subcommands: Command[] },
): Command {
  return { ...group, options: (yargs) => yargs, run: () => undefined };
}

/** Runs a command whose arguments have been read. */
export type Chosen = (terminal: Terminal) => Promise<void> | void;

/** Tells yargs of commands; what the user chose is handed to `choose`, and not run before everything has been parsed. */
export function addCommands<T>(
  yargs: Argv<T>,
  commands: readonly Command[],
  choose: (chosen: Chosen) => void,
): Argv<T> {
  for (const { command, describe, options, examples, subcommands, run } of commands) {
    const build = (argv: Argv) => {
      const built = withExamples(options(argv), examples);
      return subcommands
        ? addCommands(built, subcommands, choose).demandCommand(1, `Name a command: ${listOf(subcommands)}.`)
        : built;
    };
    yargs.command(command, describe, build, (args) => choose((terminal) => run(args as never, terminal)));
  }
  return yargs;
}

export const nameOf = ({ command }: Pick<Command, 'command'>): string => command.split(' ')[0] as string;

function listOf(commands: readonly Command[]): string {
  const names = commands.map(nameOf);
  return `${names.slice(0, -1).join(', ')} or ${names.at(-1)}`;
}
