import yargs from 'yargs';
import type { XpatchError } from '../util/errors.js';
import { didYouMean } from '../util/nearest.js';
import { packageVersion } from '../util/package-root.js';
import { bench } from './bench.js';
import { build } from './build.js';
import { capture } from './capture.js';
import { circuit } from './circuit.js';
import { addCommands, type Chosen, type Command, type Example, nameOf } from './command.js';
import { completionOf } from './completion.js';
import { data } from './data.js';
import { decode } from './decode.js';
import { demo } from './demo.js';
import { doctor } from './doctor.js';
import { embed } from './embed.js';
import { usageError } from './errors.js';
import { evaluate } from './eval.js';
import { evolution } from './evolution.js';
import { extract } from './extract.js';
import { helpOf, helpOfAll } from './help.js';
import { hooks } from './hooks.js';
import type { Io } from './io.js';
import { lens } from './lens.js';
import { merge } from './merge.js';
import { models } from './models.js';
import { dashed } from './option.js';
import { patchscope } from './patchscope.js';
import { report } from './report.js';
import { rpcServer } from './rpc-server.js';
import { run } from './run.js';
import { score } from './score.js';
import { steer } from './steer.js';
import { sweep } from './sweep.js';
import { Terminal } from './terminal.js';
import { tune } from './tune.js';
import { verify } from './verify.js';
import { verifyModelCommand } from './verify-model.js';
import { view } from './view.js';
import { work } from './work.js';

export const COMMANDS: readonly Command[] = [
  demo,
  evaluate,
  hooks,
  capture,
  run,
  extract,
  sweep,
  steer,
  score,
  circuit,
  lens,
  patchscope,
  tune,
  evolution,
  decode,
  embed,
  data,
  models,
  verify,
  report,
  verifyModelCommand,
  merge,
  work,
  view,
  rpcServer,
  doctor,
  bench,
  build,
  completionOf(() => COMMANDS),
];

const EXAMPLES: readonly Example[] = [
  ['Make a task vector', 'extract -m demo --tasks country-capital --specs text -o capital.safetensors'],
  ['Try it at every layer', 'sweep -m demo --prompt "Q:Peru\\nA:" --vector capital.safetensors'],
  ['Answer with it', 'run -m demo --prompt "Q:Peru\\nA:" --vector capital.safetensors --layers 4'],
  ['Options and examples of a command', 'help run'],
];

/**
 * The whole command line. It never touches the process: it reads and writes through `io`, so it also runs in tests.
 * @param args without node and the script
 * @returns the exit code
 */
export async function main(args: readonly string[], io: Io): Promise<number> {
  const terminal = new Terminal(args, io);
  let code: number;
  try {
    const chosen = askedHelp(args) ?? (await parse(args, io.env.XPATCH_MODEL));
    await chosen(terminal);
    code = terminal.exitCode;
  } catch (error) {
    const stack = args.includes('--verbose') || Boolean(io.env.XPATCH_DEBUG);
    code = terminal.report(error, { json: args.includes('--json'), stack });
  }
  return terminal.close(code);
}

/** Help for `xpatch` alone, `help COMMAND` and --help anywhere. */
function askedHelp(args: readonly string[]): Chosen | undefined {
  const [first, ...rest] = args;
  if (first !== undefined && first !== 'help' && !args.some((arg) => arg === '--help' || arg === '-h'))
    return undefined;
  return (terminal) => {
    const width = Math.max(60, Math.min(120, terminal.out.columns ?? 80));
    const { command, path, unknown } = commandOf(first === 'help' ? rest : args);
    if (unknown !== undefined) throw unknownCommand(unknown, path, command?.subcommands ?? COMMANDS);
    const parts = command ? helpOf(command, path, width) : helpOfAll(COMMANDS, EXAMPLES, width);
    terminal.printHelp(parts);
  };
}

/** The command that the arguments name, and the word after a group that is not one of its commands. */
function commandOf(args: readonly string[]): { command?: Command; path: string[]; unknown?: string } {
  let command: Command | undefined;
  const path: string[] = [];
  for (const word of args) {
    const among = command ? command.subcommands : COMMANDS;
    if (!among || word.startsWith('-')) break;
    const next = among.find((one) => nameOf(one) === word);
    if (!next) return { ...(command && { command }), path, unknown: word };
    command = next;
    path.push(word);
  }
  return { ...(command && { command }), path };
}

/** What the arguments ask for. @param model default for commands that name none @throws {XpatchError} INVALID_ARGUMENT */
export async function parse(args: readonly string[], model?: string): Promise<Chosen> {
  const { command, path, unknown } = commandOf(args);
  if (unknown !== undefined) throw unknownCommand(unknown, path, command?.subcommands ?? COMMANDS);
  let chosen: Chosen = (terminal) => terminal.print(`${packageVersion()}\n`);
  const cli = yargs()
    .scriptName('xpatch')
    // One language, whatever the system's: scripts and error messages stay the same everywhere.
    .locale('en')
    .demandCommand(1, 'Name a command.')
    .strict()
    .option('verbose', { type: 'boolean', default: false, global: true })
    .help(false)
    .version(packageVersion())
    // Called with a message for wrong arguments, or with an error of ours.
    .fail((message: string | null, error: Error | undefined) => {
      if (error && !message) throw error;
      const seeHelp = `See \`${['xpatch', ...path].join(' ')} --help\`.`;
      throw usageError(`${tidy(message ?? '', args, command)} ${seeHelp}`);
    });
  const choose = (next: Chosen) => {
    chosen = next;
  };
  // Its printing callback keeps yargs from writing the version itself.
  await addCommands(cli, COMMANDS, { choose, model }).parseAsync([...args], {}, () => undefined);
  return chosen;
}

function unknownCommand(word: string, path: readonly string[], commands: readonly Command[]): XpatchError {
  const names = commands.map(nameOf);
  const hint = didYouMean(word, names) || ` Commands: ${names.join(', ')}.`;
  const name = ['xpatch', ...path].join(' ');
  return usageError(`There is no command ${JSON.stringify(word)}.${hint} See \`${name} --help\`.`);
}

/** yargs' messages on one line, with the option that was most likely meant. */
function tidy(message: string, args: readonly string[], command: Command | undefined): string {
  const text = message
    .replace(/^Unknown arguments?: (.*)$/, (_, list: string) => {
      // yargs names an option twice, as typed and in camel case.
      const names = list.split(', ').filter((name) => args.some((arg) => arg.includes(name)));
      return names.map((name) => unknownArgument(name, args, command)).join(' ');
    })
    .replace(/^Missing required arguments?: (.*)$/, (_, list: string) => {
      const names = list.split(', ').map((name) => `--${dashed(name)}`);
      return `${names.join(' and ')} ${names.length > 1 ? 'are' : 'is'} missing.`;
    })
    .replace(/^Not enough non-option arguments.*$/, `${command?.command.split(' ').slice(1).join(' ')} is missing.`)
    .replace(
      /^Not enough arguments following: (.*)$/,
      '--$1 needs a value; one with a dash in front is given as --$1="-x"',
    )
    .replace(/\s*\n\s*/g, ' ');
  return /[.?]$/.test(text) ? text : `${text}.`;
}

function unknownArgument(name: string, args: readonly string[], command: Command | undefined): string {
  const isOption = args.some((arg) => arg.startsWith(`-${name.length === 1 ? '' : '-'}${name}`));
  if (!isOption) return `Unknown argument: ${name}.`;
  const visible = Object.entries(command?.options ?? {}).filter(([, option]) => !option.hidden);
  const hint = didYouMean(
    `--${name}`,
    visible.map(([option]) => `--${dashed(option)}`),
  );
  return `There is no option ${name.length === 1 ? '-' : '--'}${name}.${hint}`;
}
