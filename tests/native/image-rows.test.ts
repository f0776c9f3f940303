// Pictures in prompts: rows decoded in batches of their own, causal and not, with one and with four positions a row.

import { beforeAll, describe, expect, test } from '@jest/globals';
import type { Intervention } from '../../src/hooks/types.js';
import type { Context } from '../../src/model/context.js';
import type { Model } from '../../src/model/model.js';
import type { PassResult, PassRow } from '../../src/model/pass.js';
import type { Prompt } from '../../src/prompt/prompt.js';
import type { PromptPart } from '../../src/prompt/types.js';
import { expectError } from '../unit/helpers.js';
import { expectSame, load, logitsOf, picture, randomVector, statesOf } from './helpers.js';

interface Family {
  name: string;
  pictures: [string, string];
  /** Rows of the first picture. */
  rows: number;
  nonCausal: boolean;
  dims: 1 | 4;
}
const FAMILIES: Family[] = [
  { name: 'llava-siglip', pictures: ['square-a.png', 'square-b.png'], rows: 16, nonCausal: false, dims: 1 },
  { name: 'gemma3', pictures: ['square-a.png', 'square-b.png'], rows: 16, nonCausal: true, dims: 1 },
  { name: 'qwen2-vl', pictures: ['grid-a.png', 'grid-b.png'], rows: 12, nonCausal: false, dims: 4 },
];
const everything = { capture: { layers: 'all', positions: 'all' }, logits: 'all' } as const;

describe.each(FAMILIES)('$name', ({ name, pictures, rows, nonCausal, dims }) => {
  let model: Model;
  let context: Context;
  let one: Prompt;
  let two: Prompt;
  let vector: Float32Array;
  const [a, b] = pictures.map((file) => ({ image: picture(file) })) as [PromptPart, PromptPart];
  const text = (n: number) => ({ tokens: Array.from({ length: n }, (_, i) => 20 + ((i * 7) % 200)) });
  const only = async (row: PassRow, on = context) => (await on.pass([row]))[0] as PassResult;
  const replace = (layer: number, positions: Intervention['positions']): Intervention => ({
    hook: 'resid_post',
    layers: layer,
    positions,
    op: 'replace',
    value: vector,
  });
  const same = (actual: PassResult | undefined, expected: PassResult | undefined) => {
    expectSame(statesOf(actual), statesOf(expected), model.info.nEmbd, 'states');
    expectSame(logitsOf(actual), logitsOf(expected), model.info.nVocab, 'logits');
  };

  beforeAll(async () => {
    model = await load(name, { vision: true });
    context = await model.createContext({ nCtx: 1024, kvType: 'f32' });
    one = await model.prompt([text(5), a, text(6)]);
    two = await model.prompt([text(4), a, text(3), b, { tokens: [33, 44] }, { mark: 'delimiter' }]);
    vector = randomVector(model.info.nEmbd, 3, 2);
  });

  test('a picture stands in the prompt as rows of its kind', () => {
    const [image] = one.segments.filter((segment) => segment.kind === 'image');
    expect(image).toMatchObject({ nRows: rows, nonCausal });
    expect(image?.positions.length).toBe(dims === 4 ? 4 * rows : 0);
    expect(Array.from(one.tokens).filter((token) => token === -1)).toHaveLength(rows);
    expect(two.marks).toEqual({ delimiter: two.length - 1 });
  });

  test.each([1, 3, 7, 16, 20])('in pieces of at most %i positions', async (nUbatch) => {
    const pieces = await model.createContext({ nCtx: 1024, kvType: 'f32', nUbatch });
    if (nonCausal && nUbatch < rows) {
      await expectError(
        () => pieces.pass([{ prompt: one }]),
        'CONTEXT_OVERFLOW',
        /must be decoded at once.*Decode more at once/,
      );
    } else {
      const first = one.tokens.indexOf(-1);
      for (const row of [
        { prompt: one, ...everything },
        { prompt: two, ...everything },
        // the first and the last row of the picture, and the token behind it
        { prompt: one, ...everything, interventions: [replace(0, [first, first + rows - 1, first + rows])] },
        { prompt: two, ...everything, interventions: [replace(model.info.nLayers - 1, [first + 1, 'delimiter'])] },
      ]) {
        same(await only(row, pieces), await only(row));
      }
    }
    await pieces.dispose();
  });

  test('replacing states of picture rows by themselves changes no bit', async () => {
    const first = one.tokens.indexOf(-1);
    const capture = { layers: [1], positions: [first, first + rows - 1] };
    const plain = await only({ prompt: one, capture, logits: 'all' });
    const { nEmbd } = model.info;
    const interventions = capture.positions.map((positions, i) => ({
      ...replace(1, positions),
      value: statesOf(plain).slice(i * nEmbd, (i + 1) * nEmbd),
    }));
    expect(logitsOf(await only({ prompt: one, capture, logits: 'all', interventions }))).toEqual(logitsOf(plain));
  });

  test('rows with other pictures, other edits and text alone, in one pass, equal the rows one by one', async () => {
    const other = await model.prompt([text(5), b, text(6)]);
    const plain = await model.prompt(text(9));
    const first = one.tokens.indexOf(-1);
    const all: PassRow[] = [one, two, other, plain, one].map((prompt) => ({ prompt, ...everything }));
    all.push({ prompt: one, ...everything, interventions: [replace(0, first + 1)] });
    all.push({ prompt: one, ...everything, interventions: [replace(1, first + rows)] });
    all.push({ prompt: two, ...everything, interventions: [replace(1, 'delimiter')] });
    const together = await context.pass(all);
    for (const [i, row] of all.entries()) same(together[i], await only(row));
    expect(together[4]).toEqual(together[0]);
    expect(logitsOf(together[5])).not.toEqual(logitsOf(together[0]));
  });

  test('sweeping all layers over one picture query equals the naive sweep', async () => {
    const sweep: PassRow[] = Array.from({ length: model.info.nLayers }, (_, layer) => ({
      prompt: two,
      interventions: [replace(layer, 'delimiter')],
      logits: 'last',
    }));
    const shared = await context.pass(sweep);
    for (const [layer, row] of sweep.entries()) {
      expectSame(logitsOf(shared[layer]), logitsOf(await only(row)), model.info.nVocab, 'logits');
    }
  });

  test('generating after a picture equals passes over what was generated', async () => {
    const [generated] = await context.generate([{ prompt: two }], { maxTokens: 6 });
    const tokens = generated?.tokens ?? [];
    expect(tokens.length).toBeGreaterThan(0);
    const whole = await model.prompt([text(4), a, text(3), b, { tokens: [33, 44, ...tokens] }]);
    const positions = tokens.map((_, i) => two.length - 1 + i);
    const result = await only({ prompt: whole, logits: positions });
    const { nVocab } = model.info;
    const best = positions.map((_, i) => {
      const logits = logitsOf(result).subarray(i * nVocab, (i + 1) * nVocab);
      return logits.indexOf(Math.max(...logits));
    });
    expect(best).toEqual(tokens);
  });

  test('every distinct picture is encoded once', async () => {
    const fresh = await load(name, { vision: true });
    await Promise.all([fresh.prompt([a]), fresh.prompt([a, text(2), a]), fresh.prompt([text(1), a])]);
    expect(fresh.imageEncodes).toBe(1);
    await fresh.prompt([b, a]);
    expect(fresh.imageEncodes).toBe(2);
  });
});

test('a picture for a model without an encoder is refused', async () => {
  const model = await load('llama');
  await expectError(() => model.prompt([{ image: picture('square-a.png') }]), 'IMAGE_UNSUPPORTED', /mmproj/);
});

test('the memory of encoded pictures is bounded', async () => {
  const model = await load('llava-siglip', { vision: true, imageCacheBytes: 16 * 64 * 4 + 32 * 32 * 3 });
  for (const file of ['square-a.png', 'square-b.png', 'square-a.png', 'square-a.png']) {
    await model.prompt([{ image: picture(file) }]);
  }
  expect(model.imageEncodes).toBe(3); // the first was dropped for the second
});
