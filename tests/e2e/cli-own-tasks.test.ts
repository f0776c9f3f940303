// Runs of task files and pictures of one's own: put together and checked elsewhere than they were made.
import { spawn } from 'node:child_process';
import { copyFileSync, cpSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { beforeAll, expect, test } from '@jest/globals';
import { loadTask } from '../../src/tasks/task.js';
import { commandLine, finish, MAIN, type Outcome, parseJson } from './cli-helpers.js';

const cli = commandLine();
const CONFIG = {
  tasks: ['./food.json'],
  seeds: [1],
  query: 'image',
  shots: 3,
  validation: 6,
  test: 6,
  maxTokens: 4,
  conditions: [
    { name: 'No Context', kind: 'bare' },
    { name: 'Image Prompt', kind: 'prompt', spec: 'image' },
    { name: 'Image Patch', kind: 'patch', spec: 'image' },
  ],
};
const [HERE, THERE] = ['here', join('there', 'deep')];
const EVAL = ['eval', 'mine.yaml', '-m', 'demo', '--threads', '1', '--json'];

/** In a folder other than the common one. */
function start(folder: string, ...args: string[]) {
  return spawn(process.execPath, ['--no-warnings', MAIN, ...args], { cwd: join(cli.folder, folder) });
}

/** The same in this process. */
async function run(folder: string, ...args: string[]): Promise<Outcome> {
  process.chdir(join(cli.folder, folder));
  try {
    return await cli.run(args);
  } finally {
    process.chdir(cli.folder);
  }
}

async function evaluate(folder: string, ...args: string[]): Promise<void> {
  expect(await run(folder, ...EVAL, ...args)).toMatchObject({ code: 0, stderr: '' });
}

/** What `verify` says from a third folder: the exit code, and the states that are not ok. */
async function verify(folder: string, ...args: string[]) {
  const outcome = await run('else', 'verify', join('..', folder), '--threads', '1', '--json', ...args);
  const checks: { name: string; state: string; detail: string }[] = parseJson(outcome).checks;
  const notOk = checks.filter(({ state }) => state !== 'ok').map(({ name, state }) => `${name} ${state}`);
  return { code: outcome.code, notOk, tasks: checks.find(({ name }) => name === 'tasks')?.detail };
}

const errorOf = (stdout: string) => JSON.parse(stdout.trim().split('\n').at(-1) as string).error;
const linesOf = (run: string) =>
  readFileSync(join(cli.folder, run, 'results.jsonl'), 'utf8')
    .trim()
    .split('\n')
    .sort();

/** Another picture, which none of the task's is, stands in the place of one of them while `action` runs. */
async function withOtherPicture(folder: string, action: () => Promise<void>): Promise<void> {
  const items: { image: string }[] = JSON.parse(readFileSync(join(cli.folder, folder, 'food.json'), 'utf8'));
  const one = join(cli.folder, folder, (items[0] as { image: string }).image);
  const { items: others } = await loadTask('country-capital', { pictures: true });
  renameSync(one, `${one}.away`);
  copyFileSync(others.find(({ image }) => image !== undefined)?.image as string, one);
  try {
    await action();
  } finally {
    renameSync(`${one}.away`, one);
  }
}

beforeAll(async () => {
  const { items } = await loadTask('food-color', { pictures: true });
  const home = join(cli.folder, HERE);
  mkdirSync(join(home, 'pics'), { recursive: true });
  const list = items
    .filter(({ image }) => image !== undefined)
    .slice(0, 12)
    .map(({ input, output, image }) => {
      copyFileSync(image as string, join(home, 'pics', basename(image as string)));
      return { input, output, image: `pics/${basename(image as string)}` };
    });
  writeFileSync(join(home, 'food.json'), JSON.stringify(list));
  writeFileSync(join(home, 'mine.yaml'), JSON.stringify(CONFIG));
  mkdirSync(join(cli.folder, 'else'));
  mkdirSync(join(cli.folder, dirname(THERE)));
  cpSync(home, join(cli.folder, THERE), { recursive: true });
  await evaluate(HERE, '-o', join('..', 'whole'));
  await evaluate(HERE, '--shard', '1/2', '-o', join('..', 'one'));
  await evaluate(THERE, '--shard', '2/2', '-o', join('..', '..', 'two'));
});

test('shards that were made in two folders become the run of one', async () => {
  await cli.json('merge', 'one', 'two', '-o', 'merged');
  expect(linesOf('merged')).toEqual(linesOf('whole'));
  expect(linesOf('merged').join('')).not.toContain(cli.folder);
  expect(await verify('merged', '--data', join('..', THERE))).toMatchObject({ code: 0, notOk: [] });
});

test('what cannot be found is not done, and what is another one fails', async () => {
  const lacking = await verify('whole');
  expect(lacking).toMatchObject({ code: 0, notOk: ['queries not done', 'tasks not done', 'answers not done'] });
  expect(lacking.tasks).toMatch(/Cannot read the task file .*food\.json.*--data/);
  await withOtherPicture(HERE, async () => {
    const failed = await verify('whole', '--data', join('..', HERE), '--sample', '0');
    expect(failed).toMatchObject({ code: 1, notOk: ['tasks failed', 'model not done'] });
    expect(failed.tasks).toBe('the pictures of food are not those of the run');
  });
  expect(await verify('whole', '--data', join('..', HERE))).toMatchObject({ code: 0, notOk: [] });
});

test('a picture that became another one stops a run from going on, and shards from being one', async () => {
  const output = ['-o', join('..', 'broken')];
  const child = start(HERE, ...EVAL, ...output);
  let told = false;
  createInterface(child.stdout).on('line', (line) => {
    if (told || JSON.parse(line).event !== 'batch') return;
    told = true;
    child.kill('SIGINT');
  });
  expect(await finish(child)).toMatchObject({ code: 130 });
  const before = linesOf('broken');
  const mismatch = {
    code: 'RUN_MISMATCH',
    message: expect.stringMatching(/tasks\.food\.pictures: "\w+… there, "\w+… here/),
  };
  await withOtherPicture(HERE, async () => {
    const { code, stdout } = await run(HERE, ...EVAL, ...output);
    expect(code).toBe(1);
    expect(errorOf(stdout)).toEqual(mismatch);
    await evaluate(HERE, '--shard', '1/2', '-o', join('..', 'other'));
    expect(await cli.error('merge', 'other', 'two', '-o', 'never')).toEqual({ ...mismatch, exit: 1 });
  });
  expect(linesOf('broken')).toEqual(before);
  await evaluate(HERE, ...output);
  expect(linesOf('broken')).toEqual(linesOf('whole'));
});

test('--data where all tasks are shipped ones is refused', async () => {
  const small = ['tasks=[food-color]', 'query=text', 'conditions=[{name: Bare, kind: bare}]', 'layers=[0]', 'test=2'];
  await evaluate(HERE, ...small.flatMap((one) => ['--set', one]), '-o', join('..', 'shipped'));
  const { code, message, exit } = await cli.error('verify', 'shipped', '--data', '.', '--sample', '0');
  expect({ code, message, exit }).toEqual({
    code: 'INVALID_ARGUMENT',
    message: expect.stringMatching(/^--data has no effect/),
    exit: 2,
  });
});

test('a table beside the user is a task file, whose instruction may be given', async () => {
  writeFileSync(join(cli.folder, 'capitals.csv'), 'input,output\nPeru,Lima\nCuba,Havana\n');
  const args = ['--tasks', 'capitals.csv', '--specs', 'instruction', '--instruction', 'The capital:'];
  expect(await cli.run(['extract', '-m', 'demo', ...args, '-o', 'capitals.safetensors'])).toMatchObject({ code: 0 });
});
