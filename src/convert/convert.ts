import { availableParallelism } from 'node:os';
import { join, resolve } from 'node:path';
import { layOutGguf } from '../gguf/gguf-writer.js';
import { CONVERSION_TYPES, type ConversionType, typeName } from '../gguf/tensor-types.js';
import type { Progress } from '../model/types.js';
import { XpatchError } from '../util/errors.js';
import { Checkpoint } from './checkpoint.js';
import { Config } from './config.js';
import { planFuyu } from './fuyu.js';
import { checkpointName } from './general.js';
import { planIdefics2 } from './idefics2.js';
import { persimmonShape, planPersimmon } from './persimmon.js';
import type { FilePlan } from './plan.js';
import { readVocabulary } from './vocabulary.js';
import { type Job, writeJobs } from './write-jobs.js';

/** Architectures of config.json, and what becomes of them. */
const ARCHITECTURES = {
  FuyuForCausalLM: 'fuyu',
  Idefics2ForConditionalGeneration: 'idefics2',
  MFuyuForCausalLM: 'fuyu',
  PersimmonForCausalLM: 'persimmon',
} as const;
/** Families of models whose checkpoints can be converted. */
export type ConvertedFamily = (typeof ARCHITECTURES)[keyof typeof ARCHITECTURES];

/** What can be converted, as config.json names it. */
export const CONVERTED_ARCHITECTURES: readonly string[] = Object.keys(ARCHITECTURES);

/** How a checkpoint is converted. */
export interface ConvertOptions {
  /** What the matrices are stored as. Defaults to `f16`. */
  type?: ConversionType;
  /**
   * Chunks converted at once, 16 MB of the source each. More than the threads of Node.js (UV_THREADPOOL_SIZE, 4) gain nothing.
   * Defaults to the cores, at most 4.
   */
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

/** What a conversion wrote. */
export interface Conversion {
  family: ConvertedFamily;
  files: ConvertedFile[];
  /** Bytes that an interrupted run had already written. */
  resumedFrom: number;
  /** What differs from what was asked for, in a sentence each. */
  notes: string[];
}

/**
 * Converts a Hugging Face checkpoint (safetensors, one file or shards) of Idefics2, Fuyu (Mantis' or Adept's) or Persimmon to
 * GGUF: `NAME-TYPE.gguf` in the folder `output`, and for the first two `mmproj-NAME-TYPE.gguf`, NAME being the checkpoint's folder.
 * Memory stays below 2 GB for models of any size. Nothing appears under the final names before all of it is written; a run that
 * was interrupted or killed resumes where it was when it is called again.
 *
 * @throws {XpatchError} ARCHITECTURE_UNSUPPORTED, CHECKPOINT_INVALID, FILE_NOT_FOUND, SAFETENSORS_INVALID (all before anything is
 * written, but for values that are not finite), TOKENIZER_UNSUPPORTED, GGUF_INVALID and MMPROJ_INVALID (before any data are
 * written), FILE_WRITE, RUN_BUSY, ABORTED
 */
export async function convertCheckpoint(
  folder: string,
  output: string,
  { type = 'f16', threads = Math.min(4, availableParallelism()), signal, onProgress }: ConvertOptions = {},
): Promise<Conversion> {
  if (!CONVERSION_TYPES.includes(type)) {
    throw new XpatchError('INVALID_ARGUMENT', `The type is ${type}; it must be one of ${CONVERSION_TYPES.join(', ')}.`);
  }
  if (!Number.isSafeInteger(threads) || threads < 1) {
    throw new XpatchError('INVALID_ARGUMENT', `threads must be a whole number from 1, not ${threads}.`);
  }
  await using checkpoint = await Checkpoint.open(folder);
  const family = familyOf(checkpoint);
  const plans = await planFiles(checkpoint, family, type);
  const stem = `${checkpointName(folder)}-${type}`;
  const jobs = plans.map((plan) => {
    const path = join(resolve(output), `${plan.kind === 'mmproj' ? 'mmproj-' : ''}${stem}.gguf`);
    return { ...plan, layout: layOutGguf(plan.metadata, plan.tensors), path, part: `${path}.part` };
  });
  const resumedFrom = await writeJobs(checkpoint, jobs, join(resolve(output), `${stem}.part.json`), {
    threads,
    signal,
    onProgress,
  });
  const files = jobs.map(describe);
  return { family, files, resumedFrom, notes: notesOf(jobs, type) };
}

function familyOf(checkpoint: Checkpoint): ConvertedFamily {
  const { config } = checkpoint;
  const architecture = Array.isArray(config.architectures) ? config.architectures[0] : undefined;
  if (typeof architecture !== 'string' || !/^\w+$/.test(architecture)) {
    throw checkpoint.invalid('its config.json names no architecture');
  }
  if (!Object.hasOwn(ARCHITECTURES, architecture)) {
    throw new XpatchError(
      'ARCHITECTURE_UNSUPPORTED',
      `${checkpoint.folder} is a ${architecture}. xpatch converts only those that llama.cpp does not know: ` +
        `${CONVERTED_ARCHITECTURES.join(', ')}. For others use llama.cpp's convert_hf_to_gguf.py (with --mmproj a second ` +
        'time for the picture encoder), or look for a GGUF of the model.',
    );
  }
  if (config.quantization_config !== undefined && config.quantization_config !== null) {
    throw checkpoint.invalid('its weights are quantised (quantization_config); use the original ones');
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
