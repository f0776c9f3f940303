import { stat } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { XpatchError } from '../util/errors.js';
import { isRecord, parseJson } from '../util/json.js';
import { decodeText } from '../util/lines.js';
import { readWhole } from '../util/read-file.js';
import { SafetensorsFile, type TensorInfo } from '../util/safetensors.js';

/** A tensor of a checkpoint, and the shard that holds it. */
export interface SourceTensor {
  readonly file: SafetensorsFile;
  readonly info: TensorInfo;
}

const SINGLE = 'model.safetensors';
const INDEX = 'model.safetensors.index.json';

/** JSON files of a checkpoint are small; tokenizer.json of a quarter of a million tokens has less than 20 MB. */
const FILE = { what: 'the file of the checkpoint', maxBytes: 256 << 20, code: 'CHECKPOINT_INVALID' } as const;

/** The files of a Hugging Face checkpoint. Headers of all shards are read and checked; data only when asked for. */
export class Checkpoint {
  private readonly parsed = new Map<string, Promise<Record<string, unknown> | undefined>>();

  private constructor(
    readonly folder: string,
    readonly config: Readonly<Record<string, unknown>>,
    readonly shards: readonly SafetensorsFile[],
    readonly tensors: ReadonlyMap<string, SourceTensor>,
  ) {}

  /** @throws {XpatchError} FILE_NOT_FOUND, CHECKPOINT_INVALID, SAFETENSORS_INVALID */
  static async open(folder: string): Promise<Checkpoint> {
    const isFolder = await stat(folder).then(
      (found) => found.isDirectory(),
      () => undefined,
    );
    if (isFolder === undefined) throw new XpatchError('FILE_NOT_FOUND', `There is no folder ${folder}.`);
    if (!isFolder) throw invalid(folder, 'it is not a folder: name the one that holds config.json');
    const config = await readJson(folder, 'config.json');
    if (!config) throw invalid(folder, 'it has no config.json; a checkpoint as on the Hugging Face hub has one');
    // Where there are both, transformers takes the single file.
    const isSingle = await exists(join(folder, SINGLE));
    const index = isSingle ? undefined : await readJson(folder, INDEX);
    if (!isSingle && !index) throw await noWeights(folder);
    const shards: SafetensorsFile[] = [];
    try {
      const names = index ? await shardNames(folder, index) : [SINGLE];
      for (const name of names) shards.push(await SafetensorsFile.open(join(folder, name)));
      const tensors = new Map<string, SourceTensor>();
      for (const file of shards) {
        for (const [name, info] of file.tensors) {
          const other = tensors.get(name);
          if (other) throw invalid(folder, `tensor '${name}' is both in ${other.file.path} and in ${file.path}`);
          tensors.set(name, { file, info });
        }
      }
      if (index) checkIndex(folder, index, tensors);
      return new Checkpoint(folder, config, shards, tensors);
    } catch (error) {
      await Promise.all(shards.map((shard) => shard.close()));
      throw error;
    }
  }

  /** An object from a JSON file of the checkpoint, undefined where there is no such file. */
  json(name: string): Promise<Readonly<Record<string, unknown>> | undefined> {
    const known = this.parsed.get(name) ?? readJson(this.folder, name);
    this.parsed.set(name, known);
    return known;
  }

  /** A text file of the checkpoint, undefined where there is none. */
  async text(name: string): Promise<string | undefined> {
    const bytes = await this.bytes(name);
    try {
      return bytes && decodeText(bytes);
    } catch (cause) {
      throw invalid(this.folder, `${name} ${(cause as Error).message}; download it again`, cause);
    }
  }

  bytes(name: string): Promise<Buffer | undefined> {
    return readOptional(this.folder, name);
  }

  invalid(problem: string): XpatchError {
    return invalid(this.folder, problem);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.shards.map((shard) => shard.close()));
  }
}

function invalid(folder: string, problem: string, cause?: unknown): XpatchError {
  // Names from the checkpoint are in these messages, and a terminal obeys what is among them.
  const harmless = problem.replace(/[\p{Cc}\p{Cf}]/gu, '\ufffd');
  return new XpatchError('CHECKPOINT_INVALID', `${folder} is not a usable checkpoint: ${harmless}.`, { cause });
}

async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}

async function readOptional(folder: string, name: string): Promise<Buffer | undefined> {
  const path = join(folder, name);
  try {
    return await readWhole(path, FILE);
  } catch (error) {
    const { cause, message } = error as XpatchError;
    if ((cause as NodeJS.ErrnoException | undefined)?.code === 'ENOENT') return undefined;
    throw invalid(folder, message.replace(/\.$/, ''), error);
  }
}

async function readJson(folder: string, name: string): Promise<Record<string, unknown> | undefined> {
  const bytes = await readOptional(folder, name);
  if (!bytes) return undefined;
  let value: unknown;
  try {
    value = parseJson(bytes);
  } catch (cause) {
    throw invalid(folder, `${name} ${(cause as Error).message}; download it again`, cause);
  }
  if (!isRecord(value)) throw invalid(folder, `${name} does not hold an object`);
  return value;
}

/** The shards that an index names, once it is sure that all of them are there. */
async function shardNames(folder: string, index: Record<string, unknown>): Promise<string[]> {
  const names = [...new Set(Object.values(weightMap(folder, index)))].sort();
  for (const name of names) {
    // An index comes from the internet: it must not lead out of the folder.
    if (basename(name) !== name || !name.endsWith('.safetensors')) {
      throw invalid(folder, `${INDEX} names ${JSON.stringify(name)}, which is not a shard in this folder`);
    }
  }
  const found = await Promise.all(names.map((name) => exists(join(folder, name))));
  const missing = names.filter((_, i) => !found[i]);
  if (missing.length > 0) {
    throw invalid(folder, `${missing.length} of ${names.length} shards are missing: ${list(missing)}. Download them`);
  }
  return names;
}

function weightMap(folder: string, index: Record<string, unknown>): Record<string, string> {
  const map = index.weight_map;
  const entries = typeof map === 'object' && map !== null ? Object.values(map) : [];
  if (entries.length === 0 || !entries.every((name) => typeof name === 'string')) {
    throw invalid(folder, `${INDEX} has no weight_map from tensors to shards`);
  }
  return map as Record<string, string>;
}

function checkIndex(folder: string, index: Record<string, unknown>, tensors: ReadonlyMap<string, SourceTensor>): void {
  const map = weightMap(folder, index);
  const missing = Object.keys(map).filter((name) => basename(tensors.get(name)?.file.path ?? '') !== map[name]);
  const extra = [...tensors.keys()].filter((name) => !Object.hasOwn(map, name));
  if (missing.length > 0) throw invalid(folder, `the shards lack tensors that ${INDEX} names: ${list(missing)}`);
  if (extra.length > 0) throw invalid(folder, `the shards hold tensors that ${INDEX} does not name: ${list(extra)}`);
}

async function noWeights(folder: string): Promise<XpatchError> {
  const pickled =
    (await exists(join(folder, 'pytorch_model.bin'))) || (await exists(join(folder, `pytorch_model.bin.index.json`)));
  if (!pickled) return invalid(folder, `it has neither ${SINGLE} nor ${INDEX}`);
  return invalid(
    folder,
    'its weights are pickled (pytorch_model.bin), and a pickle can run any code. Use a revision with safetensors, or ' +
      'write one in Python: AutoModel.from_pretrained(folder).save_pretrained(other)',
  );
}

/** Some names of many. */
export function list(names: readonly string[]): string {
  const shown = names.slice(0, 4).join(', ');
  return names.length > 4 ? `${shown}, … (${names.length})` : shown;
}
