#!/usr/bin/env node
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import yargs, { type CommandModule } from 'yargs';
import { hideBin } from 'yargs/helpers';
import { XpatchError } from '../util/errors.js';
import { PACKAGE_ROOT } from '../util/package-root.js';
import { build } from './build.js';
import { capture } from './capture.js';
import { data } from './data.js';
import { decode } from './decode.js';
import { demo } from './demo.js';
import { doctor } from './doctor.js';
import { embed } from './embed.js';
import { reportError, usageError } from './errors.js';
import { evaluate } from './eval.js';
import { evolution } from './evolution.js';
import { extract } from './extract.js';
import { interruptCode, interruptMessage } from './interrupt.js';
import { lens } from './lens.js';
import { merge } from './merge.js';
import { models } from './models.js';
import { withExamples } from './options.js';
import { patchscope } from './patchscope.js';
import { run } from './run.js';
import { sweep } from './sweep.js';
import { tune } from './tune.js';
import { verify } from './verify.js';
import { verifyModelCommand } from './verify-model.js';
import { view } from './view.js';

const commands = [
  demo,
  evaluate,
  capture,
  run,
  extract,
  sweep,
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
] as unknown as CommandModule[];
const args = hideBin(process.argv);
const has = (flag: string) => args.includes(flag);
const { version } = JSON.parse(readFileSync(join(PACKAGE_ROOT, 'package.json'), 'utf8')) as { version: string };

// A reader such as `head` may leave early; the files that the command writes are still wanted.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error;
});

const cli = withExamples(yargs(args), [
  ['Make a task vector', 'extract -m demo --task country-capital --spec text -o capital.safetensors'],
  ['Try it at every layer', 'sweep -m demo --prompt "Q:Peru\\nA:" --vector capital.safetensors'],
  ['Answer with it', 'run -m demo --prompt "Q:Peru\\nA:" --patch capital.safetensors --layer 4'],
  ['Options and examples of a command', '<command> --help'],
])
  .scriptName('xpatch')
  // One language, whatever the system's: scripts and error messages stay the same everywhere.
  .locale('en')
  .usage('$0 <command>\n\nReads and overwrites hidden states of GGUF language and vision-language models.')
  .command(commands)
  .demandCommand(1, 'Name a command.')
  .recommendCommands()
  .strict()
  .option('verbose', { type: 'boolean', default: false, global: true, describe: 'Print the stack of an error' })
  .version(version)
  .alias('help', 'h')
  .wrap(Math.max(110, Math.min(120, process.stdout.columns ?? 110)))
  // Called with a message for wrong arguments, with an error when a command failed.
  .fail((message: string | null, error: Error | undefined) => {
    if (error && !message) throw error;
    throw usageError(`${tidy(message ?? '')} See \`${['xpatch', ...commandName()].join(' ')} --help\`.`);
  });

try {
  await cli.parseAsync();
} catch (error) {
  const interrupted = interruptCode() !== undefined;
  process.exitCode = reportError(
    interrupted ? new XpatchError('ABORTED', interruptMessage(), { cause: error }) : error,
    {
      json: has('--json'),
      stack: has('--verbose') || Boolean(process.env.XPATCH_DEBUG),
    },
  );
}
process.exitCode = interruptCode() ?? process.exitCode;

function commandName(): string[] {
  return commands.some(({ command }) => String(command).split(' ')[0] === args[0]) ? args.slice(0, 1) : [];
}

/** The messages of yargs in one line, without naming an unknown option twice (as it was written and in camel case). */
function tidy(message: string): string {
  const text = message
    .replace(/^Did you/, `Unknown command ${args[commandName().length]}. Did you`)
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
