import { createHash } from 'node:crypto';
import { readFile, rename, rm, stat, statfs, truncate, writeFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { basename, dirname, join, resolve } from 'node:path';
import { XpatchError } from '../errors.js';
import { makeFolder, syncFolder, writeError, writeFileAtomic } from '../files.js';
import { checkModelFile } from '../model/gguf-check.js';
import { checkProjectorFile } from '../model/mmproj-check.js';
import type { Progress } from '../model/types.js';
import { RunLock } from '../run-lock.js';
import { Checkpoint } from './checkpoint.js';
import { Config } from './config.js';
import { planFuyu } from './fuyu.js';
import { checkpointName } from './general.js';
import { type GgufLayout, layOutGguf } from './gguf-writer.js';
import { planIdefics2 } from './idefics2.js';
import { persimmonShape, planPersimmon } from './persimmon.js';
import type { FilePlan } from './plan.js';
import { CONVERSION_TYPES, type ConversionType, imageConversion, typeName } from './tensor-types.js';
import { readVocabulary } from './vocabulary.js';
import { writePlan } from './write-plan.js';

/** Architectures of config.json, and what becomes of them. */
const ARCHITECTURES = {
  FuyuForCausalLM: 'fuyu',
  Idefics2ForConditionalGeneration: 'idefics2',
  MFuyuForCausalLM: 'fuyu',
  PersimmonForCausalLM: 'persimmon',
} as const;
export type ConvertedFamily = (typeof ARCHITECTURES)[keyof typeof ARCHITECTURES];

/** What can be converted, as config.json names it. */
export const CONVERTED_ARCHITECTURES: readonly string[] = Object.keys(ARCHITECTURES);

export interface ConvertOptions {
  /** What the matrices are stored as. Defaults to `f16`. */
  type?: ConversionType;
  /** Chunks converted at once, 16 MB of the source each. Defaults to the cores, at most 4. */
  threads?: number;
  signal?: AbortSignal;
  /** `done` and `total` in bytes of the files. */
  onProgress?: (progress: Progress) => void;
}

/** A file that was made. */
export interface ConvertedFile {
  kind: 'model' | 'mmproj';
  path: string;
  bytes: number;
  tensors: number;
  /** How many tensors there are of each type. */
  types: Record<string, number>;
}

export interface Conversion {
  family: ConvertedFamily;
  files: ConvertedFile[];
  /** Bytes that an interrupted run had already written. */
  resumedFrom: number;
  /** What differs from what was asked for, in a sentence each. */
  notes: string[];
}

interface Job extends FilePlan {
  layout: GgufLayout;
  path: string;
  part: string;
}

/** What an interrupted conversion leaves for the next run. */
interface State {
  /** Of everything that the files depend on. */
  fingerprint: string;
  /** By file, bytes that are on the disk for good. */
  written: Record<string, number>;
}

/**
 * Converts a Hugging Face checkpoint (safetensors, one file or shards) of Idefics2, Fuyu (Mantis' or Adept's) or Persimmon to
 * GGUF: `NAME-TYPE.gguf` in the folder `output`, and for the first two `mmproj-NAME-TYPE.gguf`, NAME being the checkpoint's folder.
 * Memory stays below 2 GB for models of any size. Nothing stands under the final names before all is written; a run that
 * was interrupted or killed goes on where it was when it is called again.
 *
 * @throws {XpatchError} ARCHITECTURE_UNSUPPORTED, CHECKPOINT_INVALID, FILE_NOT_FOUND, SAFETENSORS_INVALID (all before anything is
 * written, but for values that are not finite), FILE_WRITE, MMPROJ_INVALID, RUN_BUSY, ABORTED
 */
export async function convertCheckpoint(
  folder: string,
  output: string,
  { type = 'f16', threads = Math.min(4, availableParallelism()), signal, onProgress }: ConvertOptions = {},
): Promise<Conversion> {
  if (!CONVERSION_TYPES.includes(type)) {
    throw new XpatchError('INVALID_ARGUMENT', `The type is ${type}; known are ${CONVERSION_TYPES.join(', ')}.`);
  }
  if (!Number.isSafeInteger(threads) || threads < 1) {
    throw new XpatchError('INVALID_ARGUMENT', `threads is ${threads}, expected a whole number from 1 on.`);
  }
  const checkpoint = await Checkpoint.open(folder);
  try {
    const family = familyOf(checkpoint);
    const plans = await planFiles(checkpoint, family, type);
    const name = checkpointName(folder);
    const jobs = plans.map((plan) => {
      const stem = plan.kind === 'model' ? `${name}-${type}` : `mmproj-${name}-${imageConversion(type)}`;
      const path = join(resolve(output), `${stem}.gguf`);
      return { ...plan, layout: layOutGguf(plan.metadata, plan.tensors), path, part: `${path}.part` };
    });
    const statePath = join(resolve(output), `${name}-${type}.part.json`);
    const fingerprint = await fingerprintOf(checkpoint, jobs);
    await makeFolder(resolve(output));
    const lock = await RunLock.acquire(resolve(output), 'The folder');
    let resumedFrom: number;
    try {
      const state = await readState(statePath, fingerprint);
      await requireFree(jobs, state !== undefined);
      const events = { threads, signal, onProgress };
      resumedFrom = await write(jobs, statePath, state ?? { fingerprint, written: {} }, events);
    } finally {
      lock.release();
    }
    const files = jobs.map(describe);
    return { family, files, resumedFrom, notes: notesOf(jobs, type) };
  } finally {
    await checkpoint.close();
  }
}

function familyOf(checkpoint: Checkpoint): ConvertedFamily {
  const { config } = checkpoint;
  const architecture = Array.isArray(config.architectures) ? config.architectures[0] : undefined;
  if (typeof architecture !== 'string') throw checkpoint.invalid('its config.json names no architecture');
  if (!Object.hasOwn(ARCHITECTURES, architecture)) {
    throw new XpatchError(
      'ARCHITECTURE_UNSUPPORTED',
      `${checkpoint.folder} is a ${architecture}. Converted here are those that llama.cpp does not know: ` +
        `${CONVERTED_ARCHITECTURES.join(', ')}. For others use llama.cpp's convert_hf_to_gguf.py (with --mmproj a second ` +
        'time for the picture encoder), or look for a GGUF of the model.',
    );
  }
  if (config.quantization_config !== undefined && config.quantization_config !== null) {
    throw checkpoint.invalid('its weights are quantised (quantization_config); take the original ones');
  }
  return ARCHITECTURES[architecture as keyof typeof ARCHITECTURES];
}

async function planFiles(checkpoint: Checkpoint, family: ConvertedFamily, type: ConversionType): Promise<FilePlan[]> {
  const invalid = (problem: string) => checkpoint.invalid(problem);
  const root = new Config(checkpoint.config, 'config.json', invalid);
  // What transformers goes by is the whole model's setting, not that of its parts.
  root.require('tie_word_embeddings', [false], false);
  const vocabulary = (size: number) => readVocabulary(checkpoint, size);
  if (family === 'persimmon') {
    const keep = (name: string) => (name.endsWith('.rotary_emb.inv_freq') ? null : name);
    return [await planPersimmon(checkpoint, root, await vocabulary(persimmonShape(root).nVocab), type, keep)];
  }
  const settings =
    (await checkpoint.json('preprocessor_config.json')) ?? (await checkpoint.json('processor_config.json'));
  if (!settings) throw invalid('it has no preprocessor_config.json, which says how pictures are read; download it');
  const nested = settings.image_processor;
  const values = typeof nested === 'object' && nested !== null ? (nested as Record<string, unknown>) : settings;
  const preprocessor = new Config(values, 'preprocessor_config.json', invalid);
  const plan = family === 'idefics2' ? planIdefics2 : planFuyu;
  return plan(checkpoint, root, preprocessor, vocabulary, type);
}

/** Two runs with the same fingerprint write the same bytes. */
async function fingerprintOf(checkpoint: Checkpoint, jobs: readonly Job[]): Promise<string> {
  const hash = createHash('sha256');
  for (const { layout, tensors } of jobs) {
    hash.update(layout.header);
    for (const { source } of tensors) hash.update(`${source.info.name}\0${source.info.offset}\0`);
  }
  for (const { path } of checkpoint.shards) {
    const { size, mtimeMs } = await stat(path);
    hash.update(`${resolve(path)}\0${size}\0${mtimeMs}\0`);
  }
  return hash.digest('hex');
}

/** What an earlier run left, if it was of the same conversion. */
async function readState(path: string, fingerprint: string): Promise<State | undefined> {
  const found = await readFile(path, 'utf8').catch(() => undefined);
  if (found === undefined) return undefined;
  try {
    const state = JSON.parse(found) as State;
    return state.fingerprint === fingerprint && typeof state.written === 'object' ? state : undefined;
  } catch {
    return undefined; // not ours: it is written over
  }
}

async function sizeOf(path: string): Promise<{ size: number; allocated: number } | undefined> {
  return stat(path).then(
    ({ size, blocks }) => ({ size, allocated: Math.min(size, (blocks ?? 0) * 512) }),
    () => undefined,
  );
}

/** Nothing that is there is written over, and there is room for all. */
async function requireFree(jobs: readonly Job[], resumed: boolean): Promise<void> {
  let needed = 0;
  for (const { path, part, layout } of jobs) {
    const existing = await sizeOf(path);
    if (existing && !(resumed && existing.size === layout.size)) {
      throw new XpatchError('FILE_WRITE', `There is already a ${path}. Remove it, or name another folder.`);
    }
    if (!existing) needed += Math.max(0, layout.size - ((await sizeOf(part))?.allocated ?? 0));
  }
  const folder = dirname((jobs[0] as Job).path);
  const disk = await statfs(folder).catch(() => undefined);
  const free = disk && disk.bavail * disk.bsize;
  if (free !== undefined && free < needed) {
    throw new XpatchError(
      'FILE_WRITE',
      `The conversion writes ${gigabytes(needed)}, but ${folder} has room for ${gigabytes(free)}. Free some space, name a ` +
        'folder on another disk, or take a smaller type.',
    );
  }
}

function gigabytes(bytes: number): string {
  return bytes < 1e8 ? `${(bytes / 1e6).toFixed(1)} MB` : `${(bytes / 1e9).toFixed(1)} GB`;
}

async function write(
  jobs: readonly Job[],
  statePath: string,
  state: State,
  { threads, signal, onProgress }: ConvertOptions & { threads: number },
): Promise<number> {
  const total = jobs.reduce((sum, { layout }) => sum + layout.size, 0);
  const from = await Promise.all(jobs.map((job) => writtenBefore(job, state)));
  const fresh = jobs.filter((_, i) => from[i] === 0);
  // Before their files are emptied: a count must never outlive what it counts.
  for (const { part } of fresh) state.written[basename(part)] = 0;
  await saveState(statePath, state);
  try {
    for (const job of fresh) await begin(job);
  } catch (error) {
    for (const path of [statePath, ...fresh.map(({ part }) => part)]) await rm(path, { force: true });
    throw error;
  }
  let before = 0;
  for (const [i, job] of jobs.entries()) {
    const { part, layout } = job;
    const start = from[i] as number;
    if (start < layout.size) {
      const onDurable = (bytes: number) => {
        state.written[basename(part)] = bytes;
        return saveState(statePath, state);
      };
      const onWritten = (bytes: number) => onProgress?.({ done: before + bytes, total });
      await writePlan(part, job, layout, start, threads, { signal, onWritten, onDurable });
      await onDurable(layout.size);
    }
    before += layout.size;
    onProgress?.({ done: before, total });
  }
  for (const { path, part } of jobs) {
    if (!(await sizeOf(part))) continue; // renamed by a run that ended before it could remove the state
    await rename(part, path).catch((cause: unknown) => {
      throw writeError(path, cause);
    });
    await syncFolder(dirname(path));
  }
  await rm(statePath, { force: true });
  return from.reduce((sum, bytes) => sum + bytes, 0);
}

/** Bytes of a file that earlier runs have written for good. */
async function writtenBefore({ path, part, layout }: Job, state: State): Promise<number> {
  const there = await sizeOf(part);
  if (!there) return (await sizeOf(path)) ? layout.size : 0;
  const written = state.written[basename(part)];
  return there.size === layout.size && Number.isSafeInteger(written) ? (written as number) : 0;
}

/**
 * Makes a partial file with its header, its data still missing, and checks that the runtime would take it: not only after
 * an hour of converting.
 */
async function begin({ part, kind, layout }: Job): Promise<void> {
  await writeFile(part, layout.header)
    .then(() => truncate(part, layout.size))
    .catch((cause: unknown) => {
      throw writeError(part, cause);
    });
  if (kind === 'model') checkModelFile(part);
  else checkProjectorFile(part);
}

async function saveState(path: string, state: State): Promise<void> {
  await writeFileAtomic(path, JSON.stringify(state));
}

function describe({ kind, path, layout, tensors }: Job): ConvertedFile {
  const types: Record<string, number> = {};
  for (const { type } of tensors) types[typeName(type)] = (types[typeName(type)] ?? 0) + 1;
  return { kind, path, bytes: layout.size, tensors: tensors.length, types };
}

function notesOf(jobs: readonly Job[], type: ConversionType): string[] {
  const notes: string[] = [];
  for (const { tensors } of jobs) {
    const groups = new Map<string, { names: string[]; row: number }>();
    for (const { name, type: id, instead, shape } of tensors) {
      if (instead === undefined) continue;
      const key = `${typeName(id)} instead of ${instead}`;
      const group = groups.get(key) ?? { names: [], row: shape[0] as number };
      group.names.push(name);
      groups.set(key, group);
    }
    for (const [key, { names, row }] of groups) {
      const which = names.length > 1 ? `${names[0]} and ${names.length - 1} more are` : `${names[0]} is`;
      notes.push(`${which} ${key}, whose blocks do not divide rows of ${row}.`);
    }
  }
  if (type === 'q4_k' && jobs.some(({ kind }) => kind === 'mmproj')) {
    notes.push('The picture encoder is stored as Q8_0: four bits are too few for it.');
  }
  return notes;
}
