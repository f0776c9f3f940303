import yargs from 'yargs';
import type { XpatchError } from '../util/errors.js';
import { didYouMean } from '../util/nearest.js';
import { packageVersion } from '../util/package-root.js';
import { addCommands, type Chosen, type Command, type Example, nameOf } from './command.js';
import { usageError } from './errors.js';
import { helpOf, helpOfAll } from './help.js';
import type { Io } from './io.js';
import { dashed } from './option.js';
import { Terminal } from './terminal.js';

/** In the order of the help. Only the one that is named is loaded: all of them take most of the time in which a command starts. */
const COMMANDS: Readonly<Record<string, () => Promise<Command>>> = {
  demo: async () => (await import('./demo.js')).demo,
  eval: async () => (await import('./eval.js')).evaluate,
  hooks: async () => (await import('./hooks.js')).hooks,
  capture: async () => (await import('./capture.js')).capture,
  run: async () => (await import('./run.js')).run,
  extract: async () => (await import('./extract.js')).extract,
  sweep: async () => (await import('./sweep.js')).sweep,
  steer: async () => (await import('./steer.js')).steer,
  score: async () => (await import('./score.js')).score,
  circuit: async () => (await import('./circuit.js')).circuit,
  lens: async () => (await import('./lens.js')).lens,
  patchscope: async () => (await import('./patchscope.js')).patchscope,
  tune: async () => (await import('./tune.js')).tune,
  evolution: async () => (await import('./evolution.js')).evolution,
  decode: async () => (await import('./decode.js')).decode,
  embed: async () => (await import('./embed.js')).embed,
  data: async () => (await import('./data.js')).data,
  models: async () => (await import('./models.js')).models,
  verify: async () => (await import('./verify.js')).verify,
  report: async () => (await import('./report.js')).report,
  'verify-model': async () => (await import('./verify-model.js')).verifyModelCommand,
  merge: async () => (await import('./merge.js')).merge,
  work: async () => (await import('./work.js')).work,
  view: async () => (await import('./view.js')).view,
  'rpc-server': async () => (await import('./rpc-server.js')).rpcServer,
  doctor: async () => (await import('./doctor.js')).doctor,
  bench: async () => (await import('./bench.js')).bench,
  build: async () => (await import('./build.js')).build,
  completion: async () => (await import('./completion.js')).completionOf(allCommands),
};

export async function allCommands(): Promise<Command[]> {
  const commands: Command[] = [];
  for (const load of Object.values(COMMANDS)) commands.push(await load()); // at once they would be no faster
  return commands;
}

/** The command that the first argument names, and all of them where it names none. */
async function commandsFor([first = '']: readonly string[]): Promise<readonly Command[]> {
  const load = Object.hasOwn(COMMANDS, first) && COMMANDS[first];
  return load ? [await load()] : allCommands();
}

const EXAMPLES: readonly Example[] = [
  ['Make a task vector', 'extract -m demo --tasks country-capital --specs text -o capital.safetensors'],
  ['Try it at every layer', 'sweep -m demo --prompt "Q:Peru\\nA:" --vector capital.safetensors'],
  ['Answer with it', 'run -m demo --prompt "Q:Peru\\nA:" --vector capital.safetensors --layers 2 --stop "\\n"'],
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
    const chosen = (await askedHelp(args)) ?? (await parse(args, io.env.XPATCH_MODEL));
    await chosen(terminal);
    code = terminal.exitCode;
  } catch (error) {
    const stack = args.includes('--verbose') || Boolean(io.env.XPATCH_DEBUG);
    code = terminal.report(error, { json: args.includes('--json'), stack });
  }
  return terminal.close(code);
}

/** Help for `xpatch` alone, `help COMMAND` and --help anywhere. */
async function askedHelp(args: readonly string[]): Promise<Chosen | undefined> {
  const [first, ...rest] = args;
  if (first !== undefined && first !== 'help' && !args.some((arg) => arg === '--help' || arg === '-h'))
    return undefined;
  const words = first === 'help' ? rest : args;
  const commands = await commandsFor(words);
  return (terminal) => {
    const width = Math.max(60, Math.min(120, terminal.out.columns ?? 80));
    const { command, path, unknown } = commandOf(words, commands);
    if (unknown !== undefined) throw unknownCommand(unknown, path, command?.subcommands ?? commands);
    const parts = command ? helpOf(command, path, width) : helpOfAll(commands, EXAMPLES, width);
    terminal.printHelp(parts);
  };
}

/** The command that the arguments name, and the word after a group that is not one of its commands. */
function commandOf(
  args: readonly string[],
  commands: readonly Command[],
): { command?: Command; path: string[]; unknown?: string } {
  let command: Command | undefined;
  const path: string[] = [];
  for (const word of args) {
    const among = command ? command.subcommands : commands;
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
  const commands = await commandsFor(args);
  const { command, path, unknown } = commandOf(args, commands);
  if (unknown !== undefined) throw unknownCommand(unknown, path, command?.subcommands ?? commands);
  requireReadable(args, command);
  let chosen: Chosen = (terminal) => terminal.print(`${packageVersion()}\n`);
  const cli = yargs()
    .scriptName('xpatch')
    .parserConfiguration({ 'dot-notation': false }) // --prompt.x would be a prompt that is no text
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
  await addCommands(cli, commands, { choose, model }).parseAsync([...args], {}, () => undefined);
  return chosen;
}

/** Refuses what yargs would take and drop: arguments after `--`, and a value of a flag that is neither true nor false. */
function requireReadable(args: readonly string[], command: Command | undefined): void {
  if (args.includes('--')) throw usageError('-- has no meaning here: leave it out; a file -x is given as ./-x.');
  const options = Object.entries(command?.options ?? {}).filter(([, { type }]) => type === 'boolean');
  const flags = options.flatMap(([name, { formerly = [] }]) => [name, ...formerly]).map(dashed);
  for (const arg of args) {
    const [, name = '', value = ''] = /^--([\w-]+)=(.*)$/s.exec(arg) ?? [];
    if (flags.includes(dashed(name)) && value !== 'true' && value !== 'false')
      throw usageError(`--${name} takes no value, not ${JSON.stringify(value)}.`);
  }
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
    .replace(/^Not enough arguments following: (.*)$/, (_, name: string) => {
      const option = `${name.length === 1 ? '-' : '--'}${name}`;
      return `${option} needs a value; one with a dash in front is given as ${option}="-x"`;
    })
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
