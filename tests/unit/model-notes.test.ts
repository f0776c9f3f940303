// What is said of a model whose numbers llama.cpp computes otherwise than it was trained.
import { expect, test } from '@jest/globals';
import type { GgufArray, GgufHeader, GgufValue } from '../../src/gguf/gguf.js';
import { modelNotes, projectorNotes } from '../../src/gguf/model-notes.js';

function header(metadata: Record<string, GgufValue>, type = 0): GgufHeader {
  const all = new Map(Object.entries({ 'general.architecture': 'phi3', ...metadata }));
  const tensors = [{ name: 'token_embd.weight', shape: [32, 32], type, offset: 0 }];
  return { version: 3, metadata: all, types: new Map(), tensors, dataOffset: 0 };
}
const windowed = (window: number, context: number) =>
  header({ 'phi3.attention.sliding_window': window, 'phi3.context_length': context });

test('a window that llama.cpp leaves off is said where prompts can be longer than it', () => {
  expect(modelNotes(windowed(2047, 4096), 0)).toEqual([expect.stringMatching(/window of 2047 tokens.*'phi3'/)]);
  expect(modelNotes(windowed(2047, 4096), 2047)).toEqual([]);
  expect(modelNotes(windowed(262144, 131072), 0)).toEqual([]);
  expect(modelNotes(windowed(0, 4096), 0)).toEqual([]);
  expect(modelNotes(header({}), 0)).toEqual([]);
});

test.each([[2], [8], [12], [39], [40], [41], [42]])('weights of type %d are quantised', (type) => {
  expect(modelNotes(header({}, type), 0)).toEqual([expect.stringMatching(/quantised/)]);
});

test.each([[0], [1], [30]])('weights of type %d are not', (type) => {
  expect(modelNotes(header({}, type), 0)).toEqual([]);
});

test("LLaVA-1.6's tiles are said, LLaVA-1.5 and other projectors with tiles are not", () => {
  const pinpoints: GgufArray = { length: 4, values: [336, 672, 672, 336], repeats: false };
  const tiled = header({ 'clip.vision.image_grid_pinpoints': pinpoints });
  expect(projectorNotes(tiled, 'mlp')).toEqual([expect.stringMatching(/LLaVA-1\.6/)]);
  expect(projectorNotes(tiled, 'granite4_vision')).toEqual([]);
  expect(projectorNotes(header({}), 'mlp')).toEqual([]);
});
