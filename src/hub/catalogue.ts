import { readFileSync, statSync } from 'node:fs';
import { join, resolve, sep } from 'node:path';
import { PACKAGE_ROOT } from '../util/package-root.js';

/** A published file. */
export interface CatalogueFile {
  /** `hf:USER/REPO/FILE` */
  readonly uri: string;
  readonly bytes: number;
  /** Whether `bytes` is the very size, or about it. */
  readonly exact: boolean;
  /** Hex; only where it is known from more than one place. */
  readonly sha256?: string;
}

/** A model that `-m` and `loadModel` know by name. */
export interface CatalogueEntry {
  readonly name: string;
  readonly title: string;
  readonly kind: 'vlm' | 'llm';
  /** Whether the paper used it. */
  readonly paper: boolean;
  /** Paths below `models/` of the package. */
  readonly shipped?: { readonly model: string; readonly mmproj?: string };
  /** Of a published model whose picture encoder comes with xpatch, `mmproj` is a path below `models/`. */
  readonly files?: { readonly model: CatalogueFile; readonly mmproj?: CatalogueFile | string };
  /** A checkpoint to convert, and the bytes of the result in 4 bits with an F16 picture encoder, an estimate. */
  readonly convert?: { readonly source: string; readonly model: number; readonly mmproj?: number };
  readonly layers: number;
  /** Bytes of the KV cache for a position, in F16. */
  readonly kvBytes: number;
  /** The language model under a VLM. */
  readonly baseModel?: string;
  readonly licence: { readonly name: string; readonly use: 'any' | 'conditions' | 'research'; readonly note?: string };
  readonly prompt: 'plain' | 'mantis';
  /** How `eval` writes its prompts unless a config says otherwise. Defaults to the paper's `Q:` and `A:`. */
  readonly template?: { readonly example: string; readonly query: string; readonly stop: string | readonly string[] };
  readonly chat: string | null;
  /** Layer output, from 0, whose task vectors work best, with who found it. */
  readonly bestLayer: { readonly layer: number; readonly source: string } | null;
  readonly note?: string;
}

const MODELS = join(PACKAGE_ROOT, 'models');
/** Positions that the memory is told for, and what llama.cpp needs beside weights and cache. */
const POSITIONS = 4096;
const COMPUTE_BYTES = 0.5e9;

let catalogue: readonly CatalogueEntry[] | undefined;

/**
 * All models of the catalogue, shipped ones first. That the file is as its schema says is tested: nothing that a user does can change it.
 *
 * @example
 * ```ts
 * for (const { name, title, licence } of listCatalogue()) console.log(name, title, licence.name);
 * ```
 */
export function listCatalogue(): readonly CatalogueEntry[] {
  const read = () => JSON.parse(readFileSync(join(MODELS, 'catalogue.json'), 'utf8')) as { models: CatalogueEntry[] };
  catalogue ??= read().models;
  return catalogue;
}

export function findEntry(name: string): CatalogueEntry | undefined {
  return listCatalogue().find((entry) => entry.name === name);
}

/** Paths of a shipped model. */
export function shippedFiles({ shipped }: CatalogueEntry): { model: string; mmproj?: string } | undefined {
  if (!shipped) return undefined;
  return { model: join(MODELS, shipped.model), ...(shipped.mmproj && { mmproj: join(MODELS, shipped.mmproj) }) };
}

/** The picture encoder that comes with xpatch for a published model, and the published one. */
export function encoderSource({ files }: CatalogueEntry): { path?: string; published?: CatalogueFile } {
  const mmproj = files?.mmproj;
  return typeof mmproj === 'string' ? { path: join(MODELS, mmproj) } : { ...(mmproj && { published: mmproj }) };
}

/** URIs of the published files of an entry. */
export function publishedUris(entry: CatalogueEntry): string[] {
  return [entry.files?.model.uri, encoderSource(entry).published?.uri].filter((uri) => uri !== undefined);
}

/** Whether a file came with the package. */
export function isShipped(path: string): boolean {
  return resolve(path).startsWith(`${MODELS}${sep}`);
}

/** Bytes of the files: of published ones as the catalogue says, of converted ones an estimate. */
export function bytesOf(entry: CatalogueEntry): number {
  const { files, convert } = entry;
  const { path, published } = encoderSource(entry);
  if (files) return files.model.bytes + (path === undefined ? (published?.bytes ?? 0) : statSync(path).size);
  if (convert) return convert.model + (convert.mmproj ?? 0);
  return Object.values(shippedFiles(entry) ?? {}).reduce((sum, path) => sum + statSync(path).size, 0);
}

/** Bytes of memory that a run takes, an estimate: the files, a KV cache of 4096 positions, and 0.5 GB. */
export function memoryOf(entry: CatalogueEntry): number {
  return bytesOf(entry) + POSITIONS * entry.kvBytes + (entry.shipped ? 0 : COMPUTE_BYTES);
}

export function catalogueNames(): string[] {
  return listCatalogue().map(({ name }) => name);
}
