// Everything that a GPU has to show, in the folder that pack.mjs makes. Each part runs in its own process: a driver that fails ends that
// one only. Prints a table, writes one JSON, and ends with 0 if all is well, 1 if not.
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { PACKAGE_ROOT } from '../../install/layout.mjs';
import { loadModel } from '../../src/model/load-model.js';
import { native } from '../../src/native/index.js';
import { runChild } from '../../src/util/child.js';
import { DEVICE_BOUNDS, DEVICE_FAMILIES, differences, measureOn } from '../../tests/native/device.js';
import { comparisons, expectWithin, openFamily } from '../../tests/parity/compare.js';
import { readFamily } from '../../tests/parity/families.js';
import { type Figure, measureStops } from './speed.js';

/** A picture for each family that needs one. The reference of each is beside its model. */
export const FAMILIES = { ...DEVICE_FAMILIES, gemma3: 'square-a.png' };

interface Check {
  name: string;
  ok: boolean;
  detail: string;
}
interface Outcome {
  checks?: Check[];
  figures?: Figure[];
}

const { values } = parseArgs({
  options: {
    device: { type: 'string' },
    json: { type: 'string', default: 'gpu-check.json' },
    only: { type: 'string' },
    quick: { type: 'boolean', default: false },
    part: { type: 'string' },
    help: { type: 'boolean', short: 'h', default: false },
  },
});
const HELP = `gpu-check [--device NAME] [--json FILE] [--only PART,...] [--quick]

Checks and measures xpatch on a GPU of this machine, the first one unless --device names another ("cpu" tries the checks themselves).
--quick takes small sizes: its figures mean nothing. Exit code 0: all checks passed; 1: some failed.
`;
const { quick } = values;
const SECONDS = 1800;
const folder = process.env.XPATCH_CHECK_FOLDER ?? '.';
const CLI = join(PACKAGE_ROOT, 'dist', 'cli', 'main.js');

const found = (name: string, problem: string | undefined, detail: string): Check => ({
  name,
  ok: problem === undefined,
  detail: problem ?? detail,
});

/** What a command of xpatch prints with --json. */
async function command<T>(...args: string[]): Promise<T> {
  const { code, how, stdout, log } = await runChild([CLI, ...args, '--json', '--quiet']);
  const lines = stdout.toString().trim().split('\n');
  if (code !== 0 && args[0] !== 'doctor') throw new Error(`xpatch ${args.join(' ')} ${how}. ${lines.at(-1)} ${log}`);
  return JSON.parse(args[0] === 'eval' ? (lines.at(-1) as string) : lines.join('\n')) as T;
}

/** The devices, and which is checked. */
async function devices(): Promise<Outcome> {
  const { addon, failedBackends } = native();
  const all = addon.listDevices();
  const gib = (bytes: number) => `${(bytes / 2 ** 30).toFixed(1)} GiB`;
  const listed = all.map(({ name, description, memoryTotal }) => `${name} ${description} ${gib(memoryTotal)}`);
  const reasons = failedBackends.map(({ path, reason }) => `${path}: ${reason}`);
  const problem = all.some(({ name, type }) =>
    values.device ? name.toLowerCase() === device().toLowerCase() : type === 'gpu',
  )
    ? undefined
    : `there is ${values.device ? `no ${values.device}` : 'no GPU'}: ${[...listed, ...reasons].join('; ')}`;
  return { checks: [found('the device is there', problem, listed.join('; '))] };
}

/** The name that was given, or of the first GPU. */
function device(): string {
  return (
    values.device ??
    native()
      .addon.listDevices()
      .find(({ type }) => type === 'gpu')?.name ??
    'auto'
  );
}

async function doctor(): Promise<Outcome> {
  return await command('doctor', '-m', 'demo', '--device', device());
}

/** States and logits, with and without interventions, against what transformers computed; the rest against the CPU. */
async function family(name: keyof typeof FAMILIES): Promise<Outcome> {
  await using opened = await openFamily(readFamily(name), device());
  let compared = 0;
  const off: string[] = [];
  for (const kvType of ['f32', 'f16'] as const) {
    for (const flashAttention of kvType === 'f32' ? (['off'] as const) : (['off', 'on'] as const)) {
      await using context = await opened.model.createContext({ nCtx: 2048, kvType, flashAttention });
      for (const expected of opened.family.prompts) {
        const prompt = await opened.prompt(expected);
        for (const { what, actual, expected: numbers, width } of await comparisons(opened, context, prompt, expected)) {
          compared += 1;
          try {
            expectWithin(`${expected.name}, ${what}`, actual, numbers, width, DEVICE_BOUNDS);
          } catch (error) {
            off.push((error as Error).message);
          }
        }
      }
    }
  }
  const image = FAMILIES[name];
  const wrong = differences(await measureOn(device(), name, image), await measureOn('cpu', name, image));
  return {
    checks: [
      found(
        `${name}: states and patched logits are those of transformers`,
        off.length ? `${off.length} of ${compared}: ${off.slice(0, 3).join('; ')}` : undefined,
        `${compared} comparisons`,
      ),
      ...Object.entries(wrong).map(([check, problems]) =>
        found(`${name}: ${check}`, problems.length ? problems.slice(0, 3).join('; ') : undefined, ''),
      ),
    ],
  };
}

interface Table {
  [condition: string]: { value: number; low: number; high: number };
}

/** `main` on the demo: the strict scores of device and CPU lie in each other's intervals. */
async function table(): Promise<Outcome> {
  const sizes = quick
    ? ['--tasks', 'food-color,country-capital', '--test', '6', '--set', 'validation=8']
    : ['--test', '30'];
  const run = async (where: string): Promise<Table> => {
    const out = join(folder, `run-${where}`);
    await command('eval', 'main', '-m', 'demo', '--device', where, '--seeds', '1', ...sizes, '-o', out);
    const [, ...lines] = readFileSync(join(out, 'tables', 'strict.csv'), 'utf8')
      .trim()
      .split('\n');
    const cells = lines.map((line) => line.split(',')).filter(([, column]) => column === 'mean');
    return Object.fromEntries(
      cells.map(([row, , value, low, high]) => [row, { value: Number(value), low: Number(low), high: Number(high) }]),
    );
  };
  const [there, here] = [await run(device()), await run('cpu')];
  const pairs = Object.entries(here).map(([row, cpu]) => ({ row, cpu, on: there[row] }));
  const off = pairs.filter(({ cpu, on }) => !on || !(on.value >= cpu.low && on.value <= cpu.high));
  const shown = (some: typeof pairs) =>
    some.map(({ row, cpu, on }) => `${row} ${on?.value.toFixed(2)}, CPU ${cpu.value.toFixed(2)}`).join('; ');
  const worked = (there['Text Patch']?.value ?? 0) > (there['No Context']?.value ?? 1);
  const problem =
    pairs.length < 8
      ? 'rows are missing'
      : off.length
        ? `outside of the CPU's intervals: ${shown(off)}`
        : worked
          ? undefined
          : 'the patch has no effect';
  return { checks: [found("main on the demo: the table is the CPU's", problem, shown(pairs))] };
}

/** Passes with patches and reading, again and again: the memory of the process and of the device stays. */
async function leaks(): Promise<Outcome> {
  const passes = quick ? 60 : 1000;
  await using model = await loadModel('demo', { device: device() });
  await using context = await model.createContext();
  const prompt = await model.prompt('Q:France\nA:');
  const { states } = await context.run({ prompt, capture: 'all' });
  const interventions = [{ layers: 3, op: 'replace', value: states.at(3, 'last') }] as const;
  const mega = (bytes: number) => Math.round(bytes / 1e6);
  const memory = () => {
    globalThis.gc?.();
    const one = native()
      .addon.listDevices()
      .find(({ name }) => name === device());
    return {
      process: mega(process.memoryUsage().rss),
      device: one && one.type !== 'cpu' ? mega(one.memoryTotal - one.memoryFree) : 0,
    };
  };
  let before = memory();
  for (let i = 0; i < passes; i++) {
    if (i === passes / 5) before = memory(); // caches are full, the heap has its size
    await context.run({
      prompt,
      capture: 'all',
      logits: 'last',
      interventions,
      edges: i % 2 ? [{ from: 0, to: 'last', layers: 'all' }] : [],
    });
    if (i % 100 === 0) await (await model.createContext()).dispose();
  }
  const after = memory();
  const detail = `process ${before.process} to ${after.process} MB, device ${before.device} to ${after.device} MB`;
  // A leak of one small buffer a pass, 100 kB, would be 80 MB.
  const grown = after.process - before.process > 40 || after.device - before.device > 40;
  return { checks: [found(`${passes} passes leave nothing behind`, grown ? detail : undefined, detail)] };
}

/** `xpatch bench` with the demo, here and on the CPU. */
async function bench(): Promise<Outcome> {
  const figures: Figure[] = [];
  for (const where of new Set([device(), 'cpu'])) {
    const seconds = quick ? '1' : '40';
    const { measured } = await command<{ measured: Figure[] }>(
      'bench',
      '-m',
      'demo',
      '--device',
      where,
      '--seconds',
      seconds,
    );
    figures.push(
      ...measured.map(({ what, unit, value }) => ({
        what: `demo on ${where}: ${what}`,
        unit: unit === 'MB' ? unit : `${unit}/s`,
        value,
      })),
    );
  }
  return { figures };
}

const PARTS: Record<string, () => Promise<Outcome>> = {
  devices,
  doctor,
  ...Object.fromEntries(Object.keys(FAMILIES).map((name) => [name, () => family(name as keyof typeof FAMILIES)])),
  table,
  leaks,
  bench,
  speed: async () => ({ figures: await measureStops(device(), folder, quick) }),
};

/** A part in a process of its own. */
async function outcomeOf(part: string): Promise<Outcome> {
  const outcomes: Outcome[] = [];
  const own = [fileURLToPath(import.meta.url), ...process.argv.slice(2), '--part', part];
  const { how, log, late } = await runChild<Outcome>(['--expose-gc', ...own], {
    onMessage: (outcome) => outcomes.push(outcome),
    maxSeconds: SECONDS,
  });
  const [outcome] = outcomes;
  if (outcome) return outcome;
  return {
    checks: [{ name: part, ok: false, detail: late ? `took more than ${SECONDS} s` : `its process ${how}. ${log}` }],
  };
}

async function main(): Promise<void> {
  const names = values.only?.split(',') ?? Object.keys(PARTS);
  const unknown = names.find((name) => !Object.hasOwn(PARTS, name));
  if (unknown !== undefined)
    throw new Error(`There is no part ${unknown}; there are ${Object.keys(PARTS).join(', ')}.`);
  const checks: Check[] = [];
  const figures: Figure[] = [];
  for (const name of names) {
    const begun = performance.now();
    const outcome = await outcomeOf(name);
    for (const { name, ok, detail } of outcome.checks ?? []) {
      process.stdout.write(`${ok ? 'ok    ' : 'FAILED'} ${name}${detail && `: ${detail}`}\n`);
    }
    for (const { what, unit, value } of outcome.figures ?? []) {
      process.stdout.write(`${value.toPrecision(4).padStart(14)} ${unit.padEnd(12)} ${what}\n`);
    }
    process.stdout.write(`       ${name} took ${((performance.now() - begun) / 1000).toFixed(0)} s\n`);
    checks.push(...(outcome.checks ?? []));
    figures.push(...(outcome.figures ?? []));
  }
  const failed = checks.filter(({ ok }) => !ok);
  const ok = failed.length === 0;
  const { build } = native();
  writeFileSync(values.json, `${JSON.stringify({ ok, quick, device: device(), build, checks, figures }, null, 1)}\n`);
  process.stdout.write(
    `${ok ? `all ${checks.length} checks passed` : `${failed.length} of ${checks.length} checks FAILED`}; ${values.json}\n`,
  );
  process.exitCode = ok ? 0 : 1;
}

if (values.help) process.stdout.write(HELP);
else if (values.part === undefined) await main();
else process.send?.(await (PARTS[values.part] as () => Promise<Outcome>)(), () => process.disconnect());
