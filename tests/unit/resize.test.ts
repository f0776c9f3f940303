// Against Pillow (tests/reference/resize.py): not one value may differ.
import { readFileSync } from 'node:fs';
import { setImmediate } from 'node:timers/promises';
import { expect, test } from '@jest/globals';
import { rgbImage } from '../../src/images/image.js';
import { resizeBilinear } from '../../src/images/resize.js';

interface Case {
  from: [number, number];
  to: [number, number];
  extreme: boolean;
  data: string;
}
const { cases }: { cases: Case[] } = JSON.parse(
  readFileSync(new URL('../fixtures/resize.json', import.meta.url), 'utf8'),
);

/** The same numbers as in tests/reference/resize.py. */
function picture([width, height]: [number, number], extreme: boolean) {
  const data = Uint8Array.from({ length: width * height * 3 }, (_, i) => {
    const value = (i * i * 31 + (i >> 3) * 7) % 256;
    return extreme ? (value > 127 ? 255 : 0) : value;
  });
  return rgbImage(data, width, height);
}

test.each(cases)('$from to $to, extreme: $extreme', async ({ from, to, extreme, data }) => {
  const scaled = await resizeBilinear(picture(from, extreme), ...to);
  expect([scaled.width, scaled.height]).toEqual(to);
  expect(Buffer.from(scaled.data).equals(Buffer.from(data, 'base64'))).toBe(true);
});

test('a picture of the right size is itself', async () => {
  const image = picture([4, 3], false);
  expect(await resizeBilinear(image, 4, 3)).toBe(image);
});

test('others get their turn while a large picture is scaled', async () => {
  let turns = 0;
  let done = false;
  const others = (async () => {
    for (; !done; turns++) await setImmediate();
  })();
  await resizeBilinear(rgbImage(new Uint8Array(3000 * 2000 * 3), 3000, 2000), 980, 653);
  done = true;
  await others;
  expect(turns).toBeGreaterThan(1);
});
