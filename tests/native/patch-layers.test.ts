// Activation patching maps, followed tokens and pages made from the library, against one row a pass.
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, expect, test } from '@jest/globals';
import { logitDifference, tokenProbability } from '../../src/circuits/measure.js';
import { patchLayers } from '../../src/circuits/patch-layers.js';
import type { Context } from '../../src/model/context.js';
import type { Model } from '../../src/model/model.js';
import { lensReport } from '../../src/report/lens-report.js';
import { sweepLayers } from '../../src/vectors/sweep.js';
import { TaskVector } from '../../src/vectors/task-vector.js';
import { expectError, temporaryFolder } from '../unit/helpers.js';
import { load } from './helpers.js';

const folder = await temporaryFolder();
let model: Model;
let context: Context;
const from = { tokens: [10, 88, 147, 129, 70] };
const into = { tokens: [10, 88, 33, 129, 70] };

beforeAll(async () => {
  model = await load('llama');
  context = await model.createContext({ kvType: 'f32' });
});

test('a patching map holds what each patch alone does to the metric', async () => {
  const metric = logitDifference(5, 9);
  const map = await patchLayers(context, { from, into, metric });
  expect([map.layers, map.positions, map.tokens]).toEqual([[0, 1, 2], [0, 1, 2, 3, 4], into.tokens]);
  const { states, logits } = await context.run({ prompt: from, capture: 'all', logits: 'last' });
  expect(map.clean).toBeCloseTo(metric.value(logits.data, [5, 9]), 4);
  for (const layer of map.layers) {
    for (const position of map.positions) {
      const value = states.at(layer, position);
      const edit = { layers: layer, positions: position, op: 'replace', value } as const;
      const alone = await context.run({ prompt: into, interventions: [edit], logits: 'last' });
      expect(map.at(layer, position)).toBeCloseTo(metric.value(alone.logits.data, [5, 9]), 3);
    }
  }
  // The last state is all that the answer is made of; where the prompts are alike a patch changes nothing.
  expect(map.recovered(2, 4)).toBeCloseTo(1, 3);
  expect(map.recovered(1, 0)).toBeCloseTo(0, 3);
});

test('some layers and positions, another metric, and what cannot be', async () => {
  const probability = tokenProbability(5);
  const map = await patchLayers(context, { from, into, metric: probability, layers: [1], positions: [2, -1] });
  expect([...map.values].every((p) => p > 0 && p < 1)).toBe(true);
  await expectError(() => map.at(0, 2), 'LAYER_OUT_OF_RANGE', /Layer 0/);
  await expectError(() => map.at(1, 1), 'POSITION_OUT_OF_RANGE', /Position 1/);
  const short = { tokens: [10, 88] };
  await expectError(
    () => patchLayers(context, { from: short, into, metric: probability }),
    'INVALID_ARGUMENT',
    /2 and 5/,
  );
  const many = logitDifference('no such token at all', 3);
  await expectError(() => patchLayers(context, { from, into, metric: many }), 'INVALID_ARGUMENT', /not one token/);
});

test('a sweep follows tokens wherever they rank', async () => {
  const { states } = await context.run({ prompt: from, capture: { positions: 'last' } });
  const origin = { op: 'capture', position: 4, token: 70 } as const;
  const vector = TaskVector.fromStates(states, { model: model.identity, readPosition: 'position', origin });
  const { layers, plain } = await sweepLayers(context, into, vector, { track: [200, 7], topK: 1 });
  for (const [i, { tracked }] of [plain, ...layers].entries()) {
    const interventions = i ? [vector.at(i - 1)] : [];
    const { top } = await context.run({ prompt: into, interventions, topK: model.info.nVocab });
    const expected = [200, 7].map((token) => {
      const rank = top.findIndex((score) => score.token === token);
      return { token, rank, probability: expect.closeTo(top[rank]?.probability as number, 5) };
    });
    expect(tracked).toMatchObject(expected);
  }
});

test('a page of a prompt is made and saved from a script', async () => {
  const edges = [{ layers: [1], from: [0, 1] }];
  const page = await lensReport(
    context,
    { prompt: from, interventions: [{ layers: 0, op: 'zero' }], edges },
    { topK: 2 },
  );
  expect(page.report.introduction.at(-1)).toBe(
    'States were changed before they were read: zero at resid_post of layers 0, positions last; attention from last to [0,1] cut in layers [1].',
  );
  expect((await lensReport(context, from)).report.introduction).toHaveLength(1);
  expect(await page.toHtml()).toContain('Logit lens');
  await page.save(join(folder, 'lens'));
  expect((await readdir(join(folder, 'lens'))).sort()).toEqual(['figures', 'manifest.json', 'report.html', 'tables']);
  const { options } = JSON.parse(await readFile(join(folder, 'lens', 'manifest.json'), 'utf8')) as { options: object };
  const interventions = [{ layers: 0, op: 'zero' }];
  expect(options).toMatchObject({ topK: 2, track: [], tuned: null, interventions, edges });
  await expectError(() => page.save(join(folder, 'lens')), 'FILE_WRITE', /not empty/);
});
