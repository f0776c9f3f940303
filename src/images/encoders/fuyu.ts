import { open } from 'node:fs/promises';
import { readFuyuShape, STORED } from '../../gguf/fuyu-shape.js';
import { type GgufHeader, type GgufTensor, ggufNumber, readGgufHeader } from '../../gguf/gguf.js';
import { OWN_KEYS } from '../../gguf/own-keys.js';
import type { NativeModelInfo } from '../../native/addon.js';
import { native } from '../../native/index.js';
import type { Framing } from '../../prompt/framing.js';
import type { Segment } from '../../prompt/prompt.js';
import type { RgbImage } from '../../prompt/types.js';
import { dot } from '../../util/dot.js';
import { XpatchError } from '../../util/errors.js';
import { Pace } from '../../util/pace.js';
import { resizeBilinear } from '../resize.js';
import { blankRows, causalRows, type EncoderOptions, type ImageEncoder } from './encoder.js';

/** Patches that are multiplied with a row of weights before the next row: they stay in the processor's cache. */
const TILE = 16;
/** What the reference pads with, before it scales pixels to 0..1: all but black. */
const PADDING = 1;

interface Weights {
  patchSize: number;
  nEmbd: number;
  /** nEmbd rows of patchSize * patchSize * 3, along a patch's rows, then columns, then colours. */
  weight: Float32Array;
  bias: Float32Array;
  newline: Float32Array;
  /** What each value of each colour, at value * 3 + colour, becomes: (value / 255 - mean) / std. */
  scale: Float32Array;
  maxWidth: number;
  maxHeight: number;
}

/** @throws XpatchError MMPROJ_INVALID, FILE_NOT_FOUND, GGUF_INVALID, NOT_FINITE. */
export async function openFuyu(info: NativeModelInfo, path: string, { hash }: EncoderOptions): Promise<ImageEncoder> {
  const invalid = (why: string) => new XpatchError('MMPROJ_INVALID', `'${path}' is not a usable mmproj: ${why}.`);
  const header = readGgufHeader(path);
  const weights = await readWeights(header, path, invalid);
  if (weights.nEmbd !== info.nEmbdInput || info.positionsPerEmbedding !== 1) {
    throw invalid(
      `its rows have ${weights.nEmbd} numbers, the model's ${info.nEmbdInput}: it belongs to another model`,
    );
  }
  if (info.architecture !== 'nemotron') {
    throw invalid(`it is Fuyu's, whose decoder is a nemotron, not a ${info.architecture}: it belongs to another model`);
  }
  return new FuyuEncoder(`fuyu:${hash}`, weights, readFraming(header, info, invalid));
}

/**
 * Fuyu reads pictures without an encoder: each patch of 30 x 30 pixels is multiplied with one matrix, and each line of
 * patches ends in the embedding of a newline token (Bavishi et al. 2023, https://www.adept.ai/blog/fuyu-8b). In JavaScript,
 * because one product is all there is to it.
 */
class FuyuEncoder implements ImageEncoder {
  private weights: Weights | undefined;

  constructor(
    readonly id: string,
    weights: Weights,
    readonly frame: Framing | undefined,
  ) {
    this.weights = weights;
  }

  async encode(image: RgbImage): Promise<Segment[]> {
    const { weights } = this;
    if (!weights) throw disposed();
    const { patchSize, nEmbd, newline } = weights;
    const size = fitInto(weights, image.width, image.height);
    const scaled = size.width !== image.width || size.height !== image.height;
    const seen = scaled ? await resizeBilinear(image, size.width, size.height) : image;
    const { columns, lines, nRows } = rowsOf(weights, size);
    const embeddings = new Float32Array(nRows * nEmbd);
    const rowOf = (patch: number) => patch + Math.floor(patch / columns);
    for (let line = 0; line < lines; line++) embeddings.set(newline, (line * (columns + 1) + columns) * nEmbd);

    const tile = new Float32Array(TILE * patchSize * patchSize * 3);
    const width = patchSize * patchSize * 3;
    const pace = new Pace();
    for (let first = 0; first < lines * columns; first += TILE) {
      const count = Math.min(TILE, lines * columns - first);
      for (let i = 0; i < count; i++) {
        const patch = first + i;
        cutPatch(
          seen,
          patch % columns,
          Math.floor(patch / columns),
          weights,
          tile.subarray(i * width, (i + 1) * width),
        );
      }
      for (let out = 0; out < nEmbd; out++) {
        for (let i = 0; i < count; i++) {
          const sum = dot(weights.weight, tile, out * width, i * width, width);
          embeddings[rowOf(first + i) * nEmbd + out] = sum + (weights.bias[out] as number);
        }
        if (pace.due()) await pace.rest();
      }
    }
    return [causalRows(embeddings, { id: this.id, projector: 'fuyu', image, seen, patchSize, nRows })];
  }

  async layout(width: number, height: number): Promise<Segment[]> {
    const { weights } = this;
    if (!weights) throw disposed();
    return [blankRows(rowsOf(weights, fitInto(weights, width, height)).nRows)];
  }

  async dispose(): Promise<void> {
    this.weights = undefined;
  }
}

const disposed = () => new XpatchError('DISPOSED', 'The model was disposed. Load it again to use it.');

/** The size that a picture is read in: only one above the bounds is scaled, with its aspect. */
function fitInto({ maxWidth, maxHeight }: Weights, width: number, height: number): { width: number; height: number } {
  if (width <= maxWidth && height <= maxHeight) return { width, height };
  const scale = Math.min(maxHeight / height, maxWidth / width);
  const fitted = { width: Math.trunc(width * scale), height: Math.trunc(height * scale) };
  if (fitted.width >= 1 && fitted.height >= 1) return fitted;
  throw new XpatchError(
    'IMAGE_INVALID',
    `A picture of ${width} x ${height} pixels vanishes when scaled to at most ${maxWidth} x ${maxHeight}. Crop it.`,
  );
}

function rowsOf({ patchSize }: Weights, { width, height }: { width: number; height: number }) {
  const [columns, lines] = [Math.ceil(width / patchSize), Math.ceil(height / patchSize)];
  return { columns, lines, nRows: lines * (columns + 1) };
}

/** The numbers of one patch, the fastest axis colours. */
function cutPatch(
  { data, width, height }: RgbImage,
  column: number,
  line: number,
  { patchSize: side, scale }: Weights,
  out: Float32Array,
): void {
  let to = 0;
  for (let y = line * side; y < (line + 1) * side; y++) {
    for (let x = column * side; x < (column + 1) * side; x++) {
      const at = x < width && y < height ? (y * width + x) * 3 : -1;
      for (let c = 0; c < 3; c++) out[to++] = scale[(at < 0 ? PADDING : (data[at + c] as number)) * 3 + c] as number;
    }
  }
}

type Invalid = (why: string) => XpatchError;

async function readWeights(header: GgufHeader, path: string, invalid: Invalid): Promise<Weights> {
  const { mean, std, weight, bias, newline, ...sizes } = readFuyuShape(header, invalid);
  return {
    ...sizes,
    weight: await readTensor(header, path, weight, invalid),
    bias: await readTensor(header, path, bias, invalid),
    newline: await readTensor(header, path, newline, invalid),
    scale: Float32Array.from({ length: 256 * 3 }, (_, i) => {
      const colour = i % 3;
      return (Math.floor(i / 3) / 255 - (mean[colour] as number)) / (std[colour] as number);
    }),
  };
}

/** ggml's type that is read as it is. */
const F32 = 0;

async function readTensor(
  { dataOffset }: GgufHeader,
  path: string,
  { name, shape, type, offset }: GgufTensor,
  invalid: Invalid,
): Promise<Float32Array> {
  const n = shape.reduce((a, b) => a * b, 1);
  const stored = new Uint8Array(n * (STORED.get(type) as number));
  await using file = await open(path);
  for (let done = 0; done < stored.length; ) {
    const { bytesRead } = await file.read(stored, done, stored.length - done, dataOffset + offset + done);
    if (bytesRead === 0) throw invalid(`it ends inside '${name}'`);
    done += bytesRead;
  }
  if (type !== F32) {
    const values = new Float32Array(n);
    await native().addon.quantise(stored, type, new Uint8Array(values.buffer), F32, shape[0] as number);
    return values;
  }
  const values = new Float32Array(stored.buffer);
  if (!values.every(Number.isFinite)) throw invalid(`'${name}' holds NaN or infinity`);
  return values;
}

function readFraming(header: GgufHeader, { nVocab }: NativeModelInfo, invalid: Invalid): Framing | undefined {
  const format = header.metadata.get(OWN_KEYS.promptFormat);
  const [begin, end] = [ggufNumber(header, OWN_KEYS.imageBegin), ggufNumber(header, OWN_KEYS.imageEnd)];
  if (format === undefined && begin === undefined && end === undefined) return undefined; // Adept's own Fuyu
  if (format !== 'mantis') throw invalid(`${OWN_KEYS.promptFormat} is '${format}'; only 'mantis' is known`);
  for (const token of [begin, end]) {
    if (token === undefined || token >= nVocab) {
      throw invalid(`the model has no token ${token} to put around pictures: it belongs to another model`);
    }
  }
  return { begin: begin as number, end: end as number, format };
}
