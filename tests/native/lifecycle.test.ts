// Disposing, aborting and ending in every order, also while a call runs.

import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from '@jest/globals';
import { loadModel } from '../../src/model/load-model.js';
import { expectError } from '../unit/helpers.js';
import { expectSame, fixture, load, logitsOf, picture, tokenPrompt } from './helpers.js';

const options = { device: 'cpu', threads: 1 } as const;
const open = (mmproj?: string) => loadModel(fixture('llava-siglip.gguf'), { ...options, mmproj });
const mmproj = fixture('llava-siglip.mmproj.gguf');

describe('dispose', () => {
  test('of the model first takes its contexts along', async () => {
    const model = await open();
    const context = await model.createContext({ nCtx: 256 });
    const prompt = await tokenPrompt(model, 5);
    await model.dispose();
    await expectError(() => context.pass([{ prompt, topK: 1 }]), 'DISPOSED', /disposed/);
    await expectError(() => context.generate([{ prompt }]), 'DISPOSED', /disposed/);
    await expectError(() => context.embeddingDeviation(), 'DISPOSED', /dispose/);
    await expectError(() => model.createContext(), 'DISPOSED', /Load it again/);
    await expectError(() => model.prompt('x'), 'DISPOSED', /Load it again/);
    await expectError(() => model.tokenize('x'), 'DISPOSED', /Load it again/);
    await context.dispose();
  });

  test('twice, also at the same time, does no harm', async () => {
    const model = await open(mmproj);
    const context = await model.createContext({ nCtx: 256 });
    await Promise.all([context.dispose(), context.dispose(), model.dispose(), model.dispose()]);
    await context.dispose();
    await model.dispose();
  });

  test.each(['context', 'model'] as const)('of the %s ends a pass under way with a coded error', async (what) => {
    const model = await open();
    const context = await model.createContext({ nCtx: 2048, nUbatch: 8 });
    const prompt = await tokenPrompt(model, 2000);
    let disposing: Promise<void> | undefined;
    const pass = context.pass([{ prompt, topK: 1 }], {
      onProgress: ({ done }) => {
        if (done > 100) disposing ??= what === 'model' ? model.dispose() : context.dispose();
      },
    });
    await expectError(() => pass, 'ABORTED', /aborted/);
    await disposing;
    await model.dispose();
  });

  test('of the model while a picture is encoded and a context is made', async () => {
    const model = await open(mmproj);
    const work = [
      model.prompt([{ image: picture('square-a.png') }]),
      model.prompt([{ image: picture('square-b.png') }]),
      model.createContext({ nCtx: 1024 }),
      model.createContext({ nCtx: 2048 }),
    ];
    const disposing = model.dispose();
    for (const result of await Promise.allSettled(work)) {
      if (result.status === 'rejected') expect(result.reason).toMatchObject({ name: 'XpatchError', code: 'DISPOSED' });
    }
    await disposing;
  });

  test('of one context leaves the others of the model as they were', async () => {
    const model = await open();
    const [a, b] = [await model.createContext({ nCtx: 256 }), await model.createContext({ nCtx: 256 })];
    const prompt = await tokenPrompt(model, 20);
    const [before] = await b.pass([{ prompt, logits: 'last' }]);
    await a.dispose();
    const [after] = await b.pass([{ prompt, logits: 'last' }]);
    expect(logitsOf(after)).toEqual(logitsOf(before));
    await model.dispose();
  });
});

describe('concurrent calls', () => {
  test('on one context are refused with BUSY, and the first is not disturbed', async () => {
    const model = await open();
    const context = await model.createContext({ nCtx: 1024, nUbatch: 16 });
    const prompt = await tokenPrompt(model, 500);
    const [alone] = await context.pass([{ prompt, logits: 'last' }]);
    const first = context.pass([{ prompt, logits: 'last' }]);
    await expectError(() => context.pass([{ prompt, topK: 1 }]), 'BUSY', /another call/);
    await expectError(() => context.generate([{ prompt }]), 'BUSY', /another call/);
    expect(logitsOf((await first)[0])).toEqual(logitsOf(alone));
    await model.dispose();
  });

  test('on two contexts of one model give what they give alone', async () => {
    const model = await open();
    const contexts = [await model.createContext({ nCtx: 512 }), await model.createContext({ nCtx: 512 })];
    const prompts = [await tokenPrompt(model, 300, 1), await tokenPrompt(model, 300, 2)];
    const run = (i: number) => contexts[i]?.pass([{ prompt: prompts[i] as (typeof prompts)[0], logits: 'last' }]);
    const alone = [await run(0), await run(1)];
    const together = await Promise.all([run(0), run(1)]);
    expect(together.map((r) => logitsOf(r?.[0]))).toEqual(alone.map((r) => logitsOf(r?.[0])));
    await model.dispose();
  });

  test('a progress callback that throws, rejects the call and leaves the context usable', async () => {
    const model = await open();
    const context = await model.createContext({ nCtx: 1024, nUbatch: 16 });
    const prompt = await tokenPrompt(model, 100);
    const thrown = new TypeError('from the callback');
    const onProgress = () => {
      throw thrown;
    };
    await expect(context.pass([{ prompt, topK: 1 }], { onProgress })).rejects.toBe(thrown);
    await expect(loadModel(fixture('llava-siglip.gguf'), { ...options, onProgress })).rejects.toBe(thrown);
    expect((await context.pass([{ prompt, topK: 1 }]))[0]?.top).toHaveLength(1);
    await model.dispose();
  });
});

describe('abort', () => {
  test('before a call', async () => {
    const model = await load('llama');
    const context = await model.createContext({ nCtx: 256 });
    const prompt = await tokenPrompt(model, 5);
    await expectError(() => context.pass([{ prompt }], { signal: AbortSignal.abort() }), 'ABORTED', /before it began/);
    await context.dispose();
  });

  test.each([
    ['between batches', 8],
    ['inside a decode', 2048],
  ])('%s ends the pass, and the context is as before', async (_, nUbatch) => {
    const model = await load('llama');
    const context = await model.createContext({ nCtx: 2048, nUbatch });
    const short = await tokenPrompt(model, 20);
    const [before] = await context.pass([
      { prompt: short, capture: { layers: 'all', positions: 'all' }, logits: 'all' },
    ]);
    const controller = new AbortController();
    const long = await tokenPrompt(model, 2000, 2);
    const pass = context.pass([{ prompt: long, logits: 'last' }], { signal: controller.signal });
    setTimeout(() => controller.abort(new Error('enough')), 5);
    await expectError(() => pass, 'ABORTED', /aborted/);
    const [after] = await context.pass([
      { prompt: short, capture: { layers: 'all', positions: 'all' }, logits: 'all' },
    ]);
    expect(after).toEqual(before);
    const [whole] = await context.pass([{ prompt: long, logits: 'last' }]);
    expect(logitsOf(whole).every(Number.isFinite)).toBe(true);
    await context.dispose();
  });

  test('during a generation', async () => {
    const model = await load('llama');
    const context = await model.createContext({ nCtx: 4096 });
    const rows = await Promise.all([1, 2, 3, 4].map(async (seed) => ({ prompt: await tokenPrompt(model, 20, seed) })));
    const controller = new AbortController();
    const onProgress = () => controller.abort();
    const run = context.generate(rows, { maxTokens: 900, signal: controller.signal, onProgress });
    await expectError(() => run, 'ABORTED', /aborted/);
    const again = await context.generate(rows, { maxTokens: 3 });
    expect(again.map((row) => row.interventions)).toEqual([[], [], [], []]);
    await context.dispose();
  });

  test('of a load, before it and at its first progress', async () => {
    const path = fixture('llama.gguf');
    await expectError(() => loadModel(path, { ...options, signal: AbortSignal.abort() }), 'ABORTED', /Loading/);
    const controller = new AbortController();
    const loading = loadModel(path, { ...options, signal: controller.signal });
    controller.abort();
    await expectError(() => loading, 'ABORTED', /Loading/);
    const again = await loadModel(path, options);
    expect(again.identity.nLayers).toBe(3);
    await again.dispose();
  });
});

test('loading reports progress from 0 to 1', async () => {
  const seen: number[] = [];
  const model = await loadModel(fixture('llama.gguf'), {
    ...options,
    onProgress: (fraction) => void seen.push(fraction),
  });
  expect(seen.at(-1)).toBe(1);
  expect([...seen].sort((a, b) => a - b)).toEqual(seen);
  await model.dispose();
});

const CHILD = fileURLToPath(new URL('./exit-child.mjs', import.meta.url));

async function ended(child: ChildProcess): Promise<{ code: number | null; signal: string | null }> {
  const [code, signal] = (await once(child, 'exit')) as [number | null, string | null];
  return { code, signal };
}

describe('the end of a process', () => {
  test.each([
    ['exit', 'process.exit while a pass runs', 7],
    ['throw', 'an uncaught exception while a pass runs', 1],
    ['leave', 'nothing left to do, with nothing disposed', 0],
    ['load', 'process.exit while a model loads', 7],
    ['encode', 'process.exit while a picture is encoded', 7],
  ])('%s: %s', async (mode, _, code) => {
    expect(await ended(fork(CHILD, [mode], { stdio: 'ignore' }))).toEqual({ code, signal: null });
  });

  test('two worker threads and the main thread use the addon at once, and a worker is terminated in a pass', async () => {
    expect(await ended(fork(CHILD, ['workers'], { stdio: 'ignore' }))).toEqual({ code: 0, signal: null });
  });
});

test('a pass of one thread equals that of two', async () => {
  const one = await load('llama');
  const two = await load('llama', { threads: 2 });
  const prompt = await tokenPrompt(one, 50);
  const [a] = await (await one.createContext({ nCtx: 256 })).pass([{ prompt, logits: 'all' }]);
  const [b] = await (await two.createContext({ nCtx: 256 })).pass([{ prompt, logits: 'all' }]);
  expectSame(logitsOf(b), logitsOf(a), one.info.nVocab, 'logits');
});
