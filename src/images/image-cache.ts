import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { deserialize, serialize } from 'node:v8';
import type { Segment } from '../prompt/prompt.js';
import type { ImageSource, RgbImage } from '../prompt/types.js';
import { XpatchError } from '../util/errors.js';
import { makeFolder, writeFileAtomic } from '../util/files.js';
import { readWhole } from '../util/read-file.js';
import type { ImageEncoder, VisionStates } from './encoders/encoder.js';
import { imageFacts, knownFacts, readImage } from './image.js';

export interface ImageCacheOptions {
  /** Bound of the memory cache, bytes. Defaults to 256 MiB. */
  maxBytes?: number;
  /** Folder that keeps encoded pictures between runs; made if need be. Defaults to none. */
  folder?: string;
  /** Scales pictures to this width before they are encoded. Defaults to their own size. */
  width?: number;
}

/** Version of the files in the folder. Raise it when segments get other fields, or a rule of patch-grid.ts changes. */
const FORMAT = 2;

/**
 * Encodes every distinct picture once: from memory, else from the folder, else by the encoder. The least recently used
 * ones leave memory when the bound is exceeded; two simultaneous requests for a picture share one encode.
 */
export class CachedImageEncoder implements ImageEncoder {
  readonly id: string;
  readonly frame: ImageEncoder['frame'];
  readonly tower: ImageEncoder['tower'];
  /** How many pictures were really encoded. */
  encodes = 0;
  private readonly entries = new Map<string, Promise<Segment[]>>();
  private readonly sizes = new Map<string, number>();
  private readonly layouts = new Map<string, Promise<Segment[]>>();
  private readonly maxBytes: number;
  private bytes = 0;

  constructor(
    private readonly inner: ImageEncoder,
    private readonly options: ImageCacheOptions = {},
  ) {
    this.id = inner.id;
    this.frame = inner.frame;
    this.tower = inner.tower;
    this.maxBytes = options.maxBytes ?? 256 * 1024 * 1024;
  }

  /**
   * Reads and encodes a picture. A file that has not changed since it was read is not decoded again while memory holds it.
   *
   * @throws XpatchError FILE_NOT_FOUND, IMAGE_INVALID.
   */
  async encodeSource(source: ImageSource): Promise<Segment[]> {
    const { width } = this.options;
    const facts = await knownFacts(source, { width });
    return (facts && this.recall(facts.hash)) ?? this.encode(await readImage(source, { width }));
  }

  /**
   * How a picture is laid out in a prompt, without encoding it.
   *
   * @throws XpatchError FILE_NOT_FOUND, IMAGE_INVALID.
   */
  async layoutOf(source: ImageSource): Promise<Segment[]> {
    const { width, height } = await imageFacts(source, { width: this.options.width });
    return this.layout(width, height);
  }

  /** States after blocks of the encoder, if they can be read (`tower`). Nothing of it is kept. */
  async statesOf(source: ImageSource, layers: readonly number[]): Promise<VisionStates[]> {
    return (await this.inner.states?.(await readImage(source, { width: this.options.width }), layers)) ?? [];
  }

  /** Sizes and not pictures decide it, and most pictures of a task have one size. */
  layout(width: number, height: number): Promise<Segment[]> {
    const size = `${width}x${height}`;
    const known = this.layouts.get(size) ?? this.inner.layout(width, height);
    this.layouts.set(size, known);
    return known;
  }

  encode(image: RgbImage): Promise<Segment[]> {
    const known = this.recall(image.hash);
    if (known) return known;
    const encoding = this.fetch(image);
    this.entries.set(image.hash, encoding);
    encoding.then(
      (segments) => this.keep(image.hash, segments),
      () => this.entries.delete(image.hash),
    );
    return encoding;
  }

  private recall(hash: string): Promise<Segment[]> | undefined {
    const known = this.entries.get(hash);
    if (known) {
      this.entries.delete(hash); // to the end of the order: most recently used
      this.entries.set(hash, known);
    }
    return known;
  }

  private async fetch(image: RgbImage): Promise<Segment[]> {
    const { folder } = this.options;
    const file = folder && join(folder, await this.fileOf(image));
    const stored = file && (await readSegments(file));
    if (stored) return stored;
    this.encodes++;
    const segments = await this.inner.encode(image);
    if (segments.some((segment) => segment.kind === 'image' && !segment.embeddings.every(Number.isFinite))) {
      throw new XpatchError(
        'NOT_FINITE',
        'The picture encoder gave NaN or infinite numbers. Its weights are damaged, or too large for their type: convert the mmproj again, as f16 or f32.',
      );
    }
    if (folder && file) {
      await makeFolder(folder);
      const body = serialize({ format: FORMAT, segments });
      await writeFileAtomic(file, [createHash('sha256').update(body).digest(), body]);
    }
    return segments;
  }

  /** Also by the tokens around the picture: with one mmproj, models may have other vocabularies. */
  private async fileOf({ width, height, hash }: RgbImage): Promise<string> {
    const layout = await this.layout(width, height);
    const tokens = layout.flatMap((segment) => (segment.kind === 'tokens' ? [...segment.tokens] : []));
    const key = [this.id, hash, ...tokens].join(':');
    return `${createHash('sha256').update(key).digest('hex')}.bin`;
  }

  private keep(hash: string, segments: Segment[]): void {
    const bytes = (s: Segment) =>
      s.kind === 'image' ? s.embeddings.byteLength + s.seen.data.length : s.tokens.byteLength;
    const size = segments.reduce((n, segment) => n + bytes(segment), 0);
    this.sizes.set(hash, size);
    this.bytes += size;
    for (const oldest of this.entries.keys()) {
      if (this.bytes <= this.maxBytes) break;
      const size = this.sizes.get(oldest);
      if (size === undefined) continue; // being encoded
      this.bytes -= size;
      this.sizes.delete(oldest);
      this.entries.delete(oldest);
    }
  }

  async dispose(): Promise<void> {
    this.entries.clear();
    this.sizes.clear();
    this.bytes = 0;
    await this.inner.dispose();
  }
}

const FILE = { what: 'the encoded picture', maxBytes: 1 << 30 } as const;

/** What a cache file holds; undefined for one that is missing, damaged or of another format, which is then simply written again. */
async function readSegments(file: string): Promise<Segment[] | undefined> {
  const content = await readWhole(file, FILE).catch(() => undefined);
  if (!content || content.length < 32) return undefined;
  const body = content.subarray(32);
  if (!createHash('sha256').update(body).digest().equals(content.subarray(0, 32))) return undefined;
  try {
    const { format, segments } = deserialize(body) as { format?: number; segments: Segment[] };
    return format === FORMAT ? segments : undefined;
  } catch {
    return undefined; // of another version of Node.js
  }
}
