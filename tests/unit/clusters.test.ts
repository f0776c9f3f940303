// Cluster scores and projections against scikit-learn (tests/reference/clusters.py) and on clouds that are known.
import { readFileSync } from 'node:fs';
import { describe, expect, test } from '@jest/globals';
import { clusterScore, distancesBetween, nearest, purities, silhouettes } from '../../src/stats/clusters.js';
import { principalComponents, tsne } from '../../src/stats/projection.js';
import { Random } from '../../src/util/random.js';
import { expectError } from './helpers.js';

const reference = JSON.parse(readFileSync(new URL('../fixtures/clusters.json', import.meta.url), 'utf8')) as {
  points: number[][];
  labels: string[];
  silhouettes: number[];
  silhouette: number;
  k: number;
  neighbours: number[][];
  purities: number[];
  components: [number, number][];
  explained: [number, number];
};
const distances = await distancesBetween(reference.points);
const identities = (n: number) => Array.from({ length: n }, (_, i) => ({ task: 't', seed: 1, item: `i${i}` }));

/** Points around random centres, in turn of each label. */
function clouds(count: number, kinds: number, width: number, spread: number) {
  const random = new Random(3, 'clouds');
  const centres = Array.from({ length: kinds }, () => Array.from({ length: width }, () => spread * random.gaussian()));
  const labels = Array.from({ length: count }, (_, i) => `c${i % kinds}`);
  const points = labels.map((_, i) => (centres[i % kinds] as number[]).map((x) => x + random.gaussian()));
  return { points, labels };
}

function expectNear(actual: ArrayLike<number>, expected: readonly number[], digits = 9): void {
  expect(actual).toHaveLength(expected.length);
  expected.forEach((value, i) => {
    expect(actual[i]).toBeCloseTo(value, digits);
  });
}

describe('against scikit-learn', () => {
  test('silhouettes', async () => {
    const own = silhouettes(distances, reference.labels);
    expectNear(own, reference.silhouettes);
    const points = identities(own.length);
    const { value } = await clusterScore(reference.labels, points, (labels) => silhouettes(distances, labels));
    expect(value).toBeCloseTo(reference.silhouette, 9);
  });

  test('neighbours and purities', () => {
    const found = nearest(distances, reference.k);
    expect([...found]).toEqual(reference.neighbours.flat());
    expectNear(purities(found, reference.labels), reference.purities);
  });

  test('principal components, up to the sign of an axis', async () => {
    const { points, explained } = principalComponents(distances);
    expectNear(explained, reference.explained, 6);
    for (const axis of [0, 1] as const) {
      const expected = reference.components.map((point) => point[axis]);
      const largest = expected.reduce((a, b) => (Math.abs(b) > Math.abs(a) ? b : a));
      expectNear(
        points.map((point) => point[axis]),
        expected.map((x) => x * Math.sign(largest)),
        4,
      );
    }
  });
});

describe('known clouds', () => {
  test('clouds far apart score near 1 and well above chance; the interval holds the score', async () => {
    const { points, labels } = clouds(60, 3, 20, 4);
    const all = await distancesBetween(points);
    const near = nearest(all, 10);
    const purity = await clusterScore(labels, identities(60), (some) => purities(near, some));
    expect(purity.value).toBe(1);
    // of 59 others 19 have the same label
    expect(purity.chance.mean).toBeCloseTo(19 / 59, 1);
    expect(purity.chance.p).toBeCloseTo(1 / 201, 9);
    const silhouette = await clusterScore(labels, identities(60), (some) => silhouettes(all, some));
    expect(silhouette.value).toBeGreaterThan(0.5);
    expect(silhouette.low).toBeLessThanOrEqual(silhouette.value);
    expect(silhouette.high).toBeGreaterThanOrEqual(silhouette.value);
    expect(Math.abs(silhouette.chance.mean)).toBeLessThan(0.1);
  });

  test('labels that mean nothing score as chance', async () => {
    const { points, labels } = clouds(60, 3, 20, 0);
    const near = nearest(await distancesBetween(points), 10);
    const { value, chance } = await clusterScore(labels, identities(60), (some) => purities(near, some));
    expect(Math.abs(value - chance.mean)).toBeLessThan(0.1);
    expect(chance.p).toBeGreaterThan(0.01);
  });

  test('twins do not count twice: two pictures of one item with one label are not two pieces of evidence', async () => {
    const random = new Random(1, 'twins');
    const items = Array.from({ length: 40 }, (_, i) => ({ task: 't', seed: 1, item: `i${i}` }));
    const found: number[] = [];
    for (let draw = 0; draw < 20; draw++) {
      const places = items.map(() => Float32Array.from({ length: 5 }, () => random.gaussian()));
      const twins = places.map((place) => place.map((x) => x + 0.01 * random.gaussian()));
      const own = items.map(() => (random.uniform() < 0.5 ? 'a' : 'b'));
      const labels = [...own, ...own];
      const near = nearest(await distancesBetween([...places, ...twins]), 10);
      const { chance } = await clusterScore(labels, [...items, ...items], (some) => purities(near, some));
      found.push(chance.p);
    }
    // Labels mean nothing, so p is uniform: 4 or more of 20 below .05 in 2 % of such tests. With points permuted it is nearly all.
    expect(found.filter((p) => p < 0.05).length).toBeLessThan(4);
  });

  test('t-SNE keeps clouds apart, invents none, and repeats itself', async () => {
    const purity = async (spread: number) => {
      const { points, labels } = clouds(120, 4, 20, spread);
      const all = await distancesBetween(points);
      const layout = await tsne(all, { seed: 7, iterations: 500 });
      expect(await tsne(all, { seed: 7, iterations: 500 })).toEqual(layout);
      expect(await tsne(all, { seed: 8, iterations: 500 })).not.toEqual(layout);
      const flat = purities(nearest(await distancesBetween(layout), 10), labels);
      return flat.reduce((a, b) => a + b, 0) / flat.length;
    };
    expect(await purity(3)).toBeGreaterThan(0.99);
    expect(await purity(0)).toBeLessThan(0.35); // chance is 29 / 119
  });

  test('t-SNE does not depend on the scale of the distances', async () => {
    const { points, labels } = clouds(60, 3, 20, 3);
    for (const scale of [1e-6, 1e6]) {
      const all = await distancesBetween(points.map((point) => point.map((x) => x * scale)));
      const layout = await tsne(all, { iterations: 500 });
      const flat = purities(nearest(await distancesBetween(layout), 10), labels);
      expect(flat.reduce((a, b) => a + b, 0) / flat.length).toBeGreaterThan(0.99);
    }
  });
});

test('what has no answer is refused', async () => {
  await expectError(() => distancesBetween([[1, 2]]), 'INVALID_ARGUMENT', /two points/);
  await expectError(() => distancesBetween([[1, 2], [1]]), 'INVALID_ARGUMENT', /one width/);
  await expectError(() => distancesBetween([[1], [Number.NaN]]), 'INVALID_ARGUMENT', /not finite/);
  await expectError(() => silhouettes(distances, reference.labels.slice(1)), 'INVALID_ARGUMENT', /29 labels/);
  await expectError(
    () =>
      silhouettes(
        distances,
        reference.labels.map(() => 'a'),
      ),
    'INVALID_ARGUMENT',
    /1 kinds/,
  );
  await expectError(() => nearest(distances, 30), 'INVALID_ARGUMENT', /1 to 29/);
  await expectError(() => tsne(distances, { perplexity: 30 }), 'INVALID_ARGUMENT', /below the number of points/);
  await expectError(() => tsne(distances, { signal: AbortSignal.abort() }), 'ABORTED', /aborted/);
});
