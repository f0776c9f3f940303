// Patchscopes against the interventions that they are made of.

import { expect, test } from '@jest/globals';
import { patchscope } from '../../src/lens/patchscope.js';
import type { Generation } from '../../src/model/generate.js';
import { HiddenStates } from '../../src/model/hidden-states.js';
import type { PassResult } from '../../src/model/pass.js';
import { TaskVector } from '../../src/vectors/task-vector.js';
import { expectError } from '../unit/helpers.js';
import { load, tokenPrompt } from './helpers.js';

async function setUp(family: string) {
  const model = await load(family);
  const context = await model.createContext();
  const prompt = await tokenPrompt(model, 12, 5);
  const [result] = (await context.pass([{ prompt, capture: { layers: 'all', positions: [3, -1] } }])) as [PassResult];
  return { model, context, states: result.states as HiddenStates };
}

const said = ({ text, tokens, finish }: Generation) => ({ text, tokens, finish });

test('each state is what a generation with that intervention says', async () => {
  const { model, context, states } = await setUp('llama');
  const target = await tokenPrompt(model, 9, 6);
  const found = await patchscope(context, states, {
    layers: [2, 0],
    position: 3,
    targetPrompt: target,
    targetPosition: 4,
    targetLayers: [0, 1, 2],
    maxTokens: 5,
  });
  expect(found.decoded.map(({ sourceLayer, targetLayer }) => [sourceLayer, targetLayer])).toEqual(
    [2, 0].flatMap((source) => [0, 1, 2].map((layer) => [source, layer])),
  );
  expect(found).toMatchObject({ sourcePosition: 3, targetPosition: 4, targetTokens: [...target.tokens] });
  const [plain] = await context.generate([{ prompt: target }], { maxTokens: 5 });
  expect(found.plain).toEqual(said(plain as Generation));
  for (const { sourceLayer, targetLayer, delta, ...decoded } of found.decoded) {
    const at = sourceLayer * 2 * 64;
    const value = states.data.slice(at, at + 64);
    const [expected] = await context.generate(
      [
        {
          prompt: target,
          interventions: [{ hook: 'resid_post', layers: targetLayer, positions: 4, op: 'replace', value }],
          capture: { layers: [targetLayer], positions: [4] },
        },
      ],
      { maxTokens: 5 },
    );
    expect(expected?.states?.data).toEqual(value);
    expect(decoded).toEqual(said(expected as Generation));
    expect(delta).toBeCloseTo(expected?.interventions[0]?.delta as number, 3);
    expect(delta).toBeGreaterThan(0);
  }
  // The states differ, so that they cannot all say the same unless nothing was patched.
  expect(new Set(found.decoded.map(({ tokens }) => tokens.join())).size).toBeGreaterThan(1);
});

test('by default: all layers, last position, into the same layer of the identity prompt', async () => {
  const { model, context, states } = await setUp('llama');
  const found = await patchscope(context, states);
  const identity = await model.prompt('cat -> cat\n1135 -> 1135\nhello -> hello\n?');
  expect(found).toMatchObject({
    sourcePosition: 11,
    targetPosition: identity.length - 1,
    targetTokens: [...identity.tokens],
  });
  expect(model.detokenize(identity.tokens.slice(-1))).toContain('?');
  expect(found.decoded.map(({ sourceLayer, targetLayer }) => [sourceLayer, targetLayer])).toEqual([
    [0, 0],
    [1, 1],
    [2, 2],
  ]);
});

test('a state patched over itself changes nothing, and says so', async () => {
  const { model, context } = await setUp('llama');
  const prompt = await tokenPrompt(model, 12, 5);
  const [result] = await context.pass([{ prompt, capture: { layers: 'all', positions: 'last' } }]);
  const found = await patchscope(context, result?.states as HiddenStates, { targetPrompt: prompt, maxTokens: 4 });
  for (const { tokens, delta } of found.decoded) {
    expect(tokens).toEqual(found.plain.tokens);
    expect(delta).toBeCloseTo(0, 3);
  }
});

test('states and vectors of another model of equal width are decoded, of another width refused', async () => {
  const { model, states } = await setUp('llama');
  const other = await setUp('gpt-neox');
  const targetPrompt = [{ tokens: [7, 8, 9] }];
  const found = await patchscope(other.context, states, { targetPrompt, maxTokens: 3 });
  const value = states.data.slice((2 * 2 + 1) * 64, (2 * 2 + 2) * 64);
  const [expected] = await other.context.generate(
    [
      {
        prompt: await other.model.prompt(targetPrompt),
        interventions: [{ hook: 'resid_post', layers: 2, positions: 'last', op: 'replace', value }],
      },
    ],
    { maxTokens: 3 },
  );
  expect(found.decoded[2]?.tokens).toEqual(expected?.tokens);

  const places = { layers: [2], positions: [11], tokens: [0] };
  const last = new HiddenStates({ hook: 'resid_post', model: model.identity, ...places }, value);
  const vector = TaskVector.fromStates(last, {
    model: model.identity,
    readPosition: 'position',
    origin: { op: 'capture', position: 11, token: 0 },
  });
  const decoded = await patchscope(other.context, vector, { targetPrompt, maxTokens: 3 });
  expect(decoded.decoded.map(({ tokens }) => tokens)).toEqual([expected?.tokens]);

  const narrow = await setUp('gemma2');
  await expectError(
    () => patchscope(narrow.context, states, { targetPrompt }),
    'VECTOR_MISMATCH',
    /width 64.*width 48/,
  );
});

test('what does not exist is refused', async () => {
  const { context, states } = await setUp('llama');
  await expectError(
    () => patchscope(context, states, { position: 4 }),
    'POSITION_OUT_OF_RANGE',
    /no position 4.*3, 11/,
  );
  await expectError(() => patchscope(context, states, { layers: [5] }), 'LAYER_OUT_OF_RANGE', /no layer 5/);
  await expectError(() => patchscope(context, states, { layers: [] }), 'INVALID_ARGUMENT', /No layers/);
  await expectError(() => patchscope(context, states, { targetLayers: [3] }), 'LAYER_OUT_OF_RANGE', /layers 0 to 2/);
  await expectError(() => patchscope(context, states, { targetPosition: 99 }), 'POSITION_OUT_OF_RANGE', /99/);
  await expectError(() => patchscope(context, states, { targetPrompt: [''] }), 'PROMPT_EMPTY', /is empty/);
  await expectError(() => patchscope(context, states, { maxTokens: 0 }), 'INVALID_ARGUMENT', /maxTokens/);
});
