import { closeSync, constants, openSync, readSync, statSync } from 'node:fs';
import { kindOf } from './read-file.js';

/** What a reader expects; a file of this kind, even a broken one, is not explained. */
export type Wanted = 'GGUF' | 'control vector' | 'safetensors' | 'JSON' | 'YAML' | 'picture' | 'text';

const HEAD_BYTES = 1024;

/** The way out if what it is instead has none of its own. Whoever reads JSON says which JSON. */
const WAYS: Partial<Record<Wanted, string>> = {
  GGUF: 'Name a .gguf file: `xpatch models list` shows those you have',
  'control vector': 'Name a .gguf file of `xpatch steer -o`, or a .safetensors file of `xpatch extract -o`',
  safetensors: 'Name a .safetensors file: `xpatch extract -o` writes vectors, `xpatch tune -o` lenses',
  picture: 'Name a PNG, JPEG, WebP, GIF, AVIF, TIFF or SVG',
  YAML: 'Name a YAML or JSON file',
  text: 'Name a text file in UTF-8',
};

/** Kinds of which there may be another too: a config may be JSON, and a control vector is GGUF. */
const ALSO: Partial<Record<Wanted, Wanted>> = { YAML: 'JSON', 'control vector': 'GGUF' };

/** How files of a kind begin, what a message calls them, and the way out. */
const KINDS: readonly (readonly [test: (head: Buffer, text: string) => boolean, says: string, kind?: Wanted])[] = [
  [
    (_, text) => text.startsWith('version https://git-lfs'),
    'a Git LFS pointer and not the file itself. Run `git lfs pull`, or download the file',
  ],
  [
    (_, text) => /^\s*(<!doctype html|<html|<head)/i.test(text),
    'a web page (HTML), as a failed download leaves behind. Download the file again, with your token if it needs one',
  ],
  [
    (head) => isBigEndian(head),
    'a big-endian GGUF file, but this machine is little-endian. Use the usual file, or convert it with gguf_convert_endian.py of llama.cpp',
  ],
  [(head) => begins(head, 'GGUF'), 'a GGUF file: a model, which -m takes', 'GGUF'],
  [
    (head) => ['lmgg', 'tjgg', 'fmgg', 'algg'].some((magic) => begins(head, magic)),
    'a model in a format older than GGUF. Use a GGUF file of it',
  ],
  [
    (head) => isSafetensors(head),
    'a safetensors file. A checkpoint of a model becomes GGUF with `xpatch models convert FOLDER`; a vector is given with --vector',
    'safetensors',
  ],
  [
    (head, text) => begins(head, 'PK') && /data\.pkl/.test(text),
    'a PyTorch file (pickle), which may run code and is not read. Save it as safetensors',
  ],
  [
    (head) => begins(head, 'PK\x03\x04') || begins(head, 'PK\x05\x06'),
    'a ZIP archive. Unpack it, and name the file in it',
  ],
  [(head) => begins(head, '\x1f\x8b'), 'a gzip archive. Unpack it (gunzip, or tar -xzf), and name the file in it'],
  [
    (head) =>
      begins(head, 'BZh') || begins(head, '\xfd7zXZ') || begins(head, '\x28\xb5\x2f\xfd') || begins(head, '7z\xbc\xaf'),
    'a compressed archive. Unpack it, and name the file in it',
  ],
  [
    (head) => head.subarray(257, 262).toString('latin1') === 'ustar',
    'a tar archive. Unpack it (tar -xf), and name the file in it',
  ],
  [
    (head) => head[0] === 0x80 && head[1] !== undefined && head[1] >= 2 && head[1] <= 5,
    'a Python pickle, which may run code and is not read. Save it as safetensors',
  ],
  [(head) => begins(head, '\x93NUMPY'), 'a NumPy array. Save it as safetensors'],
  [(head) => begins(head, '%PDF'), 'a PDF'],
  [(head) => begins(head, '\x7fELF') || (begins(head, 'MZ') && head.includes(0)), 'a program'],
  [
    (head) =>
      ['\x89PNG', '\xff\xd8\xff', 'GIF8', 'II*\0', 'MM\0*'].some((magic) => begins(head, magic)) ||
      (begins(head, 'BM') && head.includes(0)) || // both letters begin words too
      head.subarray(8, 12).toString('latin1') === 'WEBP',
    'a picture',
    'picture',
  ],
  [
    (_, text) => isJsonLines(text),
    'JSON Lines, one value per line. Make one array of them, for instance with `jq -s .`',
  ],
  // {{ and {% begin a template
  [(_, text) => /^\s*(\{\s*["}]|\[\s*(?!\{[{%#])["[{\d\]])/.test(text), 'JSON', 'JSON'],
];

/**
 * What a file is if it is not what it should be, with a way out: `it is a web page (HTML), …`; undefined if nothing can be said, or
 * if it looks like `wanted`. For messages: it never throws and reads only a few bytes.
 */
export function whatIs(path: string, wanted?: Wanted): string | undefined {
  let file: number | undefined;
  try {
    const info = statSync(path);
    if (!info.isFile()) return `it is ${kindOf(info)}`;
    file = openSync(path, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0));
    const head = Buffer.alloc(HEAD_BYTES);
    return whatAre(head.subarray(0, readSync(file, head, 0, HEAD_BYTES, 0)), wanted);
  } catch {
    return undefined;
  } finally {
    if (file !== undefined) closeSync(file);
  }
}

const wayTo = (wanted: Wanted | undefined) => (wanted && WAYS[wanted] ? `. ${WAYS[wanted]}` : '');

/** The same for bytes: a whole file, or its beginning. */
export function whatAre(bytes: Uint8Array, wanted?: Wanted): string | undefined {
  const head = Buffer.from(bytes.buffer, bytes.byteOffset, Math.min(bytes.length, HEAD_BYTES));
  if (head.length === 0) return 'it is empty. Write or download it again';
  const text = head.toString('utf8').replace(/^\uFEFF/, '');
  const found = KINDS.find(([test]) => test(head, text));
  const [, says, kind] = found ?? [];
  if (kind !== undefined && (kind === wanted || kind === (wanted && ALSO[wanted]))) return undefined;
  const way = wayTo(wanted);
  if (says !== undefined) return `it is ${says}${says.includes('. ') || says.includes('which ') ? '' : way}`;
  if (head.length >= 64 && head.every((byte) => byte === 0)) {
    return 'it begins with zeros, as after an interrupted download. Download it again';
  }
  const isText = !/[^\P{Cc}\t\n\f\r]|\ufffd/u.test(text.slice(0, -3)); // a letter may be cut through at the end
  if (wanted === 'JSON' || wanted === 'YAML' || wanted === 'text')
    return isText ? undefined : `it is not text in UTF-8${way}`;
  const markup = wanted === 'picture' && text.trimStart().startsWith('<'); // SVG, if broken
  return isText && !markup ? `it is a text file${way}` : undefined;
}

function begins(head: Buffer, magic: string): boolean {
  return head.subarray(0, magic.length).toString('latin1') === magic;
}

function isBigEndian(head: Buffer): boolean {
  const swapped =
    begins(head, 'GGUF') && head.length >= 8 && head.readUInt32BE(4) < 100 && head.readUInt32LE(4) >= 1 << 16;
  return swapped || begins(head, 'FUGG');
}

function isSafetensors(head: Buffer): boolean {
  return head.length > 9 && head.readBigUInt64LE() <= 100_000_000n && /^\{\s*["}]/.test(head.toString('latin1', 8, 16));
}

function isJsonLines(text: string): boolean {
  const [first = '', second = ''] = text.split(/\r?\n/);
  try {
    const value: unknown = JSON.parse(first);
    return typeof value === 'object' && value !== null && /^\s*[[{]/.test(second);
  } catch {
    return false;
  }
}
