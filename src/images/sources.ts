import { fileURLToPath } from 'node:url';
import { types } from 'node:util';
import type { ImageSource } from '../prompt/types.js';
import { XpatchError } from '../util/errors.js';

/** What a picture can be handed in as, once it is unwrapped: a path or `data:` URL, an encoded file, or raw RGB. */
export type PlainSource = string | Uint8Array | { data: Uint8Array; width: number; height: number };

/** Unwraps what JavaScript holds pictures in. @throws XpatchError IMAGE_INVALID. */
export async function plainSource(source: ImageSource): Promise<PlainSource> {
  if (typeof source === 'string') return source.startsWith('file:') ? pathOf(source) : source;
  if (source instanceof URL) return source.protocol === 'file:' ? pathOf(source) : urlText(source);
  if (types.isAnyArrayBuffer(source)) return bytesOf(new Uint8Array(source));
  if (ArrayBuffer.isView(source)) return bytesOf(source);
  if (typeof (source as Blob)?.arrayBuffer === 'function') return new Uint8Array(await (source as Blob).arrayBuffer());
  const raw = source as { data: Uint8Array; width: number; height: number } | null;
  if (typeof raw !== 'object' || raw === null) {
    throw invalid(`A picture is a path, a URL, bytes or raw RGB, not ${raw === null ? 'null' : `a ${typeof raw}`}.`);
  }
  if (!ArrayBuffer.isView(raw.data)) throw invalid('Raw RGB must be bytes: data has to be a Uint8Array.');
  return { data: bytesOf(raw.data), width: raw.width, height: raw.height };
}

function invalid(message: string, cause?: unknown): XpatchError {
  return new XpatchError('IMAGE_INVALID', message, { cause });
}

function pathOf(url: string | URL): string {
  try {
    return fileURLToPath(url);
  } catch (cause) {
    throw invalid(`'${url}' is not a file on this machine: ${(cause as Error).message}.`, cause);
  }
}

function urlText(url: URL): string {
  if (url.protocol === 'data:') return url.href;
  throw invalid(
    `Pictures are not fetched: '${url.protocol}' is neither file: nor data:. Download it, and give the file.`,
  );
}

/** Floats that are read as bytes would be black or noise. Memory that others may write to is copied. */
function bytesOf(view: ArrayBufferView): Uint8Array {
  if (!types.isUint8Array(view) && !types.isUint8ClampedArray(view) && !types.isDataView(view)) {
    const kind = Object.prototype.toString.call(view).slice(8, -1);
    throw invalid(
      `A picture's bytes are a Uint8Array, 0 to 255, not a ${kind}. Scale and round it: Uint8Array.from(x, (v) => 255 * v).`,
    );
  }
  const bytes = new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
  return types.isSharedArrayBuffer(view.buffer) ? Uint8Array.from(bytes) : bytes;
}

/** Formats that sharp's libvips has no reader for, by how their files begin. */
const UNREADABLE: readonly (readonly [name: string, test: (head: Buffer) => boolean])[] = [
  ['BMP', (head) => begins(head, 'BM')],
  ['PPM, PGM or PBM', (head) => /^P[1-7]\s/.test(head.toString('latin1', 0, 3))],
  ['PFM', (head) => /^P[Ff]\s/.test(head.toString('latin1', 0, 3))],
  [
    'ICO or CUR',
    (head) =>
      head.length > 6 &&
      head.readUInt16LE(0) === 0 &&
      head.readUInt16LE(4) > 0 &&
      [1, 2].includes(head.readUInt16LE(2)),
  ],
  ['JPEG 2000', (head) => begins(head, 'jP  ', 4) || (head[0] === 0xff && head[1] === 0x4f && head[2] === 0xff)],
  ['JPEG XL', (head) => begins(head, 'JXL ', 4) || (head[0] === 0xff && head[1] === 0x0a)],
  [
    'HEIC',
    (head) =>
      begins(head, 'ftyp', 4) &&
      /hei[cxms]|hev[cmx]|mif1|msf1/.test(head.toString('latin1', 8, 40)) &&
      !head.toString('latin1', 8, 40).includes('avif'),
  ],
  ['Photoshop', (head) => begins(head, '8BPS')],
  ['OpenEXR', (head) => begins(head, 'v/1\x01')],
  ['Radiance HDR', (head) => begins(head, '#?')],
  ['DDS', (head) => begins(head, 'DDS ')],
  ['PDF', (head) => begins(head, '%PDF')],
  ['TGA', isTga],
];

function begins(head: Buffer, text: string, at = 0): boolean {
  return head.toString('latin1', at, at + text.length) === text;
}

/** Has no signature: the fields of its header are few and narrow. */
function isTga(head: Buffer): boolean {
  if (head.length < 18) return false;
  const [, palette, kind] = head as unknown as number[];
  const depth = head[16] as number;
  return (
    (palette === 0 || palette === 1) &&
    [1, 2, 3, 9, 10, 11].includes(kind as number) &&
    [8, 15, 16, 24, 32].includes(depth)
  );
}

/** Name of the format of a picture that sharp does not read; undefined for every other. */
export function unreadableFormat(bytes: Uint8Array): string | undefined {
  const head = Buffer.from(bytes.buffer, bytes.byteOffset, Math.min(bytes.length, 64));
  return UNREADABLE.find(([, test]) => test(head))?.[0];
}
