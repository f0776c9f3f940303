// Every point against transformers, plain and when something is added there. tests/reference/hook_points.py made the values.
import { readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, jest, test } from '@jest/globals';
import { HOOKS, type HookName } from '../../src/hooks/types.js';
import type { Context } from '../../src/model/context.js';
import { loadModel } from '../../src/model/load-model.js';
import type { Model } from '../../src/model/model.js';
import type { Prompt } from '../../src/prompt/prompt.js';
import { SafetensorsFile } from '../../src/util/safetensors.js';
import { expectError } from '../unit/helpers.js';
import { FOLDER } from './families.js';

jest.setTimeout(300_000);

const REFERENCES = fileURLToPath(new URL('../fixtures/hooks/', import.meta.url));
const FAMILIES = readdirSync(REFERENCES).map((file) => file.replace('.safetensors', ''));
const LAYER = 1;
/** attn_logit_softcapping of the Gemma 2 here. */
const CAP = 3;
/** GELU comes from a table of 16-bit values on the CPU. */
const bound = (name: string) => (['gemma2', 'gemma3', 'gpt-neox', 'llava'].includes(name) ? 5e-3 : 1e-4);

test('there are references of twelve families', () => {
  expect(FAMILIES).toHaveLength(12);
});

describe.each(FAMILIES)('%s', (name) => {
  let model: Model;
  let context: Context;
  let prompt: Prompt;
  const values = new Map<string, Float32Array>();

  beforeAll(async () => {
    const file = await SafetensorsFile.open(`${REFERENCES}${name}.safetensors`);
    for (const [key, { dtype }] of file.tensors) if (dtype === 'F32') values.set(key, await file.readFloat32(key));
    const tokens = Array.from((await file.read('tokens')) as Int32Array);
    await file.close();
    const seeing = tokens.includes(-1);
    const mmproj = seeing ? { mmproj: `${FOLDER}/${name}.mmproj.gguf` } : {};
    model = await loadModel(`${FOLDER}/${name}.gguf`, { device: 'cpu', threads: 1, ...mmproj });
    context = await model.createContext({ nCtx: 64, kvType: 'f32', flashAttention: 'off' });
    const [first, last] = [tokens.indexOf(-1), tokens.lastIndexOf(-1)];
    const image = `${FOLDER}/pictures/square-a.png`;
    const around = [{ tokens: tokens.slice(0, first) }, { image }, { tokens: tokens.slice(last + 1) }];
    prompt = await model.prompt(seeing ? around : { tokens });
    expect([...prompt.tokens]).toEqual(tokens);
  });

  afterAll(() => model.dispose());

  /** Largest difference in units of the largest number. */
  const expectClose = (what: string, actual: Float32Array, expected: Float32Array) => {
    expect([what, actual.length]).toEqual([what, expected.length]);
    const size = expected.reduce((a, x) => Math.max(a, Math.abs(x)), 0);
    const worst = actual.reduce((a, x, i) => Math.max(a, Math.abs(x - (expected[i] as number))), 0);
    expect([what, worst / size < bound(name) ? 'close' : worst / size]).toEqual([what, 'close']);
  };

  test('states at every point', async () => {
    const hooks = HOOKS.filter((hook) => values.has(hook));
    expect(hooks.length).toBeGreaterThan(10);
    const captures = hooks.map((hook) => ({
      hook,
      ...(hook !== 'embed' && hook !== 'final_norm' && { layers: [LAYER] }),
    }));
    const { captured } = await context.run({ prompt, captures });
    hooks.forEach(
      (hook, i) => void expectClose(hook, captured[i]?.data as Float32Array, values.get(hook) as Float32Array),
    );
  });

  test('attention scores are the scaled products of the reference’s queries and keys, seen where its pattern is', async () => {
    const [q, k, pattern] = ['q', 'k', 'pattern'].map((hook) => values.get(hook) as Float32Array);
    const n = prompt.length;
    const { captured } = await context.run({ prompt, captures: [{ hook: 'attn_scores', layers: [LAYER] }] });
    const { data, heads } = captured[0] as NonNullable<(typeof captured)[0]>;
    const nHeads = (heads as readonly number[]).length;
    const size = (q as Float32Array).length / n / nHeads;
    const shared = (q as Float32Array).length / (k as Float32Array).length; // query heads of a key head
    const at = (x: Float32Array | undefined, position: number, head: number, of: number) =>
      (x as Float32Array).subarray((position * of + head) * size, (position * of + head + 1) * size);
    const [ours, theirs]: [number[], number[]] = [[], []];
    for (let i = 0; i < data.length; i++) {
      expect(Number.isFinite(data[i])).toBe((pattern?.[i] as number) > 0);
      if (data[i] === Number.NEGATIVE_INFINITY) continue;
      const [position, head, seen] = [Math.floor(i / n / nHeads), Math.floor(i / n) % nHeads, i % n];
      const key = at(k, seen, Math.floor(head / shared), nHeads / shared);
      const product = at(q, position, head, nHeads).reduce((sum, x, d) => sum + x * (key[d] as number), 0);
      const score = product / Math.sqrt(size);
      ours.push(data[i] as number);
      theirs.push(name === 'gemma2' ? CAP * Math.tanh(score / CAP) : score);
    }
    expect(ours.length).toBeGreaterThan(nHeads * n);
    expectClose('attn_scores', Float32Array.from(ours), Float32Array.from(theirs));
  });

  test('states of a picture in the tower', async () => {
    const expected = values.get('vision.resid_post');
    expect(expected !== undefined).toBe(['gemma3', 'llava'].includes(name));
    if (!expected) return;
    const seeing = await loadModel(`${FOLDER}/${name}.gguf`, {
      mmproj: `${FOLDER}/${name}.mmproj.gguf`,
      device: 'cpu',
    });
    const image = `${FOLDER}/pictures/square-a.png`;
    const before = await seeing.prompt({ image });
    const [states, ...others] = await seeing.visionStates(image);
    expect([others.length, states?.layers]).toEqual([0, [0, 1]]);
    expectClose('vision.resid_post', states?.data as Float32Array, expected);
    const [second] = await seeing.visionStates(image, { layers: [1] });
    expect(second?.data).toEqual(states?.data.subarray((states?.data.length ?? 0) / 2));
    await expectError(() => seeing.visionStates(image, { layers: [9] }), 'LAYER_OUT_OF_RANGE', /9/);
    // Reading changes nothing of what the model is given.
    expect((await seeing.prompt({ image })).segments).toEqual(before.segments);
    await seeing.dispose();
    if (name === 'gemma3') await expectError(() => model.visionStates(image), 'IMAGE_UNSUPPORTED', /mmproj/);
  });

  test('logits when something is added at a point', async () => {
    const hooks = HOOKS.filter((hook) => values.has(`add.${hook}`));
    expect(hooks.length).toBeGreaterThan(7);
    for (const hook of hooks as HookName[]) {
      const value = values.get(`value.${hook}`) as Float32Array;
      const edit = { hook, layers: LAYER, positions: 2, op: 'add', value } as const;
      const { logits } = await context.run({ prompt, logits: 'last', interventions: [edit] });
      expectClose(hook, logits.data, values.get(`add.${hook}`) as Float32Array);
    }
    const { logits } = await context.run({ prompt, logits: 'last' });
    expectClose('plain', logits.data, values.get('logits') as Float32Array);
  });

  test('logits when edges are cut, by scores and by the mask of flash attention', async () => {
    const expected = values.get('knock-out');
    expect(expected === undefined).toBe(['gemma2', 'gemma3', 'gpt-oss'].includes(name)); // theirs have masks for windows besides
    if (!expected) return;
    const edges = [{ layers: 'all', from: [0, 1], to: 'last' }] as const;
    const { logits } = await context.run({ prompt, logits: 'last', edges });
    expectClose('scores', logits.data, expected);
    const flash = await model.createContext({ nCtx: 64, kvType: 'f32', flashAttention: 'on' });
    const masked = await flash.run({ prompt, logits: 'last', edges });
    const size = expected.reduce((a, x) => Math.max(a, Math.abs(x)), 0);
    const worst = masked.logits.data.reduce((a, x, i) => Math.max(a, Math.abs(x - (expected[i] as number))), 0);
    expect(worst / size).toBeLessThan(0.01);
    await flash.dispose();
  });
});
