import { basename, dirname, resolve } from 'node:path';
import { parse } from 'yaml';
import { type GgufField, text, u32 } from '../gguf/gguf-writer.js';
import { type ConversionType, FILE_TYPES } from '../gguf/tensor-types.js';
import type { Checkpoint } from './checkpoint.js';
import type { TensorPlan } from './plan.js';

/** ggml's version of its block types (GGML_QNT_VERSION). */
const QUANTISATION_VERSION = 2;

/** A checkpoint's own name: that of its folder, or of the model where the folder is a revision in the hub's cache. */
export function checkpointName(folder: string): string {
  const path = resolve(folder);
  const cached = /^models--(?:.+--)?(.+)$/.exec(basename(dirname(dirname(path))));
  const name = basename(dirname(path)) === 'snapshots' && cached ? (cached[1] as string) : basename(path);
  return name.replace(/[^\w.-]+/g, '-').replace(/^[.-]+/, '') || 'model';
}

/** Words instead of dashes, with capitals where there are none, as llama.cpp's converter titles a model. */
function title(name: string): string {
  const words = name.split('-').filter((word) => word !== '');
  const isPlain = (word: string) => /^[^A-Z]*[a-z][^A-Z]*$/.test(word) && !/^(v\d+(\.\d+)*|\d.*)$/.test(word);
  return words.map((word) => (isPlain(word) ? word.replace(/[a-z]+/g, capital) : word)).join(' ');
}

function capital(word: string): string {
  return word.slice(0, 1).toUpperCase() + word.slice(1);
}

/** The keys that say what a file is. */
export async function generalFields(
  checkpoint: Checkpoint,
  kind: 'model' | 'mmproj',
  architecture: string,
  type: ConversionType,
  tensors: readonly TensorPlan[],
): Promise<Record<string, GgufField>> {
  const parameters = tensors.reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0);
  return {
    'general.architecture': text(architecture),
    'general.type': text(kind),
    'general.name': text(title(checkpointName(checkpoint.folder))),
    'general.size_label': text(sizeLabel(parameters)),
    ...(await licenceFields(checkpoint)),
    'general.file_type': u32(FILE_TYPES[type]),
    'general.quantization_version': u32(QUANTISATION_VERSION),
  };
}

/** Such as 7.2B or 405K; two digits at least, as llama.cpp's converter writes it. */
export function sizeLabel(parameters: number): string {
  const [unit, letter] = (
    [
      [1e12, 'T'],
      [1e9, 'B'],
      [1e6, 'M'],
    ] as const
  ).find(([n]) => parameters > n) ?? [1e3, 'K'];
  const scaled = parameters / unit;
  return `${scaled.toFixed(Math.max(2 - String(roundHalfEven(scaled)).length, 0))}${letter}`;
}

/** As Python rounds. */
function roundHalfEven(n: number): number {
  const floor = Math.floor(n);
  return n - floor === 0.5 ? floor + (floor % 2) : Math.round(n);
}

/** Weights keep their licence: what the front matter of README.md says of it. */
async function licenceFields(checkpoint: Checkpoint): Promise<Record<string, GgufField>> {
  const readme = (await checkpoint.text('README.md')) ?? '';
  const front = /^---\r?\n(.*?)\r?\n---/s.exec(readme)?.[1];
  if (front === undefined) return {};
  let card: unknown;
  try {
    card = parse(front);
  } catch {
    return {}; // a model card is a text for people; if it is not YAML, that is not a reason to refuse the model
  }
  const fields: Record<string, GgufField> = {};
  for (const [key, name] of [
    ['license', 'general.license'],
    ['license_name', 'general.license.name'],
    ['license_link', 'general.license.link'],
  ] as const) {
    const value = (card as Record<string, unknown> | null)?.[key];
    if (typeof value === 'string') fields[name] = text(value);
  }
  return fields;
}
