import { expect, test } from '@jest/globals';
import { linearProbe } from '../../src/stats/linear-probe.js';
import { Random } from '../../src/util/random.js';
import { expectError } from './helpers.js';

const share = (hits: readonly boolean[] | undefined) => (hits ?? []).filter(Boolean).length / (hits?.length ?? 0);

/** Points in noise; the label shifts the first dimension by `apart` standard deviations, of three labels. */
function cloud(n: number, width: number, apart: number, seed = 1) {
  const random = new Random(seed, 'cloud');
  const labels = Array.from({ length: n }, (_, i) => 'abc'[i % 3] as string);
  const points = labels.map((label) =>
    Float32Array.from({ length: width }, (_, d) => random.gaussian() + (d === 'abc'.indexOf(label) ? apart : 0)),
  );
  return { points, labels, groups: labels.map((_, i) => i) };
}

test('labels that lie apart are read, shuffled ones and mere noise are not', async () => {
  const { points, labels, groups } = cloud(120, 40, 4);
  const shuffled = new Random(2, 'shuffle').sample(labels);
  const [own, other] = await linearProbe(points, [labels, shuffled], groups);
  expect(share(own)).toBeGreaterThan(0.93);
  expect(share(other)).toBeLessThan(0.45);
  const noise = cloud(120, 40, 0);
  expect(share((await linearProbe(noise.points, [noise.labels], noise.groups))[0])).toBeLessThan(0.45);
});

test('a probe is asked only of groups that it has not seen', async () => {
  // Five equal points a group, labels at random: whoever has seen one of the group knows them all.
  const random = new Random(3, 'groups');
  const centres = Array.from({ length: 30 }, () => Float32Array.from({ length: 20 }, () => random.gaussian()));
  const groups = Array.from({ length: 150 }, (_, i) => i % 30);
  const points = groups.map((group) => centres[group] as Float32Array);
  const labels = groups.map((group) => (group % 2 ? 'odd' : 'even'));
  const grouped = await linearProbe(points, [labels], groups);
  const alone = await linearProbe(
    points,
    [labels],
    groups.map((_, i) => i),
  );
  expect(share(grouped[0])).toBeLessThan(0.75);
  expect(share(alone[0])).toBeGreaterThan(0.9);
});

test('what no line divides is not read; scale and constant dimensions do not matter', async () => {
  const random = new Random(4, 'xor');
  const xor = Array.from({ length: 120 }, () => Float32Array.of(random.gaussian(), random.gaussian()));
  const labels = xor.map(([x = 0, y = 0]) => (x * y > 0 ? 'same' : 'different'));
  const groups = xor.map((_, i) => i);
  expect(share((await linearProbe(xor, [labels], groups))[0])).toBeLessThan(0.65);

  const { points, labels: three, groups: each } = cloud(90, 10, 3);
  const scaled = points.map((point) => Float64Array.from([...point, 7], (x, d) => x * 10 ** (d - 5) + 1000 * d));
  expect(await linearProbe(scaled, [three], each)).toEqual(await linearProbe(points, [three], each));
});

test('with one dimension and two labels it is the threshold between their means', async () => {
  const random = new Random(5, 'line');
  const labels = Array.from({ length: 120 }, (_, i) => (i % 2 ? 'high' : 'low'));
  const points = labels.map((label) => Float64Array.of(random.gaussian() + (label === 'high' ? 1 : -1)));
  const [hits] = await linearProbe(
    points,
    [labels],
    labels.map((_, i) => i),
  );
  const wrong = points.filter(([x = 0], i) => x > 0 !== (labels[i] === 'high')).length;
  expect(Math.abs((1 - share(hits)) * 120 - wrong)).toBeLessThan(6); // thresholds of the folds lie around 0
});

test('what cannot be fitted is an error', async () => {
  const { points, labels, groups } = cloud(30, 4, 1);
  const few = groups.map((group) => group % 4);
  await expectError(() => linearProbe(points, [labels], few), 'INVALID_ARGUMENT', /at least 5 prompts/);
  (points[3] as Float32Array)[2] = Number.NaN;
  await expectError(() => linearProbe(points, [labels], groups), 'NOT_FINITE', /NaN or infinity/);
  const signal = AbortSignal.abort();
  await expectError(() => linearProbe(cloud(200, 300, 1).points, [labels], groups, { signal }), 'ABORTED', /./);
});
