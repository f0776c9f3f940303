// Quantised weights run, patched too, and mean what their float32 twin says.

import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { logitLens } from '../../src/lens/logit-lens.js';
import type { Context } from '../../src/model/context.js';
import { loadModel } from '../../src/model/load-model.js';
import type { Model } from '../../src/model/model.js';
import type { PassResult, PassRow } from '../../src/model/pass.js';
import type { Prompt } from '../../src/prompt/prompt.js';
import { temporaryFolder } from '../unit/helpers.js';
import { cosine, expectSame, logitsOf, randomVector, statesOf, tokenPrompt } from './helpers.js';
import { writeTwins } from './quantised-model.js';

const folder = await temporaryFolder();

describe.each(['q8_0', 'q4_k', 'nvfp4', 'q1_0', 'q2_0'] as const)('%s', (kind) => {
  const models: Model[] = [];
  const contexts: Context[] = [];
  let prompt: Prompt;
  let patched: PassRow[];

  beforeAll(async () => {
    const paths = [join(folder, `${kind}.gguf`), join(folder, `${kind}.f32.gguf`)] as const;
    writeTwins(kind, ...paths);
    for (const path of paths) {
      const model = await loadModel(path, { device: 'cpu', threads: 1 });
      models.push(model);
      contexts.push(await model.createContext({ nCtx: 512, nUbatch: 32, kvType: 'f32' }));
    }
    prompt = await tokenPrompt(models[0] as Model, 70);
    const value = randomVector(256, 7);
    patched = [0, 1, 2].map((layer) => ({
      prompt,
      interventions: [{ hook: 'resid_post', layers: layer, positions: [30, 'last'], op: 'replace', value }],
      capture: { layers: 'all', positions: [30, 31, -1] },
      logits: 'last',
    }));
  });

  afterAll(async () => {
    for (const model of models) await model.dispose();
  });

  const both = (rows: PassRow[]) => Promise.all(contexts.map((context) => context.pass(rows)));

  /** Activations are rounded to eight bits before each product, 0.4 % of the largest of a block. */
  function expectNear(actual: Float32Array, expected: Float32Array, width: number) {
    const cosines = [];
    for (let at = 0; at < expected.length; at += width) {
      cosines.push(cosine(actual.subarray(at, at + width), expected.subarray(at, at + width)));
    }
    expect(Math.min(...cosines)).toBeGreaterThan(0.999);
  }

  test('states of every layer and position, and logits, are those of the float32 twin', async () => {
    const rows: PassRow[] = [{ prompt, capture: { layers: 'all', positions: 'all' }, logits: 'all' }];
    const [quantised, float] = await both(rows);
    expect(statesOf(quantised?.[0])).not.toEqual(statesOf(float?.[0]));
    expectNear(statesOf(quantised?.[0]), statesOf(float?.[0]), 256);
    expectNear(logitsOf(quantised?.[0]), logitsOf(float?.[0]), 512);
  });

  test('the lens: of the last layer its logits, of every layer what the float32 twin reads in the same states', async () => {
    const [context, twin] = contexts as [Context, Context];
    const [pass] = await context.pass([{ prompt, capture: { layers: 'all', positions: 'all' }, logits: 'all' }]);
    const tokens = Array.from({ length: 512 }, (_, token) => token);
    const [own, float] = await Promise.all(
      [context, twin].map(async (on) => {
        const { cells } = await logitLens(on, pass as PassResult, { tokens });
        return Float32Array.from(cells.flat().flatMap((cell) => cell.tokens.map(({ logit }) => logit)));
      }),
    );
    const logits = logitsOf(pass);
    expectSame((own as Float32Array).subarray(-logits.length), logits, 512, 'logits');
    expectNear(own as Float32Array, float as Float32Array, 512);
  });

  test('patched at each layer too', async () => {
    const [quantised, float] = await both(patched);
    for (const i of patched.keys()) {
      expectNear(statesOf(quantised?.[i]), statesOf(float?.[i]), 256);
      expectNear(logitsOf(quantised?.[i]), logitsOf(float?.[i]), 512);
    }
  });

  test('rows in one pass equal rows one by one, and an identity patch changes no bit', async () => {
    const context = contexts[0] as Context;
    const together = await context.pass(patched);
    for (const [i, row] of patched.entries()) {
      expectSame(logitsOf(together[i]), logitsOf((await context.pass([row]))[0]), 512, 'logits');
    }
    const capture = { layers: [1], positions: [-1] };
    const [plain] = await context.pass([{ prompt, capture, logits: 'all' }]);
    const identity = { hook: 'resid_post', layers: 1, positions: -1, op: 'replace', value: statesOf(plain) } as const;
    const [same] = await context.pass([{ prompt, capture, logits: 'all', interventions: [identity] }]);
    expect(logitsOf(same)).toEqual(logitsOf(plain));
  });
});
