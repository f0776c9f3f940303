// The arithmetic of patch grids, and what is refused. Whether a rule is right for its encoder: tests/native/patch-grid.test.ts.
import { expect, test } from '@jest/globals';
import { patchGrid } from '../../src/images/patch-grid.js';
import type { PatchRectangle } from '../../src/prompt/types.js';

const grid = (projector: string, nRows: number, width: number, height: number, patchSize = 14, merge = 2) =>
  patchGrid({ projector, patchSize, merge, nRows, width, height }) as (PatchRectangle | undefined)[];

test('LLaVA-1.5: 336 x 336 pixels, 24 x 24 patches of 14', () => {
  const rectangles = grid('mlp', 576, 336, 336);
  expect(rectangles).toHaveLength(576);
  expect(rectangles[24 * 3 + 5]).toEqual({ x: 70, y: 42, width: 14, height: 14 });
});

test('a margin that is no whole patch belongs to no row', () => {
  const rectangles = grid('mlp', 729, 384, 384); // SigLIP: 27 x 27 patches cover 378 pixels
  expect(rectangles.at(-1)).toEqual({ x: 364, y: 364, width: 14, height: 14 });
});

test('cells that are filled up end with the picture', () => {
  expect(grid('lfm2', 6, 80, 48, 16, 2)).toEqual(
    [0, 32].flatMap((y) => [0, 32, 64].map((x) => ({ x, y, width: x === 64 ? 16 : 32, height: y === 32 ? 16 : 32 }))),
  );
});

test('separators have no rectangle', () => {
  const places = (rectangles: (PatchRectangle | undefined)[]) =>
    rectangles.map((rectangle) => (rectangle ? `${rectangle.x},${rectangle.y}` : '-')).join(' ');
  expect(places(grid('pixtral', 5, 32, 32, 16, 1))).toBe('0,0 16,0 - 0,16 16,16');
  expect(places(grid('lightonocr', 4, 32, 32, 16, 1))).toBe('0,0 16,0 0,16 16,16');
  expect(places(grid('cogvlm', 6, 28, 28))).toBe('- 0,0 14,0 0,14 14,14 -');
  expect(places(grid('deepseekocr', 7, 128, 128, 16, 1))).toBe('0,0 64,0 - 0,64 64,64 - -');
  expect(places(grid('deepseekocr', 6, 128, 128, 16, 1))).toBe('0,0 64,0 - 0,64 64,64 -');
});

test('rows that run down the columns', () => {
  expect(grid('llama4', 4, 56, 56).map((rectangle) => [rectangle?.x, rectangle?.y])).toEqual([
    [0, 0],
    [0, 28],
    [28, 0],
    [28, 28],
  ]);
});

test.each<[string, number, number, number, RegExp]>([
  ['resampler', 64, 448, 448, /learned queries/],
  ['deepseekocr2', 257, 1024, 1024, /learned queries/],
  ['granite4_vision', 144, 384, 384, /queries over windows/],
  ['gemma3nv', 256, 768, 768, /resamples/],
  ['yasa2', 64, 512, 512, /pools/],
  ['deepseek4v', 100, 448, 448, /interleaves/],
  ['of-tomorrow', 576, 336, 336, /does not know/],
  ['toString', 576, 336, 336, /does not know/],
  ['mlp', 577, 336, 336, /577 rows are not the 24 x 24 cells of 14 pixels of a 336 x 336 picture/],
  ['mlp', 0, 7, 7, /0 rows/],
  ['internvl', 32, 448, 224, /square/],
  ['deepseekocr', 210, 640, 1280, /rows are not/], // two tiles side by side, 10 lines of 2 x 10 patches and a newline
])('%s with %i rows of %i x %i pixels is refused', (projector, nRows, width, height, reason) => {
  expect(grid(projector, nRows, width, height, projector === 'deepseekocr' ? 16 : 14)).toEqual({
    reason: expect.stringMatching(reason),
  });
});
