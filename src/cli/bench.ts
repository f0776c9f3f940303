import { availableParallelism, cpus } from 'node:os';
import type { Progress } from '../model/types.js';
import type { Measurement } from '../studies/bench.js';
import { fastestTypes, keepSpeeds } from '../studies/type-speeds.js';
import { counted } from '../util/counted.js';
import { XpatchError } from '../util/errors.js';
import { parseJson } from '../util/json.js';
import { readWhole } from '../util/read-file.js';
import { defineCommand } from './command.js';
import { describeModel, withSession } from './common.js';
import { usageError } from './errors.js';
import { flag, text, vary, whole } from './option.js';
import { MODEL, MODEL_OPTIONS, type ModelArguments, OUTPUT_OPTIONS, type OutputArguments } from './options.js';
import type { Terminal } from './terminal.js';

/** What `bench --json` prints. */
interface Result {
  readonly machine: { readonly processor: string; readonly cores: number; readonly threads: number };
  readonly model: { readonly name: string; readonly hash: string };
  readonly measured: readonly Measurement[];
}

/** `xpatch bench`: how fast this machine is with a model, in a minute. */
export const bench = defineCommand({
  command: 'bench [result]',
  describe: 'Measure how fast a model runs here, or compare two measurements',
  positionals: { result: text('Of --compare: the other measurement. Defaults to a new one', { completes: 'file' }) },
  options: {
    ...MODEL_OPTIONS,
    model: vary(MODEL, { default: 'demo' }),
    compare: text('A measurement to compare with, as --json printed it', { value: 'FILE', completes: 'file' }),
    types: flag('Instead, which types of weights (quantisations) are fastest here; doctor and models info repeat it'),
    seconds: vary(whole(1, 'Seconds in total'), { default: 40 }),
    ...OUTPUT_OPTIONS,
  },
  examples: [
    ['A minute with the model you use', 'bench -m model.gguf'],
    ['Keep the result', 'bench -m model.gguf --json > before.json'],
    ['The effect of another number of threads', 'bench -m model.gguf --threads 4 --compare before.json'],
    ['Two machines', 'bench --compare laptop.json server.json'],
    ['Which quantisation to download', 'bench --types'],
  ],
  run: async (args, terminal) => {
    if (args.types) {
      if ((args.compare ?? args.result) !== undefined)
        throw usageError('--types compares types of weights with each other, not measurements: leave out the files.');
      return rankTypes(args, terminal);
    }
    const before = args.compare === undefined ? undefined : await readResult(args.compare);
    const given = args.result === undefined ? undefined : await readResult(args.result);
    if (given && !before) {
      throw new XpatchError('INVALID_ARGUMENT', 'Name the file to compare with: bench --compare A B.');
    }
    const result =
      given ??
      (await withSession(args, terminal, async ({ model, context, signal, track }): Promise<Result> => {
        // Not imported at the top: --help must work where the addon does not.
        const { measureSpeed } = await import('../studies/bench.js');
        const measured = await measureSpeed(context, { seconds: args.seconds, signal, onProgress: track('measuring') });
        const machine = { processor: cpus()[0]?.model.trim() ?? 'unknown', cores: availableParallelism() };
        const { hash } = model.identity;
        return {
          machine: { ...machine, threads: context.options.threads },
          model: { name: describeModel(model.identity), hash },
          measured,
        };
      }));
    if (args.json) terminal.printJson(before ? { before, after: result, ratios: ratiosOf(before, result) } : result);
    else terminal.print(before ? compared(before, result) : described(result));
  },
});

/** How fast weights of each type are, which is kept for doctor and `models info`. */
async function rankTypes(args: ModelArguments & OutputArguments, terminal: Terminal): Promise<void> {
  const { measureTypes } = await import('../studies/bench-types.js');
  const progress = terminal.progress(args);
  const { device, threads } = args;
  const onProgress = ({ done, total }: Progress) => progress.update('measuring types of weights', done / total);
  const speeds = await measureTypes({ device, threads, signal: terminal.signal, onProgress }).finally(() =>
    progress.done(),
  );
  await keepSpeeds(speeds);
  if (args.json) return terminal.printJson(speeds);
  const lines = speeds.types.map(
    ({ type, prompt, answer }) => `  ${type.padEnd(6)}${figure(prompt).padStart(10)}${figure(answer).padStart(12)}\n`,
  );
  const head = '  type      prompt/s    answer/s\n';
  terminal.print(
    `${speeds.processor}, tokens of a model of 26 million weights\n${head}${lines.join('')}${fastestTypes(speeds)}\n`,
  );
}

async function readResult(path: string): Promise<Result> {
  const bytes = await readWhole(path, { what: 'the measurement', maxBytes: 1 << 20, pipe: true });
  try {
    const value = parseJson(bytes) as Partial<Result> | null;
    if (value?.machine && value.model && Array.isArray(value.measured) && value.measured.every(isMeasurement)) {
      return value as Result;
    }
    throw new Error('is not what the command prints');
  } catch (cause) {
    const wayOut = 'Make one with "xpatch bench --json".';
    throw new XpatchError('INVALID_ARGUMENT', `'${path}' ${(cause as Error).message}. ${wayOut}`, { cause });
  }
}

function isMeasurement(value: Partial<Measurement> | null): boolean {
  const { name, what, unit, value: measured, busy = 0 } = value ?? {};
  const texts = [name, what, unit].every((text) => typeof text === 'string');
  return texts && typeof measured === 'number' && measured > 0 && typeof busy === 'number';
}

const titleOf = ({ machine: { processor, cores, threads }, model }: Result) =>
  `${model.name}, ${processor}, ${counted(cores, 'core')}, ${counted(threads, 'thread')}`;

function described(result: Result): string {
  const lines = result.measured.map(({ name, what, unit, value, busy }) => {
    const speed = `${figure(value)} ${unit}${name === 'memory' ? '' : '/s'}`;
    return `${speed.padStart(20)}  ${what}${busy === undefined ? '' : `, ${busy.toFixed(1)} cores busy`}\n`;
  });
  return `${titleOf(result)}\n\n${lines.join('')}`;
}

/** After over before, for what both measured. */
function ratiosOf(before: Result, after: Result): Record<string, number> {
  const pairs = after.measured.flatMap(({ name, value }) => {
    const other = before.measured.find((one) => one.name === name);
    return other ? [[name, value / other.value] as const] : [];
  });
  return Object.fromEntries(pairs);
}

function compared(before: Result, after: Result): string {
  const ratios = ratiosOf(before, after);
  const lines = after.measured
    .filter(({ name }) => Object.hasOwn(ratios, name))
    .map(({ name, what, unit, value }) => {
      const other = before.measured.find((one) => one.name === name) as Measurement;
      const [a, b] = [figure(other.value).padStart(10), figure(value).padStart(10)];
      return `${a}${b} ${unit.padEnd(10)}${(ratios[name] as number).toFixed(2).padStart(6)}  ${what}\n`;
    });
  const other = before.model.hash === after.model.hash ? '' : 'The models differ.\n';
  return `before: ${titleOf(before)}\nafter:  ${titleOf(after)}\n${other}\n${lines.join('')}`;
}

const figure = (value: number) => (value >= 100 ? value.toFixed(0) : value.toPrecision(3));
