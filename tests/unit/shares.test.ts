import { expect, test } from '@jest/globals';
import { scoreLines } from '../../src/experiment/scorers.js';
import type { ResultLine } from '../../src/experiment/types.js';
import { edgesTable } from '../../src/report/heads.js';
import { clusterScore } from '../../src/stats/clusters.js';
import { wilsonInterval } from '../../src/stats/statistics.js';
import { accuracyTable } from '../../src/stats/tables.js';
import { lensQuality } from '../../src/studies/lens-quality.js';

// Where all items score alike an interval has the width of Wilson for shares and none for other scores: who calls what a share.
const ITEMS = Array.from({ length: 20 }, (_, i) => `item ${i}`);
const { high: WIDTH } = wilsonInterval(0, ITEMS.length);

test("a run's scores are shares, scores of one's own need not be", async () => {
  const asked = ITEMS.map((item) => {
    const line = { condition: 'Patch', task: 'color', domain: 'food', seed: 1, item, answer: 'red', lenient: true };
    return { ...line, strict: false, probability: 1, answerRank: 0 } as unknown as ResultLine;
  });
  const lines = scoreLines(asked, { stars: () => 1, balance: () => -1, distance: () => 0 });
  const cellOf = async (score: string) => (await accuracyTable(lines, { title: '', score })).rows[0]?.cells[0];
  for (const score of ['lenient', 'probability', 'likelihood']) {
    expect(await cellOf(score)).toMatchObject({ value: 1, low: 1 - WIDTH, high: 1 });
  }
  expect(await cellOf('strict')).toMatchObject({ value: 0, low: 0, high: WIDTH });
  expect(await cellOf('stars')).toMatchObject({ value: 1, low: 1, high: 1 });
  expect(await cellOf('balance')).toMatchObject({ value: -1, low: -1, high: -1 });
  expect(await cellOf('distance')).toMatchObject({ value: 0, low: 0, high: 0 });
});

test('divergences of a lens are none, nor is its gain', () => {
  const quality = lensQuality(ITEMS.map((item) => ({ item, positions: 1, plain: [0, 1], tuned: [0, 1] })));
  expect(quality.layers.map(({ plain }) => [plain.low, plain.high])).toEqual([
    [0, 0],
    [1, 1],
  ]);
  expect(quality.mean.gain).toMatchObject({ value: 0, low: 0, high: 0 });
});

test('what an answer loses is the difference of two probabilities', () => {
  const probabilities = ITEMS.map(() => 0.5);
  const read = { plain: probabilities, withoutPicture: [probabilities], withoutExamples: [probabilities.map(() => 0)] };
  const modalities = [{ modality: 'text' as const, effects: [], ...read }];
  const [row] = edgesTable([{ task: 'color', domain: 'food', items: ITEMS, heads: [], modalities }]).rows;
  expect(row).toEqual(['color', 'text', 0.5, 0, 0, -WIDTH, WIDTH, 0, 0.5, 0.5 - WIDTH, 0.5 + WIDTH]);
});

test('purities are, silhouettes are not', async () => {
  const labels = ITEMS.map((_, i) => (i % 2 ? 'a' : 'b'));
  const score = () => new Float64Array(ITEMS.length).fill(1);
  const points = (share: boolean) => ITEMS.map((item) => ({ task: 't', seed: 1, item, share }));
  expect(await clusterScore(labels, points(true), score)).toMatchObject({ value: 1, low: 1 - WIDTH, high: 1 });
  expect(await clusterScore(labels, points(false), score)).toMatchObject({ value: 1, low: 1, high: 1 });
});
