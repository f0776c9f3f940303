// Hidden states, logits and patched logits against transformers in float32, on tiny models with random weights.
// How the reference values were made: tests/reference/README.md.

import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { finalNorm } from '../../src/lens/final-norm.js';
import { logitLens } from '../../src/lens/logit-lens.js';
import type { Context } from '../../src/model/context.js';
import { HiddenStates } from '../../src/model/hidden-states.js';
import type { Prompt } from '../../src/prompt/prompt.js';
import { caseRow, comparisons, expectWithin, type OpenFamily, openFamily, TIERS } from './compare.js';
import { FAMILIES } from './families.js';

const CLOSE = { cosine: 0.9999, magnitude: 0.01, nmse: 1e-5 };
const argmax = (row: Float32Array) => row.indexOf(Math.max(...row));

describe.each(FAMILIES)('$name', (family) => {
  let opened: OpenFamily;

  beforeAll(async () => {
    opened = await openFamily(family);
  });

  afterAll(async () => {
    await opened?.[Symbol.asyncDispose]();
  });

  test('has the shape of its reference', () => {
    const { identity, info } = opened.model;
    const { architecture, nEmbd, nLayers } = identity;
    expect({ architecture, nEmbd, nLayers, nVocab: info.nVocab }).toEqual({
      architecture: family.architecture,
      nEmbd: family.nEmbd,
      nLayers: family.nLayers,
      nVocab: family.nVocab,
    });
  });

  if (family.texts.length) {
    test.each(family.texts)('tokenises $text', async ({ text, tokens }) => {
      expect(Array.from((await opened.model.prompt(text)).tokens)).toEqual(tokens);
    });
  }

  describe.each(family.prompts)('prompt $name', (expected) => {
    let prompt: Prompt;

    beforeAll(async () => {
      prompt = await opened.prompt(expected);
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
          const reference = await opened.reference.readFloat32(image.embeddings);
          expectWithin(image.file, embeddings, reference, family.nEmbd, CLOSE);
        }
      });
    }

    test('the final norm and the lens of every layer, a row of a picture included', async () => {
      const { nEmbd, nLayers, nVocab } = family;
      const { model, reference } = opened;
      const { positions } = expected.lens;
      const all = await reference.readFloat32(expected.states);
      const rows = Array.from({ length: nLayers }, (_, layer) =>
        positions.map((p) => layer * expected.tokens.length + p),
      );
      const data = Float32Array.from(rows.flat().flatMap((row) => [...all.subarray(row * nEmbd, (row + 1) * nEmbd)]));
      const layers = [...rows.keys()];
      const places = { layers, positions, tokens: positions.map((p) => expected.tokens[p] as number) };
      const states = new HiddenStates({ hook: 'resid_post', model: model.identity, ...places }, data);
      await using context = await model.createContext();
      const normed = await finalNorm(context, states);
      const exactNorm = await reference.readFloat32(expected.lens.normed);
      expectWithin('final norm', normed.data, exactNorm, nEmbd, CLOSE);

      const tokens = Array.from({ length: nVocab }, (_, token) => token);
      const { cells } = await logitLens(context, states, { tokens });
      const logits = Float32Array.from(cells.flat().flatMap((cell) => cell.tokens.map(({ logit }) => logit)));
      const reading = await reference.readFloat32(expected.lens.logits);
      expectWithin('lens', logits, reading, nVocab, CLOSE);
      const best = cells.flat().map(({ top }) => top[0]?.token);
      expect(best).toEqual(cells.flat().map((_, i) => argmax(reading.subarray(i * nVocab, (i + 1) * nVocab))));
    });

    describe.each(TIERS)('$name', ({ options, bounds }) => {
      let context: Context;

      beforeAll(async () => {
        context = await opened.model.createContext({ nCtx: 2048, ...options });
      });

      afterAll(() => context?.dispose());

      test('states of every layer and position, and logits; both under interventions', async () => {
        for (const { what, actual, expected: values, width } of await comparisons(opened, context, prompt, expected)) {
          expectWithin(what, actual, values, width, bounds(family));
        }
      });

      test('interventions, a pass a case', async () => {
        for (const single of expected.cases) {
          const [row] = await context.pass([await caseRow(prompt, single, opened.reference)]);
          const logits = await opened.reference.readFloat32(single.logits);
          expectWithin(single.name, row?.logits?.data as Float32Array, logits, family.nVocab, bounds(family));
        }
      });
    });

    test('without a reference: the last residual through norm and head is the logits; a state patched onto itself changes no bit', async () => {
      await using context = await opened.model.createContext({ nCtx: 2048 });
      const [plain] = await context.pass([{ prompt, capture: { layers: 'all', positions: 'last' }, logits: 'last' }]);
      const { states, logits } = plain as Required<NonNullable<typeof plain>>;
      const { nLayers, nVocab } = family;
      const tokens = Array.from({ length: nVocab }, (_, token) => token);
      const { cells } = await logitLens(context, states, { tokens });
      const last = Float32Array.from((cells[nLayers - 1]?.[0]?.tokens ?? []).map(({ logit }) => logit));
      expectWithin('norm and head', last, logits.data, nVocab, { ...CLOSE, nmse: 1e-9 });
      const identity = states.layers.map((layer) => ({
        layers: layer,
        op: 'replace' as const,
        value: states.at(layer),
      }));
      const capture = { layers: 'all', positions: 'last' } as const;
      const [same] = await context.pass([{ prompt, capture, logits: 'last', interventions: identity }]);
      expect(same?.logits?.data).toEqual(logits.data);
    });
  });
});
