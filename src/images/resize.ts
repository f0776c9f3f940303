import type { RgbImage } from '../prompt/types.js';
import { Pace } from '../util/pace.js';
import { rgbImage } from './image.js';

/** Fractional bits of a weight. */
const PRECISION = 22;

/**
 * Scales a picture as `Image.resize(size, BILINEAR)` of Pillow 10.4 does, to the last bit: the triangle is widened by the
 * factor of a reduction (so nothing aliases), rows before columns, each pass in fixed point and rounded to 8 bits. Pillow 13
 * takes columns first for some sizes, which moves single values by 1.
 *
 * @param width Pixels, as `height`; the aspect is not kept by itself.
 */
export async function resizeBilinear(image: RgbImage, width: number, height: number): Promise<RgbImage> {
  if (image.width === width && image.height === height) return image;
  const narrow = await pass(image.data, image.width, image.height, weights(image.width, width), { rows: true });
  const data = await pass(narrow, width, image.height, weights(image.height, height), { rows: false });
  return rgbImage(data, width, height);
}

/** For each pixel of the result: the first pixel that it reads, and what each one counts. */
interface Weights {
  first: number[];
  values: Int32Array[];
}

function weights(from: number, to: number): Weights {
  const scale = from / to;
  const reach = Math.max(scale, 1); // half the width of the triangle
  const first: number[] = [];
  const values: Int32Array[] = [];
  for (let i = 0; i < to; i++) {
    const centre = (i + 0.5) * scale;
    const begin = Math.max(0, Math.trunc(centre - reach + 0.5));
    const end = Math.min(from, Math.trunc(centre + reach + 0.5));
    const raw: number[] = [];
    for (let at = begin; at < end; at++) raw.push(Math.max(0, 1 - Math.abs((at - centre + 0.5) * (1 / reach))));
    const sum = raw.reduce((a, b) => a + b, 0);
    first.push(begin);
    values.push(Int32Array.from(raw, (value) => Math.trunc(0.5 + (value / sum) * (1 << PRECISION))));
  }
  return { first, values };
}

/** One pass over a picture of `width` x `height`, along its rows or down its columns. */
async function pass(
  data: Uint8Array,
  width: number,
  height: number,
  { first, values }: Weights,
  { rows }: { rows: boolean },
): Promise<Uint8Array> {
  const n = first.length;
  const out = new Uint8ClampedArray((rows ? n * height : n * width) * 3);
  const step = (rows ? 1 : width) * 3; // from a pixel that is read to the next
  const half = 1 << (PRECISION - 1);
  const pace = new Pace();
  let to = 0;
  for (let line = 0; line < (rows ? height : n); line++) {
    for (let column = 0; column < (rows ? n : width); column++) {
      const i = rows ? column : line;
      const weight = values[i] as Int32Array;
      const begin = first[i] as number;
      let at = (rows ? line * width + begin : begin * width + column) * 3;
      let [red, green, blue] = [half, half, half];
      for (let k = 0; k < weight.length; k++, at += step) {
        const w = weight[k] as number;
        red += w * (data[at] as number);
        green += w * (data[at + 1] as number);
        blue += w * (data[at + 2] as number);
      }
      out[to++] = red >> PRECISION;
      out[to++] = green >> PRECISION;
      out[to++] = blue >> PRECISION;
    }
    if (pace.due()) await pace.rest();
  }
  return new Uint8Array(out.buffer);
}
