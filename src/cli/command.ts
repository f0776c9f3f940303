import type { Argv } from 'yargs';
import { usageError } from './errors.js';
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

export interface Parsing {
  /** Told what the user chose; it is not run before everything has been parsed. */
  readonly choose: (chosen: Chosen) => void;
  /** The model of commands that need one, where none is named. */
  readonly model?: string;
}

/** Tells yargs of commands. */
export function addCommands<T>(yargs: Argv<T>, commands: readonly Command[], parsing: Parsing): Argv<T> {
  for (const { command, describe, options, examples, subcommands, run } of commands) {
    const build = (argv: Argv) => {
      const built = withExamples(options(argv), examples);
      if (parsing.model !== undefined && needsModel(built)) built.default('model', parsing.model);
      return subcommands
        ? addCommands(built, subcommands, parsing).demandCommand(1, `Name a command: ${listOf(subcommands)}.`)
        : built;
    };
    const chosen = (args: object) => async (terminal: Terminal) =>
      run((await withStdin(args, terminal)) as never, terminal);
    yargs.command(command, describe, build, (args) => parsing.choose(chosen(args)));
  }
  return yargs;
}

function needsModel(yargs: Argv): boolean {
  return 'model' in (yargs as Argv & { getDemandedOptions(): object }).getDemandedOptions();
}

/** `--prompt -` is what comes on the standard input, to the letter but for its last line end. */
async function withStdin(args: { prompt?: unknown; escape?: boolean }, { io }: Terminal): Promise<object> {
  if (args.prompt !== '-') return args;
  if (io.stdin.isTTY) throw usageError('--prompt - reads the standard input: pipe a text into it, or give < FILE.');
  const chunks: Buffer[] = [];
  for await (const chunk of io.stdin) chunks.push(Buffer.from(chunk as Buffer));
  const text = Buffer.concat(chunks)
    .toString('utf8')
    .replace(/\r?\n$/, '');
  return { ...args, prompt: args.escape ? text.replaceAll('\\', '\\\\') : text };
}

export const nameOf = ({ command }: Pick<Command, 'command'>): string => command.split(' ')[0] as string;

function listOf(commands: readonly Command[]): string {
  const names = commands.map(nameOf);
  return `${names.slice(0, -1).join(', ')} or ${names.at(-1)}`;
}
