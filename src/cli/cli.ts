import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import yargs from 'yargs';
import { PACKAGE_ROOT } from '../util/package-root.js';
import { build } from './build.js';
import { capture } from './capture.js';
import { addCommands, type Chosen, type Command, nameOf } from './command.js';
import { data } from './data.js';
import { decode } from './decode.js';
import { demo } from './demo.js';
import { doctor } from './doctor.js';
import { embed } from './embed.js';
import { usageError } from './errors.js';
import { evaluate } from './eval.js';
import { evolution } from './evolution.js';
import { extract } from './extract.js';
import { wrapHelp } from './help.js';
import type { Io } from './io.js';
import { lens } from './lens.js';
import { merge } from './merge.js';
import { models } from './models.js';
import { withExamples } from './options.js';
import { patchscope } from './patchscope.js';
import { run } from './run.js';
import { score } from './score.js';
import { steer } from './steer.js';
import { sweep } from './sweep.js';
import { Terminal } from './terminal.js';
import { tune } from './tune.js';
import { verify } from './verify.js';
import { verifyModelCommand } from './verify-model.js';
import { view } from './view.js';

const COMMANDS: readonly Command[] = [
  demo,
  evaluate,
  capture,
  run,
  extract,
  sweep,
  steer,
  score,
  lens,
  patchscope,
  tune,
  evolution,
  decode,
  embed,
  data,
  models,
  verify,
  verifyModelCommand,
  merge,
  view,
  doctor,
  build,
];

/**
 * The whole command line. Nothing below it touches the process: it reads and writes through `io`, and so it runs in a test too.
 * @param args without node and the script
 * @returns the exit code
 */
export async function main(args: readonly string[], io: Io): Promise<number> {
  const terminal = new Terminal(args, io);
  let code: number;
  try {
    const chosen = await parse(asked(args), terminal);
    await chosen(terminal);
    code = terminal.exitCode;
  } catch (error) {
    const stack = args.includes('--verbose') || Boolean(io.env.XPATCH_DEBUG);
    code = terminal.report(error, { json: args.includes('--json'), stack });
  }
  return terminal.close(code);
}

/** `xpatch` alone and `xpatch help COMMAND` ask for help. */
function asked(args: readonly string[]): readonly string[] {
  if (args.length === 0) return ['--help'];
  return args[0] === 'help' ? [...args.slice(1), '--help'] : args;
}

/** What the arguments ask for. @throws {XpatchError} INVALID_ARGUMENT */
async function parse(args: readonly string[], { out, io }: Terminal): Promise<Chosen> {
  const { version } = JSON.parse(readFileSync(join(PACKAGE_ROOT, 'package.json'), 'utf8')) as { version: string };
  let chosen: Chosen | undefined;
  let help = '';
  const width = Math.max(60, Math.min(120, out.columns ?? 80));
  const choose = (next: Chosen) => {
    chosen = next;
  };
  const cli = withExamples(yargs(), [
    ['Make a task vector', 'extract -m demo --task country-capital --spec text -o capital.safetensors'],
    ['Try it at every layer', 'sweep -m demo --prompt "Q:Peru\\nA:" --vector capital.safetensors'],
    ['Answer with it', 'run -m demo --prompt "Q:Peru\\nA:" --patch capital.safetensors --layer 4'],
    ['Options and examples of a command', '<command> --help'],
  ])
    .scriptName('xpatch')
    // One language, whatever the system's: scripts and error messages stay the same everywhere.
    .locale('en')
    .usage('$0 <command>\n\nReads and overwrites hidden states of GGUF language and vision-language models.')
    .demandCommand(1, 'Name a command.')
    .recommendCommands()
    .strict()
    .option('verbose', { type: 'boolean', default: false, global: true, describe: 'Print the stack of an error' })
    .version(version)
    .alias('help', 'h')
    .wrap(null)
    // Called with a message for wrong arguments, with an error when one of ours found them wrong.
    .fail((message: string | null, error: Error | undefined) => {
      if (error && !message) throw error;
      throw usageError(`${tidy(message ?? '', args)} See \`${['xpatch', ...commandName(args)].join(' ')} --help\`.`);
    });
  await addCommands(cli, COMMANDS, { choose, model: io.env.XPATCH_MODEL }).parseAsync(
    [...args],
    {},
    (_error, _argv, output) => {
      help = output;
    },
  );
  return help === '' && chosen ? chosen : (terminal) => terminal.print(`${wrapHelp(help, width)}\n`);
}

function commandName(args: readonly string[]): string[] {
  return COMMANDS.some((command) => nameOf(command) === args[0]) ? args.slice(0, 1) : [];
}

/** The messages of yargs in one line, without naming an unknown option twice (as it was written and in camel case). */
function tidy(message: string, args: readonly string[]): string {
  const text = message
    .replace(/^Did you/, `Unknown command ${args[commandName(args).length]}. Did you`)
    .replace(/^Unknown arguments: (.*)$/, (_, list: string) => {
      const names = list.split(', ').filter((name) => args.some((arg) => arg.includes(name)));
      return `Unknown argument${names.length > 1 ? 's' : ''}: ${names.join(', ')}`;
    })
    .replace(
      /^Not enough arguments following: (.*)$/,
      '--$1 needs a value; one with a dash in front is given as --$1="-x"',
    )
    .replace(/\s*\n\s*/g, ' ');
  return /[.?]$/.test(text) ? text : `${text}.`;
}
