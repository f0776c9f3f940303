// `xpatch eval` on the shipped model: plans, runs, what stops a run, and going on with it.
import type { ChildProcess } from 'node:child_process';
import {
  appendFileSync,
  copyFileSync,
  existsSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import { beforeAll, describe, expect, test } from '@jest/globals';
import { PACKAGE_ROOT } from '../../install/layout.mjs';
import { PRESETS } from '../../src/experiment/presets.js';
import { commandLine, finish, type Outcome } from './cli-helpers.js';

const cli = commandLine();
const DEMO = ['-m', 'demo', '--threads', '1'];
/** Two tasks with all kinds of conditions; text only, so that nothing is encoded. */
const SMALL = {
  tasks: ['country-capital', 'food-color'],
  seeds: [1],
  shots: 3,
  validation: 8,
  test: 6,
  maxTokens: 6,
  conditions: [
    { name: 'Random', kind: 'majority' },
    { name: 'No Context', kind: 'bare' },
    { name: 'Text Prompt', kind: 'prompt', spec: 'text' },
    { name: 'Text Patch', kind: 'patch', spec: 'text' },
    { name: 'Wrong Task Patch', kind: 'patch', spec: 'text', control: 'wrong-task' },
  ],
};
const RUN = ['eval', 'small.yaml', ...DEMO];
/** The text patch at 8 layers on 8 validation items; 5 conditions on 6 test items; of two tasks. */
const LINES = 2 * (8 * 8 + 6 * 5);

beforeAll(() => writeFileSync(join(cli.folder, 'small.yaml'), JSON.stringify(SMALL)));

interface Event {
  event?: string;
  pid?: number;
  [field: string]: unknown;
}

const eventsOf = ({ stdout }: Pick<Outcome, 'stdout'>): Event[] =>
  stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));

/** Starts a command and hands over its events as they come. */
function watch(args: readonly string[], onEvent: (event: Event, child: ChildProcess) => void) {
  const child = cli.start([...args, '--json']);
  if (child.stdout) createInterface(child.stdout).on('line', (line) => onEvent(JSON.parse(line), child));
  return finish(child);
}

/** The lines of a run, in an order that does not depend on how it went. */
const linesOf = (run: string) =>
  readFileSync(join(cli.folder, run, 'results.jsonl'), 'utf8')
    .trim()
    .split('\n')
    .sort();

function isAlive(pid: number | undefined): boolean {
  try {
    process.kill(pid as number, 0);
    return readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.[0] !== 'Z';
  } catch {
    return false;
  }
}

describe('what would run', () => {
  test('the presets are listed', async () => {
    const { code, stdout } = await cli.run(['eval']);
    expect(code).toBe(0);
    expect((await cli.run(['eval', '--help'])).stdout).toMatch(/--json +Print JSON, one object per line/);
    for (const [name, { shows }] of Object.entries(PRESETS)) {
      expect(stdout).toMatch(new RegExp(`^ {2}${name} +${shows.replace(/[.()[\]]/g, '\\$&')}$`, 'm'));
    }
    const { presets } = await cli.json('eval');
    expect(presets.map(({ name }: { name: string }) => name)).toEqual(Object.keys(PRESETS));
  });

  test('a plan counts queries and estimates time and disk, and writes nothing', async () => {
    const before = readdirSync(cli.folder);
    const { event, plan, estimate } = await cli.json(...RUN, '--plan');
    expect(event).toBe('plan');
    expect(plan.queries.reduce((sum: number, { count }: { count: number }) => sum + count, 0)).toBe(LINES);
    expect(plan).toMatchObject({ vectors: 2, pictures: 0 });
    expect(estimate.seconds).toBeGreaterThan(0);
    const { code, stdout } = await cli.run([...RUN, '--plan']);
    expect(code).toBe(0);
    expect(stdout).toMatch(/validation +Text Patch +128\n/);
    expect(stdout).toMatch(/Queries 188, vectors 2, pictures 0\. /);
    // Two vectors; 8 validation items and 6 test items of two tasks, in one batch each.
    expect(stdout).toMatch(/Passes over prompts about 6: one per vector, one per batch of items\.\n/);
    expect(stdout).toMatch(/Time about \d+ s: an estimate from \d+ positions and \d+ new tokens per second/);
    expect(stdout).toMatch(/Disk about \d+\.\d MB/);
    expect(readdirSync(cli.folder)).toEqual(before);
  });

  test('a model without pictures gets the text part of a preset', async () => {
    const few = ['seeds=[1]', 'validation=6', 'test=6'].flatMap((setting) => ['--set', setting]);
    const args = ['eval', 'main', '-m', 'demo-base', '--threads', '1', ...few, '--plan'];
    const { plan, notes } = await cli.json(...args);
    const conditions = plan.queries.map(({ condition }: { condition: string }) => condition);
    expect(conditions).toContain('Text Patch');
    expect(conditions.join()).not.toMatch(/Image/);
    expect(notes).toEqual([expect.stringMatching(/without Image Prompt, Image Patch/)]);
  });
});

describe('what cannot run is refused before anything is written', () => {
  test.each<[string, string[], string, RegExp, number]>([
    ['no model', ['main'], 'INVALID_ARGUMENT', /Name a model with -m/, 2],
    [
      'an unknown preset',
      ['mian', ...DEMO],
      'CONFIG_INVALID',
      /no preset "mian"\. Did you mean main\? Presets: main, /,
      1,
    ],
    ['a missing file', ['nope.yaml', ...DEMO], 'FILE_NOT_FOUND', /nope\.yaml/, 1],
    [
      'a wrong value',
      ['small.yaml', ...DEMO, '--set', 'conditions.2.spec=txt'],
      'CONFIG_INVALID',
      /^small\.yaml: conditions\[2\]\.spec: must be one of text, image, instruction, not "txt"\.$/,
      1,
    ],
    ['an unknown key', ['main', ...DEMO, '--set', 'sedes=[1]'], 'CONFIG_INVALID', /sedes: is not a setting here/, 1],
    ['no key', ['main', ...DEMO, '--set', 'seeds'], 'CONFIG_INVALID', /not key=value/, 1],
    ['bad bytes', ['main', ...DEMO, '--memory', '2 potatoes'], 'INVALID_ARGUMENT', /--memory takes at least 1M/, 2],
    ['too few bytes', ['small.yaml', ...DEMO, '--memory', '1M'], 'CONTEXT_OVERFLOW', /Raise --memory/, 1],
    ['a bad shard', ['main', ...DEMO, '--shard', '3/2'], 'INVALID_ARGUMENT', /2\/5/, 2],
    ['a folder for a plan', ['main', ...DEMO, '--plan', '-o', 'x'], 'INVALID_ARGUMENT', /--plan writes nothing/, 2],
    [
      'pictures for a text model',
      ['image-to-text', '-m', 'demo-base', '--threads', '1'],
      'IMAGE_UNSUPPORTED',
      /Image Prompt and Image Patch need pictures/,
      1,
    ],
    ['an unknown task', ['small.yaml', ...DEMO, '--set', 'tasks=[nope, food-color]'], 'TASK_INVALID', /"nope"/, 1],
    [
      'a misspelt one alone',
      ['main', ...DEMO, '--set', 'tasks=[contry-capital]'],
      'TASK_INVALID',
      /"contry-capital"/,
      1,
    ],
    ['too few items', ['small.yaml', ...DEMO, '--set', 'validation=5000'], 'TASK_INVALID', /5000/, 1],
    [
      'a model without a chat template',
      ['small.yaml', ...DEMO, '--set', 'template=chat'],
      'CONFIG_INVALID',
      /template: chat: The model has no chat template/,
      1,
    ],
    ['a missing model', ['small.yaml', '-m', 'nope.gguf'], 'FILE_NOT_FOUND', /nope\.gguf/, 1],
  ])('%s', async (_, args, code, message, exit) => {
    const before = readdirSync(cli.folder);
    const outcome = await cli.run(['eval', ...args, '--json']);
    expect(eventsOf(outcome).at(-1)?.error).toEqual({ code, message: expect.stringMatching(message) });
    expect(outcome.code).toBe(exit);
    expect(readdirSync(cli.folder)).toEqual(before);
  });
});

describe('a run', () => {
  let undisturbed: string[];

  beforeAll(async () => {
    const outcome = await cli.run([...RUN, '-o', 'whole', '--json']);
    expect(outcome).toMatchObject({ code: 0, stderr: '' });
    const events = eventsOf(outcome);
    expect(events.map(({ event }) => event).filter((event) => event !== 'batch' && event !== 'progress')).toEqual(
      expect.arrayContaining(['process', 'start', 'done']),
    );
    expect(events.find(({ event }) => event === 'start')).toMatchObject({ folder: 'whole', known: 0 });
    expect(events.findLast(({ event }) => event === 'batch')).toEqual({ event: 'batch', lines: LINES });
    expect(events.at(-1)).toMatchObject({ event: 'done', folder: 'whole', experiment: { name: 'small', seeds: [1] } });
    undisturbed = linesOf('whole');
  });

  test('leaves a whole folder', () => {
    const manifest = JSON.parse(readFileSync(join(cli.folder, 'whole', 'manifest.json'), 'utf8'));
    expect(manifest).toMatchObject({ status: 'complete', lines: LINES, options: SMALL });
    expect(manifest.command).toMatch(/^xpatch eval small\.yaml -m demo .* -o whole --json$/);
    expect(undisturbed).toHaveLength(LINES);
    for (const name of ['report.html', 'tables/lenient.csv', 'tables/strict.tex', 'figures/layer-sweep.svg']) {
      expect(statSync(join(cli.folder, 'whole', name)).size).toBeGreaterThan(100);
    }
  });

  test('that is complete says the same again and writes nothing', async () => {
    const before = readdirSync(join(cli.folder, 'whole')).map(
      (name) => statSync(join(cli.folder, 'whole', name)).mtimeMs,
    );
    const outcome = await cli.run([...RUN, '-o', 'whole', '--json']);
    expect(outcome.code).toBe(0);
    const events = eventsOf(outcome);
    expect(events.find(({ event }) => event === 'start')).toMatchObject({ known: LINES });
    expect(events.filter(({ event }) => event === 'batch')).toEqual([]);
    const tables = events.at(-1)?.tables as unknown[] | undefined;
    expect(tables?.length).toBeGreaterThanOrEqual(2);
    const after = readdirSync(join(cli.folder, 'whole')).map(
      (name) => statSync(join(cli.folder, 'whole', name)).mtimeMs,
    );
    expect(after).toEqual(before);
    const { stdout } = await cli.run([...RUN, '-o', 'whole', '--quiet']);
    expect(stdout).toMatch(/Text Patch.*\n[\s\S]*Report: whole\/report\.html\n$/);
  });

  test('is gone on with unless --no-resume says otherwise', async () => {
    const before = linesOf('whole');
    const outcome = await cli.run([...RUN, '-o', 'whole', '--no-resume', '--json']);
    expect(outcome.code).toBe(1);
    expect(eventsOf(outcome)).toEqual([
      { error: { code: 'FILE_WRITE', message: expect.stringMatching(/^whole already holds a run.*--no-resume/) } },
    ]);
    expect(linesOf('whole')).toEqual(before);
    expect((await cli.run([...RUN, '-o', 'whole', '--resume', '--quiet'])).code).toBe(0);
    // The command that goes on with a run is without it.
    expect((await cli.run([...RUN, '-o', 'fresh', '--no-resume', '--quiet'])).code).toBe(0);
    const { command } = JSON.parse(readFileSync(join(cli.folder, 'fresh', 'manifest.json'), 'utf8'));
    expect(command).toMatch(/^xpatch eval small\.yaml -m demo .* -o fresh --quiet$/);
  });

  test('that was complete and has lost lines, a vector or its report is mended', async () => {
    const path = (...names: string[]) => join(cli.folder, 'fresh', ...names);
    const vector = readdirSync(path('vectors'))[0] as string;
    truncateSync(path('results.jsonl'), statSync(path('results.jsonl')).size - 100);
    for (const name of ['report.html', 'tables', join('vectors', vector)]) rmSync(path(name), { recursive: true });
    const events = eventsOf(await cli.run([...RUN, '-o', 'fresh', '--json']));
    expect(events.flatMap(({ event, text }) => (event === 'note' ? [text] : []))).toEqual(
      expect.arrayContaining([
        expect.stringMatching(/was complete and has lost/),
        expect.stringContaining(vector.slice(0, -12)),
      ]),
    );
    expect(events.find(({ event }) => event === 'start')).toMatchObject({ known: LINES - 1 });
    expect(events.at(-1)?.event).toBe('done');
    expect(linesOf('fresh')).toEqual(undisturbed);
    const { ok } = await cli.json('verify', 'fresh', '--sample', '0');
    expect(ok).toBe(true);
    expect(existsSync(path('report.html'))).toBe(true);

    appendFileSync(path('results.jsonl'), (undisturbed[0] as string).replace('"item":"', '"item":"x'));
    appendFileSync(path('results.jsonl'), '\n');
    const refused = eventsOf(await cli.run([...RUN, '-o', 'fresh', '--json'])).at(-1)?.error;
    expect(refused).toMatchObject({
      code: 'RUN_INVALID',
      message: expect.stringMatching(/results\.jsonl was changed/),
    });
  });

  test('of another config is refused', async () => {
    const events = eventsOf(await cli.run([...RUN, '--set', 'test=7', '-o', 'whole', '--json']));
    expect(events.at(-1)?.error).toMatchObject({
      code: 'RUN_MISMATCH',
      message: expect.stringMatching(/: test: 6 there, 7 here/),
    });
    expect(linesOf('whole')).toEqual(undisturbed);
  });

  test.each([[[]], [['--threads', '3']]])('on more cores has the same lines: %j', async (cores) => {
    const name = `cores${cores.length}`;
    expect((await cli.run(['eval', 'small.yaml', '-m', 'demo', ...cores, '-o', name, '--quiet'])).code).toBe(0);
    expect(linesOf(name)).toEqual(undisturbed);
  });

  test('in little memory gives the same answers', async () => {
    const { code } = await cli.run([...RUN, '--memory', '3M', '-o', 'little', '--quiet']);
    expect(code).toBe(0);
    const { context } = JSON.parse(readFileSync(join(cli.folder, 'little', 'manifest.json'), 'utf8'));
    expect(context.nCtx).toBeLessThan(1000);
    const answers = (lines: string[]) =>
      lines.map((line) => {
        const { prompt: _, probability: __, rank: ___, delta: ____, ...rest } = JSON.parse(line);
        return rest;
      });
    expect(answers(linesOf('little'))).toEqual(answers(undisturbed));
    const onAll = ['eval', 'small.yaml', '-m', 'demo', '--memory', '3M', '-o', 'squeezed', '--quiet'];
    expect((await cli.run(onAll)).code).toBe(0);
    expect(linesOf('squeezed')).toEqual(linesOf('little'));
  });

  test.each([
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const)('ends resumable at %s, and the command that it prints goes on', async (name, exit) => {
    let told = false;
    const child = cli.start([...RUN, '-o', name, '--json']);
    if (child.stdout) {
      createInterface(child.stdout).on('line', (line) => {
        if (told || JSON.parse(line).event !== 'batch') return;
        told = true;
        child.kill(name);
      });
    }
    const outcome = await finish(child);
    expect(outcome.code).toBe(exit);
    const error = eventsOf(outcome).at(-1)?.error as { code: string; message: string };
    expect(error.code).toBe('ABORTED');
    const [, command] = /resume with: xpatch (.*)$/.exec(error.message) ?? [];
    expect(command).toBe(`eval small.yaml -m demo --threads 1 -o ${name} --json`);
    const before = linesOf(name);
    expect(before.length).toBeLessThan(LINES);
    const again = eventsOf(await cli.run((command as string).split(' ')));
    expect(again.find(({ event }) => event === 'start')).toMatchObject({ known: before.length });
    expect(linesOf(name)).toEqual(undisturbed);
  });

  test('stops at once at the second Ctrl-C, and takes its process along', async () => {
    let pid: number | undefined;
    let told = false;
    const outcome = await watch([...RUN, '-o', 'twice'], (event, child) => {
      pid ??= event.pid;
      if (told || event.event !== 'batch') return;
      told = true;
      child.kill('SIGINT');
      setTimeout(() => child.kill('SIGINT'), 5);
    });
    expect([null, 130]).toContain(outcome.code); // by the signal itself
    await delay(500);
    expect(isAlive(pid)).toBe(false);
    expect((await cli.run([...RUN, '-o', 'twice', '--quiet'])).code).toBe(0);
    expect(linesOf('twice')).toEqual(undisturbed);
  });

  test('killed whole leaves no process behind, and goes on', async () => {
    let pid: number | undefined;
    await watch([...RUN, '-o', 'killed'], (event, child) => {
      pid ??= event.pid;
      if (event.event === 'batch') child.kill('SIGKILL');
    });
    await delay(500);
    expect(isAlive(pid)).toBe(false);
    expect((await cli.run([...RUN, '-o', 'killed', '--quiet'])).code).toBe(0);
    expect(linesOf('killed')).toEqual(undisturbed);
  });

  test('shows how far it is, in plain lines where there is no terminal', async () => {
    const long = ['--set', 'validation=30', '--set', 'test=100', '--set', 'seeds=[1,2,3]'];
    const { code, stderr } = await cli.run([...RUN, ...long, '-o', 'lines']);
    expect(code).toBe(0);
    expect(stderr).toMatch(/xpatch: (\w+ queries|vectors), \w+-\w+, seed \d \d+ %, \d+ of \d+.*\n/);
    expect(stderr).not.toContain('\r');
    expect(stderr).not.toContain(String.fromCharCode(27));
  });
});

test('the preset compute measures the three ways', async () => {
  const events = eventsOf(
    await cli.run(['eval', 'compute', ...DEMO, '--set', 'test=2', '--set', 'shots=4', '-o', 'cost', '--json']),
  );
  expect(events.at(-1)).toMatchObject({ event: 'done', tables: [{ name: 'compute' }, { name: expect.any(String) }] });
  expect(existsSync(join(cli.folder, 'cost', 'report.html'))).toBe(true);
  const lines = readFileSync(join(cli.folder, 'cost', 'results.jsonl'), 'utf8')
    .trimEnd()
    .split('\n');
  expect(lines).toHaveLength(8);
  const { ok, checks } = await cli.json('verify', 'cost');
  expect([ok, checks.at(-1)]).toEqual([
    true,
    { name: 'answers', state: 'not done', detail: 'times are never the same twice' },
  ]);
});

test('the shipped model has its caveats by whatever path it is given', async () => {
  const files = ['xpatch-demo-f16.gguf', 'mmproj-xpatch-demo-f16.gguf'].map((name) => {
    copyFileSync(join(PACKAGE_ROOT, 'models', 'demo', name), join(cli.folder, `copy-${name}`));
    return `copy-${name}`;
  });
  const model = ['-m', files[0] as string, '--mmproj', files[1] as string, '--threads', '1', '--quiet'];
  const small = ['--set', 'test=4', '--set', 'layers=[1,2]'];
  expect(await cli.run(['eval', 'small.yaml', ...model, ...small, '-o', 'copy'])).toMatchObject({
    code: 0,
    stderr: '',
  });
  const { notes } = JSON.parse(readFileSync(join(cli.folder, 'copy', 'manifest.json'), 'utf8'));
  expect(notes[0]).toMatch(/is not evidence about large models/);
  expect(notes[1]).toMatch(/training mix/);
  const page = readFileSync(join(cli.folder, 'copy', 'report.html'), 'utf8');
  expect(page).toContain('is not evidence about large models');
  const differences = readFileSync(join(cli.folder, 'copy', 'tables', 'differences-lenient.csv'), 'utf8');
  expect(differences).toMatch(/"Text Patch, layer 2",No Context/);
});
