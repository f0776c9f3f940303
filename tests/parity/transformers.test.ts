// Hidden states, logits and patched logits against transformers in float32, on tiny models with random weights.
// How the reference values were made: tests/reference/README.md.
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { finalNorm } from '../../src/lens/final-norm.js';
import { logitLens } from '../../src/lens/logit-lens.js';
import {
  type Context,
  type ContextOptions,
  type HiddenStates,
  loadModel,
  type Model,
  type PassRow,
  type Prompt,
} from '../../src/model/index.js';
import { SafetensorsFile } from '../../src/vectors/safetensors.js';
import { type Case, FAMILIES, FOLDER, type ReferencePrompt } from './families.js';

const SETTINGS: [string, ContextOptions][] = [
  ['f32 KV, no flash attention', { kvType: 'f32', flashAttention: 'off' }],
  ['f16 KV, no flash attention', { kvType: 'f16', flashAttention: 'off' }],
  ['f16 KV, flash attention', { kvType: 'f16', flashAttention: 'on' }],
  // A picture of 16 rows is the largest piece that may not be cut (Gemma 3).
  ['f32 KV, pieces of 16 positions', { kvType: 'f32', flashAttention: 'off', nUbatch: 16 }],
];

function compare(actual: Float32Array, expected: Float32Array) {
  expect(actual.length).toBe(expected.length);
  let [dot, actual2, expected2, difference2] = [0, 0, 0, 0];
  for (const [i, e] of expected.entries()) {
    const a = actual[i] as number;
    dot += a * e;
    actual2 += a * a;
    expected2 += e * e;
    difference2 += (a - e) ** 2;
  }
  return {
    cosine: dot / Math.sqrt(actual2 * expected2),
    nmse: difference2 / expected2,
    magnitude: Math.sqrt(actual2 / expected2),
  };
}

const argmax = (row: Float32Array) => row.indexOf(Math.max(...row));

/**
 * Cosine and magnitude hold for every row of `size` values, so that one wrong row among many cannot hide; the mean
 * squared error, in which a small row next to large ones would count for little, holds for all together as well.
 */
function expectClose(what: string, actual: Float32Array, expected: Float32Array, size: number) {
  const { nmse } = compare(actual, expected);
  let worst = { cosine: 1, magnitude: 1, row: 0 };
  let wrong = 0;
  for (let row = 0; row * size < expected.length; row++) {
    const at = [row * size, (row + 1) * size] as const;
    const { cosine, magnitude } = compare(actual.subarray(...at), expected.subarray(...at));
    if (!(cosine >= 0.9999 && Math.abs(magnitude - 1) < 0.01)) wrong++;
    if (!(cosine >= worst.cosine)) worst = { cosine, magnitude, row };
  }
  if (wrong || !(nmse < 1e-5)) {
    const { cosine, magnitude, row } = worst;
    const rows = expected.length / size;
    throw new Error(
      `${what}: NMSE ${nmse}, ${wrong} of ${rows} rows are off; row ${row} has cosine ${cosine}, magnitude ${magnitude}`,
    );
  }
}

describe.each(FAMILIES)('$name', (family) => {
  let model: Model;
  let reference: SafetensorsFile;

  beforeAll(async () => {
    const mmproj = family.mmproj ? { mmproj: join(FOLDER, family.mmproj) } : {};
    model = await loadModel(join(FOLDER, family.model), { device: 'cpu', threads: 1, ...mmproj });
    reference = await SafetensorsFile.open(join(FOLDER, family.reference));
  });

  afterAll(async () => {
    await reference?.close();
    await model?.dispose();
  });

  const makePrompt = (prompt: ReferencePrompt) =>
    model.prompt(
      prompt.parts?.map((part) =>
        typeof part === 'string' ? part : { image: join(FOLDER, 'pictures', part.image) },
      ) ?? { tokens: prompt.tokens },
    );

  test('has the shape of its reference', () => {
    const { architecture, nEmbd, nLayers } = model.identity;
    expect({ architecture, nEmbd, nLayers, nVocab: model.info.nVocab }).toEqual({
      architecture: family.architecture,
      nEmbd: family.nEmbd,
      nLayers: family.nLayers,
      nVocab: family.nVocab,
    });
  });

  if (family.texts.length) {
    test.each(family.texts)('tokenises $text', async ({ text, tokens }) => {
      expect(Array.from((await model.prompt(text)).tokens)).toEqual(tokens);
    });
  }

  describe.each(family.prompts)('prompt $name', (expected) => {
    let prompt: Prompt;

    beforeAll(async () => {
      prompt = await makePrompt(expected);
    });

    test('has the tokens and picture rows of the reference', () => {
      expect(Array.from(prompt.tokens)).toEqual(expected.tokens);
    });

    if (expected.images) {
      test('has the image embeddings of the reference', async () => {
        const pictures = prompt.segments.filter((segment) => segment.kind === 'image');
        expect(pictures.length).toBe(expected.images?.length);
        for (const [i, image] of (expected.images ?? []).entries()) {
          const { embeddings } = pictures[i] as { embeddings: Float32Array };
          expectClose(image.file, embeddings, await reference.readFloat32(image.embeddings), family.nEmbd);
        }
      });
    }

    test('the final norm and the lens of every layer, a row of a picture included', async () => {
      const { nEmbd, nLayers, nVocab } = family;
      const { positions } = expected.lens;
      const all = await reference.readFloat32(expected.states);
      const rows = Array.from({ length: nLayers }, (_, layer) =>
        positions.map((p) => layer * expected.tokens.length + p),
      );
      const states: HiddenStates = {
        hook: 'resid_post',
        data: Float32Array.from(rows.flat().flatMap((row) => [...all.subarray(row * nEmbd, (row + 1) * nEmbd)])),
        shape: [nLayers, positions.length, nEmbd],
        layers: rows.map((_, layer) => layer),
        positions,
        tokens: positions.map((p) => expected.tokens[p] as number),
      };
      await using context = await model.createContext();
      const normed = await finalNorm(context, states);
      expectClose('final norm', normed.data, await reference.readFloat32(expected.lens.normed), nEmbd);

      const tokens = Array.from({ length: nVocab }, (_, token) => token);
      const { cells } = await logitLens(context, states, { tokens });
      const logits = Float32Array.from(cells.flat().flatMap((cell) => cell.tokens.map(({ logit }) => logit)));
      const reading = await reference.readFloat32(expected.lens.logits);
      expectClose('lens', logits, reading, nVocab);
      const best = cells.flat().map(({ top }) => top[0]?.token);
      expect(best).toEqual(cells.flat().map((_, i) => argmax(reading.subarray(i * nVocab, (i + 1) * nVocab))));
    });

    describe.each(SETTINGS)('%s', (_, options) => {
      let context: Context;

      beforeAll(async () => {
        context = await model.createContext({ nCtx: 2048, ...options });
      });

      afterAll(() => context?.dispose());

      const patchedRow = async ({ interventions }: Case): Promise<PassRow> => ({
        prompt,
        interventions: await Promise.all(
          interventions.map(async ({ value, ...rest }) =>
            value === undefined ? rest : { ...rest, value: await reference.readFloat32(value) },
          ),
        ),
        capture: { layers: 'all', positions: 'last' },
        logits: 'last',
      });

      test('hidden states of every layer and position, and logits', async () => {
        const [row] = await context.pass([{ prompt, capture: { layers: 'all', positions: 'all' }, logits: 'all' }]);
        const states = await reference.readFloat32(expected.states);
        expect(row?.states?.shape).toEqual([family.nLayers, expected.tokens.length, family.nEmbd]);
        expectClose('states', row?.states?.data as Float32Array, states, family.nEmbd);
        const logits = await reference.readFloat32(expected.logits);
        expectClose('logits', row?.logits?.data as Float32Array, logits, family.nVocab);
      });

      test('states and logits under interventions, all cases in one pass', async () => {
        const rows = await context.pass(await Promise.all(expected.cases.map(patchedRow)));
        for (const [i, { name, states, logits }] of expected.cases.entries()) {
          const row = rows[i];
          const expectedStates = await reference.readFloat32(states);
          expectClose(`${name}: states`, row?.states?.data as Float32Array, expectedStates, family.nEmbd);
          const expectedLogits = await reference.readFloat32(logits);
          expectClose(`${name}: logits`, row?.logits?.data as Float32Array, expectedLogits, family.nVocab);
        }
      });

      test('the same, a pass a case', async () => {
        for (const single of expected.cases) {
          const [row] = await context.pass([await patchedRow(single)]);
          const logits = await reference.readFloat32(single.logits);
          expectClose(`${single.name}: logits`, row?.logits?.data as Float32Array, logits, family.nVocab);
        }
      });
    });
  });
});
