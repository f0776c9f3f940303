// Files that were never loaded here are tried in another process first: what it says, remembers and leaves alone.
import { spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterAll, describe, expect, test } from '@jest/globals';
import { PACKAGE_ROOT } from '../../install/layout.mjs';
import { Attempts, put } from '../native/damage.js';
import { fixture, picture } from '../native/helpers.js';
import { faultFolder } from './helpers.js';
import { parse, serialise } from './hostile.js';

const folder = faultFolder();
const tokens = [10, 88, 147];
const opened: Attempts[] = [];
afterAll(() => {
  for (const attempts of opened) attempts.close();
});

/** Processes that try, and remember in a folder of their own. */
function attemptsIn(cache: string, env: NodeJS.ProcessEnv = {}): Attempts {
  const attempts = new Attempts({ XPATCH_TRUST: '0', XDG_CACHE_HOME: join(folder, cache), ...env });
  opened.push(attempts);
  return attempts;
}

const verdicts = (cache: string) => readdirSync(join(folder, cache, 'xpatch', 'trials'));

/** A text of a file's header replaced by another of the same length. */
function replaced(file: string, from: string, to: string): Buffer {
  const text = readFileSync(fixture(file)).toString('latin1');
  expect(text).toContain(from);
  expect(to).toHaveLength(from.length);
  return Buffer.from(text.replaceAll(from, to), 'latin1');
}

/** A model of which one tensor is missing that llama.cpp takes for optional: an assertion ends the process at the first token. */
function deadly(): string {
  const document = parse(readFileSync(fixture('hy-v3.gguf')));
  const tensors = document.tensors.filter(({ name }) => name !== 'blk.0.ffn_down.weight');
  expect(tensors).toHaveLength(document.tensors.length - 1);
  return put(folder, 'deadly.gguf', serialise({ ...document, tensors }));
}

describe('a good file', () => {
  const good = () => fixture('llava.gguf');
  test('is tried once, and never again, by whatever process', async () => {
    expect(await attemptsIn('good').run({ model: good(), tokens })).toEqual({ outcome: 'loaded', trials: 1 });
    expect(verdicts('good')).toHaveLength(1);
    expect(await attemptsIn('good').run({ model: good(), tokens })).toEqual({ outcome: 'loaded' });
    const pair = { model: good(), mmproj: fixture('llava.mmproj.gguf'), picture: picture('square-a.png'), tokens };
    expect(await attemptsIn('good').run(pair)).toEqual({ outcome: 'loaded', trials: 1 });
    expect(await attemptsIn('good').run(pair)).toEqual({ outcome: 'loaded' });
    expect(verdicts('good')).toHaveLength(2);
  });

  test('is known by its header: another name is the same file, another header is not', async () => {
    const bytes = readFileSync(good());
    const copy = put(folder, 'copy.gguf', bytes);
    expect(await attemptsIn('good').run({ model: copy, tokens })).toEqual({ outcome: 'loaded' });
    const changed = put(folder, 'changed.gguf', replaced('llava.gguf', 'general.name', 'general.naMe'));
    expect(await attemptsIn('good').run({ model: changed, tokens })).toEqual({ outcome: 'loaded', trials: 1 });
  });

  test('is tried again by each process where nothing can be remembered', async () => {
    writeFileSync(join(folder, 'no-folder'), '');
    const attempts = attemptsIn('no-folder');
    expect(await attempts.run({ model: good(), tokens })).toEqual({ outcome: 'loaded', trials: 1 });
    expect(await attempts.run({ model: good(), tokens })).toEqual({ outcome: 'loaded' });
  });

  test('is not tried with XPATCH_TRUST=1', async () => {
    const attempts = attemptsIn('trust', { XPATCH_TRUST: '1' });
    expect(await attempts.run({ model: good(), tokens })).toEqual({ outcome: 'loaded' });
  });

  test('the shipped models are not tried', async () => {
    const shipped = join(PACKAGE_ROOT, 'models');
    const { models } = JSON.parse(readFileSync(join(shipped, 'catalogue.json'), 'utf8'));
    const { model, mmproj } = models.find((entry: { name: string }) => entry.name === 'demo').shipped;
    const pair = { model: join(shipped, model), mmproj: join(shipped, mmproj), tokens };
    expect(await attemptsIn('shipped').run(pair)).toEqual({ outcome: 'loaded' });
  });
});

describe('a file that ends the process', () => {
  test('is refused, with what ended it, as often as it is loaded', async () => {
    const attempts = attemptsIn('deadly');
    const model = deadly();
    for (let i = 0; i < 2; i++) {
      expect(await attempts.run({ model, tokens })).toEqual({
        outcome: 'MODEL_UNUSABLE',
        message: expect.stringMatching(
          /deadly\.gguf' cannot be used: .* ended by SIGABRT while its first tokens .*XPATCH_TRUST=1/,
        ),
        trials: 1,
      });
    }
  });
});

describe('however Node.js runs', () => {
  const library = pathToFileURL(join(PACKAGE_ROOT, 'dist', 'index.js')).href;
  const code = (model: string) => `
    const { loadModel } = await import(${JSON.stringify(library)});
    const load = () => loadModel(${JSON.stringify(model)}, { device: 'cpu' }).then(() => 'loaded', (error) => error.code);
    console.log(await load(), ...(await Promise.all([load(), load()])));
    process.exit();`;
  const inThread = (text: string) => `
    const { Worker } = require('node:worker_threads');
    new Worker(${JSON.stringify(`(async () => {${text}})()`)}, { eval: true });`;
  const run = (args: string[], env: NodeJS.ProcessEnv = {}) => {
    const cache = join(folder, `run ${args.length} ${args.join().length}`);
    mkdirSync(cache, { recursive: true });
    const { stdout } = spawnSync(process.execPath, ['--no-warnings', ...args], {
      env: { ...process.env, XPATCH_TRUST: '', XDG_CACHE_HOME: cache, ...env },
    });
    return stdout.toString().trim();
  };

  test('from the command line, in a thread, and with a loader that must not reach the trial', () => {
    const model = deadly();
    const unusable = 'MODEL_UNUSABLE MODEL_UNUSABLE MODEL_UNUSABLE';
    expect(run(['--input-type=module', '-e', code(model)])).toBe(unusable);
    expect(run(['-e', inThread(code(model))])).toBe(unusable);
    expect(run(['-e', inThread(code(fixture('llama.gguf')))])).toBe('loaded loaded loaded');
    const preload = put(folder, 'preload.cjs', Buffer.from('if (process.env.XPATCH_TRIAL) process.exit(3);'));
    const env = { NODE_OPTIONS: `--require "${preload}"` };
    expect(run(['--input-type=module', '-e', code(fixture('llama.gguf'))], env)).toBe('loaded loaded loaded');
  });
});
