import { join } from 'node:path';
import { HOOKS, type HookName } from '../hooks/types.js';
import type { ModelIdentity } from '../model/types.js';
import type { PicturePositions, TextPositions } from '../prompt/types.js';
import { XpatchError } from '../util/errors.js';
import { writeFileAtomic } from '../util/files.js';
import { parseJson } from '../util/json.js';
import { readWhole } from '../util/read-file.js';

/** Which positions of each prompt a corpus has. See `CorpusOptions.positions`. */
export type CorpusPositions = 'last' | 'all' | 'mean' | 'marks' | 'generated' | TextPositions | PicturePositions;

/** What a corpus was asked for: a corpus is resumed only with the same. */
export interface CorpusRequest {
  readonly model: ModelIdentity;
  readonly hooks: readonly HookName[];
  readonly layers: readonly number[];
  readonly positions: CorpusPositions;
  /** Tokens that were generated after each prompt. */
  readonly generate: number;
  /** What else the prompts depend on, such as the hash of their file and the template. */
  readonly source: Readonly<Record<string, unknown>>;
}

/** A pair of files: `NAME.safetensors` with the states, `NAME.jsonl` with the prompts. */
export interface CorpusShard {
  readonly name: string;
  readonly prompts: number;
  /** States of each hook and layer. */
  readonly rows: number;
  /** SHA-256 of its files; corpora of earlier versions have none. */
  readonly sha256?: { readonly states: string; readonly prompts: string };
}

/** `corpus.json`. */
export interface CorpusManifest extends CorpusRequest {
  readonly format: typeof FORMAT;
  readonly status: 'running' | 'complete';
  readonly shards: readonly CorpusShard[];
}

/** One prompt of a corpus: a line of a shard's `.jsonl`. */
export interface CorpusPrompt {
  /** From 0, in the order of the source. */
  readonly index: number;
  /** Its rows in the tensors of its shard: from the first to before the second. */
  readonly rows: readonly [from: number, to: number];
  /** Position in the prompt of each row; none for a mean. */
  readonly positions: readonly number[];
  /** Ids of all tokens of the prompt, generated ones included; -n for n rows of a picture. */
  readonly tokens: readonly number[];
  /** What was generated, and the log-probability in nats of each of its tokens. */
  readonly generated?: { readonly text: string; readonly logProbabilities: readonly number[] };
  /** What the source says of it, such as a label. */
  readonly fields: Readonly<Record<string, unknown>>;
}

export const FORMAT = 'xpatch.corpus/1';
const MANIFEST = 'corpus.json';

const manifestPath = (folder: string): string => join(folder, MANIFEST);

/** @throws {XpatchError} FILE_WRITE */
export async function writeManifest(folder: string, manifest: CorpusManifest): Promise<void> {
  await writeFileAtomic(manifestPath(folder), `${JSON.stringify(manifest, null, 2)}\n`);
}

/**
 * @returns undefined where the folder has none
 * @throws {XpatchError} DATA_INVALID
 */
export async function readManifest(folder: string): Promise<CorpusManifest | undefined> {
  const path = manifestPath(folder);
  const file = { what: 'the manifest of the corpus', maxBytes: 1 << 26, code: 'DATA_INVALID' } as const;
  let bytes: Buffer;
  try {
    bytes = await readWhole(path, file);
  } catch (error) {
    if ((error as XpatchError).code === 'FILE_NOT_FOUND') return undefined;
    throw error;
  }
  try {
    const manifest = parseJson(bytes) as CorpusManifest;
    const { format, shards, layers, hooks } = manifest;
    const isList = (list: unknown, isItem: (item: never) => boolean) =>
      Array.isArray(list) && list.every((item) => isItem(item as never));
    const isHook = (hook: string) => (HOOKS as readonly string[]).includes(hook);
    if (format === FORMAT && isList(shards, isShard) && isList(layers, isCount) && isList(hooks, isHook))
      return manifest;
  } catch {
    // said below
  }
  throw new XpatchError(
    'DATA_INVALID',
    `${path} is not the manifest of a corpus (${FORMAT}). Capture it again elsewhere.`,
  );
}

const isCount = (value: unknown): boolean => Number.isSafeInteger(value) && (value as number) >= 0;

function isShard(shard: Partial<CorpusShard> | null): boolean {
  return /^states-\d+$/.test(String(shard?.name)) && isCount(shard?.prompts) && isCount(shard?.rows);
}
