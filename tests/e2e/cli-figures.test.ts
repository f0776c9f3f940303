// evolution, decode and embed as a user runs them, on the shipped model and in small.
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { commandLine, finish } from './cli-helpers.js';

const cli = commandLine();
const TASKS = ['--tasks', 'country-capital,food-color'];
const files = (folder: string, part: string) => readdirSync(join(cli.folder, folder, part)).sort();
const read = (...path: string[]) => readFileSync(join(cli.folder, ...path), 'utf8');

/** Lines of results.jsonl, whatever they hold. */
// biome-ignore lint/suspicious/noExplicitAny: as JSON has it
const linesOf = (folder: string): any[] => {
  const texts = read(folder, 'results.jsonl').trimEnd().split('\n');
  return texts.map((text) => JSON.parse(text));
};

/** What every folder of a run has. */
function expectRun(folder: string, experiment: string): void {
  const manifest = JSON.parse(read(folder, 'manifest.json'));
  expect(manifest).toMatchObject({
    status: 'complete',
    experiment,
    options: { tasks: ['country-capital', 'food-color'] },
  });
  expect(Object.keys(manifest.tasks)).toEqual(['country-capital', 'food-color']);
  const page = read(folder, 'report.html');
  expect(page).not.toMatch(/(src|href)="https?:/);
  expect(page).toContain('is not evidence about large models');
}

test('evolution: table, statements, figures, and a line for each task and modality', async () => {
  const result = await cli.json('evolution', '-m', 'demo', ...TASKS, '--prompts', '12', '-o', 'evolution');
  expect(result.folder).toBe('evolution');
  expect(result.cells.map(({ task, modality }: Record<string, string>) => `${task} ${modality}`)).toEqual([
    'country-capital text',
    'country-capital image',
    'food-color text',
    'food-color image',
  ]);
  expect(result.statements[0]).toMatch(
    /^The task word is the best token of the whole vocabulary, at any layer, in 0 of 48/,
  );
  const [paper, all] = result.sets;
  expect(paper.names).toEqual(['input', 'task', 'answer']);
  expect(all.names).toEqual(['input', 'task', 'answer', 'other']);
  for (const { curves, n } of paper.curves) {
    expect(n).toBe(12);
    const [first] = curves;
    first.points.forEach((_: unknown, layer: number) => {
      const sum = curves.reduce((total: number, one: typeof first) => total + one.points[layer].value, 0);
      expect(sum).toBeCloseTo(1, 9);
    });
  }
  expectRun('evolution', 'evolution');
  expect(files('evolution', 'tables')).toEqual(['crossings.csv', 'crossings.md', 'crossings.tex', 'crossings.txt']);
  expect(files('evolution', 'figures').filter((name) => name.endsWith('.png'))).toEqual([
    'curves-image-with-other.png',
    'curves-image.png',
    'curves-text-with-other.png',
    'curves-text.png',
    'pies-image.png',
    'pies-text.png',
    'pies.png',
  ]);
  const lines = linesOf('evolution');
  expect(lines.map(({ task, modality }) => `${task} ${modality}`)).toEqual([
    'country-capital text',
    'country-capital image',
    'food-color text',
    'food-color image',
  ]);
  expect(lines.map(({ readings }) => readings.length)).toEqual(result.cells.map(({ read: n }: { read: number }) => n));
});

test('evolution of a text model, with classes of its own choice, for the terminal', async () => {
  const args = ['-m', 'demo-base', '--tasks', 'food-color', '--prompts', '5', '--classes', 'answer,word=color/Color'];
  const { code, stdout } = await cli.run(['evolution', ...args, '--layers', '0,7', '-o', 'words']);
  expect(code).toBe(0);
  expect(stdout).toContain('word leads');
  expect(stdout).toContain('Report: words/report.html');
  expect(stdout).not.toContain('image');
  expect(files('words', 'figures').filter((name) => name.endsWith('.svg'))).toEqual([
    'curves-text.svg',
    'pies-text.svg',
    'pies.svg',
  ]);
});

test('decode: vectors of tasks, then the saved ones again, with the same words', async () => {
  const specs = ['--specs', 'text,instruction', '--prompts', '4', '--layers', '1,7', '--top', '3'];
  const made = await cli.json('decode', '-m', 'demo', ...TASKS, ...specs, '-o', 'decode');
  expectRun('decode', 'decode');
  expect(made.decodings).toHaveLength(4);
  expect(files('decode', 'tables')).toContain('layer-7.md');
  const vectors = files('decode', 'vectors');
  expect(vectors).toEqual([
    'country-capital.instruction.seed1.safetensors',
    'country-capital.text.seed1.safetensors',
    'food-color.instruction.seed1.safetensors',
    'food-color.text.seed1.safetensors',
  ]);
  const saved = vectors.flatMap((name) => ['--vector', join('decode', 'vectors', name)]);
  const again = await cli.json('decode', '-m', 'demo', ...saved, '--layers', 'all', '--top', '3', '-o', 'again');
  const of = (decodings: { task: string; spec: string }[], key: string) =>
    decodings.find(({ task, spec }) => `${task}.${spec}` === key);
  for (const key of ['country-capital.text', 'food-color.instruction']) {
    const { file, ...rest } = of(again.decodings, key) as never as Record<string, unknown>;
    expect(file).toBe(join('decode', 'vectors', `${key}.seed1.safetensors`));
    expect(rest).toEqual(of(made.decodings, key));
  }
  const text = await cli.run(['decode', '-m', 'demo', ...TASKS, ...specs, '-o', 'decode-text']);
  expect(text.stdout).toMatch(/Decodings at layer 1\n/);
  expect(text.stdout).toContain(made.statements[0]);
});

test('embed: contexts by modality, last delimiters by task; repeated to the digit', async () => {
  const run = (folder: string) =>
    cli.json('embed', '-m', 'demo', ...TASKS, '--prompts', '8', '--layers', '2', '-o', folder);
  const result = await run('embed');
  expectRun('embed', 'embed');
  expect(result.spaces.map(({ of, layer }: Record<string, string>) => `${of} ${layer}`)).toEqual([
    'context 0',
    'context 2',
    'delimiter 2',
  ]);
  const [contexts, , delimiters] = result.spaces;
  const silhouette = (space: typeof contexts, by: string) => space.scores[`silhouette by ${by}`];
  expect(silhouette(contexts, 'modality').low).toBeGreaterThan(silhouette(contexts, 'task').high);
  expect(silhouette(delimiters, 'task').low).toBeGreaterThan(silhouette(delimiters, 'modality').high);
  expect(delimiters.tsne).toHaveLength(32);
  expect(files('embed', 'figures').filter((name) => name.endsWith('.png'))).toEqual([
    'layers.png',
    'pca.png',
    'tsne.png',
  ]);
  expect(linesOf('embed').flatMap(({ prompts = [] }) => prompts)).toHaveLength(32);
  const { spaces } = await run('embed-again');
  expect(spaces).toEqual(result.spaces);
});

describe('what is wrong is said before anything is written', () => {
  test.each<[string, string[], string, number, RegExp]>([
    ['an unknown task', ['evolution', '--tasks', 'food-smell'], 'TASK_INVALID', 1, /food-smell/],
    ['no task', ['embed', '--tasks', ''], 'INVALID_ARGUMENT', 2, /--tasks takes names/],
    ['a task twice', ['decode', '--tasks', 'food-color,food-color'], 'INVALID_ARGUMENT', 2, /repeats/],
    ['a single task', ['embed', '--tasks', 'food-color'], 'INVALID_ARGUMENT', 2, /two tasks/],
    ['too few points', ['embed', '--prompts', '2'], 'INVALID_ARGUMENT', 2, /from 3/],
    ['a layer too high', ['evolution', '--layers', '999'], 'LAYER_OUT_OF_RANGE', 1, /999/],
    ['a layer too high', ['decode', '--layers', '999'], 'LAYER_OUT_OF_RANGE', 1, /999/],
    ['a layer too high', ['embed', '--layers', '999'], 'LAYER_OUT_OF_RANGE', 1, /999/],
    ['an unknown modality', ['embed', '--specs', 'sound'], 'INVALID_ARGUMENT', 2, /text, image/],
    ['an unknown spec', ['decode', '--specs', 'sound'], 'INVALID_ARGUMENT', 2, /instruction/],
    [
      'an unknown class',
      ['evolution', '--classes', 'input,asnwer'],
      'INVALID_ARGUMENT',
      2,
      /"asnwer" is not one\. Did you mean answer\?/,
    ],
    ['a single class', ['evolution', '--classes', 'answer'], 'INVALID_ARGUMENT', 2, /at least two/],
    [
      'options beside a vector',
      ['decode', '--vector', 'v.safetensors', '--seed', '2'],
      'INVALID_ARGUMENT',
      2,
      /--seeds has no/,
    ],
    ['a vector that is not there', ['decode', '--vector', 'v.safetensors'], 'FILE_NOT_FOUND', 1, /v\.safetensors/],
  ])('%s: %j', async (_, [command, ...args], code, exit, message) => {
    const error = await cli.error(command as string, '-m', 'demo', ...args, '-o', 'refused');
    expect(error).toEqual({ code, exit, message: expect.stringMatching(message) });
    expect(existsSync(join(cli.folder, 'refused'))).toBe(false);
  });

  test.each([
    ['evolution', '--specs', 'text,image'],
    ['decode', '--specs', 'image'],
    ['embed', '--specs', 'image'],
  ])('%s: a text model asked for pictures', async (command, option, value) => {
    const error = await cli.error(command, '-m', 'demo-base', option, value, '-o', 'refused');
    expect(error).toMatchObject({ code: 'IMAGE_UNSUPPORTED', exit: 1, message: expect.stringMatching(/--mmproj/) });
    expect(existsSync(join(cli.folder, 'refused'))).toBe(false);
  });
});

test.each(['evolution', 'decode', 'embed'])('%s --help has examples', async (command) => {
  const { code, stdout } = await cli.run([command, '--help']);
  expect(code).toBe(0);
  expect(stdout).toContain(`xpatch ${command} -m demo`);
  expect(stdout).toContain('--tasks');
});

test('Ctrl-C ends evolution with its code, and the same command goes on', async () => {
  const args = ['evolution', '-m', 'demo', ...TASKS, '--prompts', '8', '-o', 'stopped'];
  const child = cli.start(args);
  const ended = finish(child);
  const manifest = join(cli.folder, 'stopped', 'manifest.json');
  const started = setInterval(() => {
    if (!existsSync(manifest) || readFileSync(manifest, 'utf8') === '') return;
    clearInterval(started);
    child.kill('SIGINT');
  }, 50);
  const { code, stderr } = await ended;
  expect(code).toBe(130);
  expect(stderr).toMatch(
    /ABORTED: Interrupted\. What is done is kept in stopped; resume with: xpatch evolution -m demo/,
  );
  expect(existsSync(join(cli.folder, 'stopped', 'report.html'))).toBe(false);
  expect(JSON.parse(readFileSync(manifest, 'utf8')).status).toBe('running');
  expect(await cli.error('report', 'stopped')).toMatchObject({ code: 'RUN_INVALID', exit: 1 });
  const { code: again, stdout } = await cli.run(args);
  expect([again, stdout]).toEqual([0, expect.stringContaining('Report: stopped/report.html')]);
  expect(JSON.parse(readFileSync(manifest, 'utf8'))).toMatchObject({ status: 'complete', lines: 4 });
  expect((await cli.error('evolution', '-m', 'demo', ...TASKS, '--prompts', '7', '-o', 'stopped')).code).toBe(
    'RUN_MISMATCH',
  );
});

test('a study is verified to the part done again, and its report is made anew from its lines', async () => {
  await cli.json('decode', '-m', 'demo', ...TASKS, '--specs', 'text', '--prompts', '4', '-o', 'checked');
  const { ok, checks } = await cli.json('verify', 'checked', '--sample', '40');
  expect(checks.map(({ name, state }: Record<string, string>) => `${name} ${state}`)).toEqual(
    ['manifest', 'lines', 'counts', 'tasks', 'vectors', 'tables', 'model', 'answers'].map((name) => `${name} ok`),
  );
  expect([ok, checks.at(-1).detail]).toEqual([true, '2 of 2 parts done again: the same']);
  const table = read('checked', 'tables', 'layer-4.md');
  rmSync(join(cli.folder, 'checked', 'tables'), { recursive: true });
  const { report, blocks } = await cli.json('report', 'checked');
  expect([report, blocks.length > 2]).toEqual([join('checked', 'report.html'), true]);
  expect(read('checked', 'tables', 'layer-4.md')).toBe(table);
  const results = join(cli.folder, 'checked', 'results.jsonl');
  writeFileSync(results, readFileSync(results, 'utf8').replace(/"answerRank":\d+/g, '"answerRank":77777'));
  const damaged = await cli.run(['verify', 'checked', '--json']);
  const failed = JSON.parse(damaged.stdout).checks.filter(({ state }: { state: string }) => state === 'failed');
  expect([damaged.code, failed.map(({ name }: { name: string }) => name)]).toEqual([1, ['lines', 'tables']]);
});
