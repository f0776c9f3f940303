import { createHash } from 'node:crypto';
import { stat } from 'node:fs/promises';
import type { ImageSource, RgbImage } from '../prompt/types.js';
import { XpatchError } from '../util/errors.js';
import { readWhole } from '../util/read-file.js';
import { whatAre } from '../util/what-is.js';
import { drawSvg, isSvg } from './draw-svg.js';
import { type PlainSource, plainSource, unreadableFormat } from './sources.js';

/** Pictures above this many pixels are refused before they are decoded: they would take gigabytes. */
const MAX_PIXELS = 64e6;
/** Larger than so many pixels in any format. */
const FILE = { what: 'the picture', maxBytes: 512 << 20, code: 'IMAGE_INVALID', pipe: true } as const;

/**
 * Decodes a picture to RGB as a person would see it: EXIF orientation applied, transparency over white, CMYK and grey
 * converted to sRGB, SVG rendered, the first frame of an animation. An SVG is drawn in a process of its own, for at most 20 seconds.
 *
 * @param source A path, a `data:` or `file:` URL, an encoded file, or raw RGB.
 * @param options.width Scales to this width, aspect kept (the paper uses 224). Defaults to the picture's own size.
 * @throws XpatchError FILE_NOT_FOUND, IMAGE_INVALID.
 */
export async function readImage(source: ImageSource, options: { width?: number } = {}): Promise<RgbImage> {
  const plain = await plainSource(source);
  const key = await fileKey(plain, options.width);
  const image = await decode(plain, options);
  if (key !== undefined) {
    if (FACTS.size >= MAX_FACTS) FACTS.clear();
    FACTS.set(key, withoutData(image));
  }
  return image;
}

/** What a picture is, without its pixels. */
export type ImageFacts = Omit<RgbImage, 'data'>;

/** Of pictures in files, as they were when they were read. */
const FACTS = new Map<string, ImageFacts>();
const MAX_FACTS = 100_000;

/** The same as of `readImage`, which it calls unless the file was read before and has not changed. @throws {XpatchError} as `readImage` */
export async function imageFacts(source: ImageSource, options: { width?: number } = {}): Promise<ImageFacts> {
  return (await knownFacts(source, options)) ?? withoutData(await readImage(source, options));
}

const withoutData = ({ hash, width, height }: RgbImage): ImageFacts => ({ hash, width, height });

/** Undefined for what is not a file that was read before, or one that has changed since. */
export async function knownFacts(
  source: ImageSource,
  options: { width?: number } = {},
): Promise<ImageFacts | undefined> {
  const key = await fileKey(await plainSource(source), options.width);
  return key === undefined ? undefined : FACTS.get(key);
}

/** Changes when a file does; undefined for what is not a file. */
async function fileKey(source: PlainSource, width: number | undefined): Promise<string | undefined> {
  if (typeof source !== 'string' || source.startsWith('data:')) return undefined;
  const found = await stat(source, { bigint: true }).catch(() => undefined);
  return found?.isFile() ? `${found.dev}:${found.ino}:${found.size}:${found.mtimeNs}:${width}` : undefined;
}

async function decode(source: PlainSource, options: { width?: number }): Promise<RgbImage> {
  const { input, raw, what } = await open(source);
  const format = raw ? undefined : unreadableFormat(input);
  if (format) {
    const why = `it is ${/^[AEIOU]/.test(format) ? 'an' : 'a'} ${format} file. Convert it to PNG`;
    throw new XpatchError('IMAGE_INVALID', `${what} cannot be read as a picture: ${why}.`);
  }
  // Not imported at the top: doctor must start, and text models run, where sharp does not load.
  const { default: sharp } = await import('sharp');
  try {
    const pixels = !raw && isSvg(input) ? await drawSvg(input, { maxPixels: MAX_PIXELS, width: options.width }) : input;
    let image = sharp(pixels, { ...(raw && { raw }), limitInputPixels: MAX_PIXELS, failOn: 'error' })
      .autoOrient()
      .flatten({ background: '#ffffff' })
      .toColourspace('srgb');
    // Of 32-bit numbers no format says which one is white: those of most writers, 0 to 1, would be black as bytes.
    const depth = raw ? 'uchar' : (await image.metadata()).depth;
    if (depth !== 'uchar' && depth !== 'ushort') {
      throw new Error(`its pixels are of type ${depth}, not of 8 or 16 bits. Convert it to PNG`);
    }
    if (options.width) {
      const { width, height } = (await image.metadata()).autoOrient;
      if ((options.width * options.width * height) / width > MAX_PIXELS) {
        const why = `${what} of ${width} x ${height} pixels is too large when scaled to a width of ${options.width}.`;
        throw new XpatchError('IMAGE_INVALID', `${why} Use a smaller width (--image-width), or crop it.`);
      }
      image = image.resize({ width: options.width });
    }
    const { data, info } = await image.raw().toBuffer({ resolveWithObject: true });
    return rgb(data, info.width, info.height, info.channels);
  } catch (error) {
    if (error instanceof XpatchError) throw error;
    const other = raw ? undefined : whatAre(input, 'picture');
    const words = (error as Error).message.trim();
    const said = /unsupported image format/.test(words)
      ? 'its kind of file is not known as a picture'
      : /exceeds pixel limit/.test(words)
        ? `it exceeds the pixel limit of ${Math.floor(MAX_PIXELS / 1e6)} million. Make it smaller`
        : words;
    const why = other ?? (said.includes('. ') ? said : `${said}. Save it again as PNG`);
    throw new XpatchError('IMAGE_INVALID', `${what} cannot be read as a picture: ${why}.`, { cause: error });
  }
}

/** The bytes of a picture's file. @throws {XpatchError} FILE_NOT_FOUND, IMAGE_INVALID */
export function readPicture(path: string): Promise<Buffer> {
  return readWhole(path, FILE);
}

async function open(source: PlainSource) {
  if (typeof source === 'string') {
    if (source.startsWith('data:')) {
      const comma = source.indexOf(',');
      const header = source.slice(5, comma);
      if (comma < 0 || !/^image\//.test(header)) {
        throw new XpatchError(
          'IMAGE_INVALID',
          'A data: URL must start with data:image/..., and hold the picture after a comma.',
        );
      }
      const body = source.slice(comma + 1);
      return { input: decodeBody(body, header.endsWith(';base64')), what: 'The data: URL' };
    }
    // Read here and not by sharp, whose message for a missing file looks like one for a broken picture.
    return { input: await readPicture(source), what: `'${source}'` };
  }
  if (ArrayBuffer.isView(source)) return { input: source, what: 'The picture' };
  const { data, width, height } = source;
  const whole = Number.isInteger(width) && Number.isInteger(height) && width > 0 && height > 0;
  if (!whole || width * height > MAX_PIXELS || data?.length !== width * height * 3) {
    throw new XpatchError(
      'IMAGE_INVALID',
      `Raw RGB must hold width * height * 3 bytes and at most ${MAX_PIXELS} pixels; got ${data?.length} bytes for ${width} x ${height}.`,
    );
  }
  return { input: data, raw: { width, height, channels: 3 as const }, what: 'The raw picture' };
}

function decodeBody(body: string, base64: boolean): Buffer {
  try {
    return base64 ? Buffer.from(body, 'base64') : Buffer.from(decodeURIComponent(body));
  } catch (error) {
    throw new XpatchError(
      'IMAGE_INVALID',
      'The data: URL holds a % that is not an escape. Write it as %25, or use base64.',
      { cause: error },
    );
  }
}

function rgb(data: Buffer, width: number, height: number, channels: number): RgbImage {
  let pixels = new Uint8Array(data.buffer, data.byteOffset, data.length);
  if (channels === 1) {
    const grey = pixels;
    pixels = new Uint8Array(width * height * 3);
    for (let i = 0; i < grey.length; i++) pixels.fill(grey[i] as number, i * 3, i * 3 + 3);
  } else if (channels !== 3) {
    throw new XpatchError('IMAGE_INVALID', `The picture decoded to ${channels} channels instead of 3.`);
  }
  return rgbImage(pixels, width, height);
}

/** `data`: width * height * 3 bytes, row by row. */
export function rgbImage(data: Uint8Array, width: number, height: number): RgbImage {
  const hash = createHash('sha256').update(`${width}x${height}:`).update(data).digest('hex');
  return { data, width, height, hash };
}
