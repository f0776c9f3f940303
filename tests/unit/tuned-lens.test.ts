import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { TunedLens } from '../../src/lens/tuned-lens.js';
import type { Translator, TunedLensInfo } from '../../src/lens/tuned-lens-file.js';
import { HiddenStates } from '../../src/model/hidden-states.js';
import { Prompt } from '../../src/prompt/prompt.js';
import { RidgeSums } from '../../src/stats/ridge.js';
import { Pace } from '../../src/util/pace.js';
import { Random } from '../../src/util/random.js';
import { SafetensorsFile, writeSafetensors } from '../../src/util/safetensors.js';
import { TaskVector } from '../../src/vectors/task-vector.js';
import { expectError, temporaryFolder } from './helpers.js';

const folder = await temporaryFolder();
const pace = new Pace();

describe('ridge sums', () => {
  // The fourth number of x never changes. Three scales, so that an unscaled penalty would give something else.
  const X = [
    [1, 2, 0.5, 7],
    [3, -1, 100, 7],
    [0.25, 4, -50, 7],
    [-2, 0.5, 20, 7],
    [1.5, 1, 80, 7],
    [5, -3, -10, 7],
  ];
  const Y = [
    [1, 0, 2, -1],
    [0.5, 3, 1, 4],
    [-1, 2, 2.5, 0],
    [2, 2, -3, 1],
    [0, 1, 4, 0.5],
    [1, -2, 0, 3],
  ];
  const W = [1, 0.5, 2, 1, 0.25, 3];
  const sums = async () => {
    const made = new RidgeSums(4);
    for (const [i, x] of X.entries()) await made.add(x, Y[i] as number[], W[i] as number, pace);
    return made;
  };
  const closeTo = (values: number[]) => values.map((x) => expect.closeTo(x, 6));

  test('give what least squares on rows extended by the penalty give', async () => {
    // numpy.linalg.lstsq on sqrt(w) [z, 1] over sqrt(0.1 W) [I, 0], z the columns of X scaled to weighted variance 1.
    const matrix = [
      [-0.2229766492, -0.3378242784, 0.0044396298, 0],
      [-0.2889705724, 0.3608053887, 0.0157394534, 0],
      [0.6092396386, 0.7314741861, 0.004147542, 0],
      [0.1848488285, -0.3074653946, 0.0066087159, 0],
    ];
    const map = await (await sums()).solve(0.1, pace);
    expect([...map.matrix]).toEqual(closeTo(matrix.flat()));
    expect([...map.bias]).toEqual(closeTo([1.0966307558, 0.8583993283, -0.6744276008, 1.1281905102]));
  });

  test('give the weighted mean under an infinite penalty', async () => {
    const { matrix, bias } = await (await sums()).solve(Number.POSITIVE_INFINITY, pace);
    const total = W.reduce((sum, w) => sum + w, 0);
    expect([...matrix]).toEqual(new Array(16).fill(0));
    expect([...bias]).toEqual(
      closeTo([0, 1, 2, 3].map((j) => Y.reduce((sum, y, i) => sum + (W[i] as number) * (y[j] as number), 0) / total)),
    );
  });

  test('find an affine map again, however many samples, and can be solved more than once', async () => {
    const random = new Random(3, 'affine');
    const draw = (n: number) => Array.from({ length: n }, () => random.gaussian());
    const width = 5;
    const truth = draw(width * width);
    const shift = draw(width);
    const made = new RidgeSums(width);
    for (let n = 0; n < 101; n++) {
      const x = draw(width).map((value) => 1000 + value);
      const y = shift.map((b, i) => x.reduce((sum, value, j) => sum + (truth[i * width + j] as number) * value, b));
      await made.add(x, y, 1 + (n % 3), pace);
    }
    await made.solve(1, pace);
    const { matrix } = await made.solve(1e-9, pace);
    expect([...matrix]).toEqual(truth.map((x) => expect.closeTo(x, 4)));
  });

  test('refuse what is not finite, and stop when asked', async () => {
    const made = new RidgeSums(2);
    await made.add([1, 2], [Number.NaN, 1], 1, pace);
    await made.add([2, 1], [0, 1], 1, pace);
    await expectError(() => made.solve(0.1, pace), 'NOT_FINITE', /NaN or infinity/);
    const aborted = new Pace(AbortSignal.abort());
    await expectError(() => aborted.rest(), 'ABORTED', /aborted/);
  });
});

const model = { hash: 'a'.repeat(64), architecture: 'llama', name: 'tiny', nEmbd: 2, nLayers: 4 };
const info: TunedLensInfo = {
  model,
  hook: 'resid_post',
  layers: [0, 1, 2],
  fit: {
    prompts: 8,
    positions: 100,
    validationPrompts: 2,
    validationPositions: 20,
    seed: 1,
    promptsHash: 'b'.repeat(64),
    xpatch: '0.1.0',
  },
};
const TRANSLATORS: Translator[] = [
  { strength: 0.01, matrix: new Float32Array([1, 2, 3, 4]), bias: new Float32Array([10, 20]) },
  { strength: 'bias', bias: new Float32Array([0.5, -0.5]) },
  { strength: 'plain' },
];
const lens = new TunedLens(info, TRANSLATORS);
const states = new HiddenStates(
  { hook: 'resid_post', model, layers: [3, 0, 1, 2], positions: [4, 9], tokens: [7, -1] },
  new Float32Array([1, 2, 3, 4, 1, 1, 0, -1, 5, 6, 7, 8, 9, 10, 11, 12]),
);
const passed = { prompt: new Prompt([{ kind: 'tokens', tokens: Int32Array.of(7) }], {}, []), interventions: [] };

describe('a tuned lens', () => {
  test('predicts h + matrix h + bias, layer by layer, and leaves the last layer and its input alone', async () => {
    const before = states.data.slice();
    const { data, ...rest } = await lens.apply(states);
    expect(await lens.apply({ ...passed, states })).toEqual({ data, ...rest });
    expect([...data]).toEqual([1, 2, 3, 4, 14, 28, 8, 15, 5.5, 5.5, 7.5, 7.5, 9, 10, 11, 12]);
    const { data: _, ...given } = states;
    expect(rest).toEqual(given);
    expect(states.data).toEqual(before);
  });

  test('translates a task vector', async () => {
    const origin = { op: 'capture', position: 4, token: 7 } as const;
    const vector = new TaskVector(
      { model, hook: 'resid_post', layers: [0, 3], readPosition: 'position', origin },
      [1, 1, 8, 9],
    );
    const translated = await lens.apply(vector);
    expect([...translated.data]).toEqual([14, 28, 8, 9]);
    expect(translated).toMatchObject({ shape: [2, 1, 2], layers: [0, 3], positions: [0] });
  });

  test('refuses states of another width, and layers that it lacks', async () => {
    const places = { layers: states.layers, positions: states.positions, tokens: states.tokens };
    const wide = new HiddenStates(
      { hook: 'resid_post', model: { ...model, nEmbd: 3 }, ...places },
      new Float32Array(24),
    );
    await expectError(() => lens.apply(wide), 'LENS_MISMATCH', /width 3/);
    await expectError(() => lens.apply(passed), 'INVALID_ARGUMENT', /read no states/);
    const partial = new TunedLens({ ...info, layers: [0, 2] }, [TRANSLATORS[0], TRANSLATORS[2]] as Translator[]);
    await expectError(() => partial.apply(states), 'LAYER_OUT_OF_RANGE', /no layer 1, only 0, 2/);
  });

  test('refuses translators that do not fit or are not finite', async () => {
    const make = (first: Translator, more: Partial<TunedLensInfo> = {}) =>
      new TunedLens({ ...info, layers: [0], ...more }, [first]);
    const [good] = TRANSLATORS as [Translator];
    await expectError(() => make(good, { layers: [3] }), 'LENS_INVALID', /rise within 0 to 2/);
    await expectError(() => make(good, { layers: [0, 1] }), 'LENS_INVALID', /2 layers, 1 translators/);
    await expectError(() => make({ ...good, bias: new Float32Array(3) }), 'LENS_INVALID', /bias of 3/);
    await expectError(() => make({ ...good, strength: -1 }), 'LENS_INVALID', /strength of -1/);
    const broken = new Float32Array([1, 2, Number.NaN, 4]);
    await expectError(() => make({ ...good, matrix: broken }), 'LENS_INVALID', /layer 0 holds NaN/);
  });
});

describe('a lens file', () => {
  const path = join(folder, 'lens.safetensors');

  test('keeps everything, under names that Python can read', async () => {
    await lens.save(path);
    const loaded = await TunedLens.load(path, model);
    expect(loaded.info).toEqual(info);
    expect(loaded.translators).toEqual(TRANSLATORS);
    await using file = await SafetensorsFile.open(path);
    expect([...file.tensors.keys()].sort()).toEqual(['layers.0.bias', 'layers.0.matrix', 'layers.1.bias']);
    expect(file.tensors.get('layers.0.matrix')).toMatchObject({ dtype: 'F32', shape: [2, 2] });
  });

  test('of another model is refused', async () => {
    await lens.save(path);
    await expectError(
      () => TunedLens.load(path, { ...model, hash: 'c' }),
      'LENS_MISMATCH',
      /another model.*xpatch tune/,
    );
  });

  test('that is none, or lacks a part, is refused', async () => {
    await expectError(() => TunedLens.load(join(folder, 'none'), model), 'FILE_NOT_FOUND', /none/);
    const tensor = { data: new Float32Array(4), shape: [2, 2] };
    const good = {
      format: 'xpatch.tuned-lens/1',
      hook: 'resid_post',
      model: JSON.stringify(model),
      layers: '[0]',
      strengths: '["plain"]',
      fit: JSON.stringify(info.fit),
    };
    const load = async (changed: object) => {
      const metadata = { ...good, ...changed } as Record<string, string>;
      await writeSafetensors(path, { 'layers.0.matrix': tensor }, metadata);
      return TunedLens.load(path, model);
    };
    expect((await load({})).translators).toEqual([{ strength: 'plain' }]);
    for (const [changed, message] of [
      [{ format: 'xpatch.task-vector/1' }, /its format is xpatch\.task-vector/],
      [{ layers: '[0' }, /key layers is missing or not JSON/],
      [{ layers: '[0, 1]' }, /does not say/],
      [{ layers: '[7]' }, /rise within/],
      [{ strengths: '["sharp"]' }, /does not say/],
      [{ hook: 'nowhere' }, /does not say/],
      [{ fit: '{}' }, /does not say/],
      [{ model: JSON.stringify({ ...model, nEmbd: '2' }) }, /does not say/],
      [{ strengths: '["bias"]' }, /layers\.0\.bias is missing/],
      [{ model: JSON.stringify({ ...model, nEmbd: 3 }), strengths: '[1]' }, /layers\.0\.matrix is 2,2, not 3,3/],
    ] as const) {
      await expectError(() => load(changed), 'LENS_INVALID', message);
    }
    const integers = { data: new Int32Array(4), shape: [2, 2] };
    await writeSafetensors(path, { 'layers.0.matrix': integers }, { ...good, strengths: '[1]' });
    await expectError(() => TunedLens.load(path, model), 'LENS_INVALID', /holds I32/);
  });

  test('with every cut and flipped byte gives an error or a valid lens', async () => {
    await lens.save(path);
    const whole = await readFile(path);
    const outcomes = new Set<string | undefined>();
    for (let i = 0; i < whole.length; i += 3) {
      const mutated = Buffer.from(whole);
      mutated[i] = (mutated[i] as number) ^ (1 << (i % 8));
      await writeFile(path, i % 2 ? mutated : whole.subarray(0, i));
      const outcome = await TunedLens.load(path, model).then(
        () => 'loaded',
        (error: { code?: string }) => error.code,
      );
      outcomes.add(outcome);
    }
    expect(['loaded', 'LENS_INVALID', 'LENS_MISMATCH']).toEqual(expect.arrayContaining([...outcomes]));
    expect(outcomes).toContain('LENS_INVALID');
  });
});
