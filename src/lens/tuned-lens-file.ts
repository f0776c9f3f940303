import type { HookName } from '../hooks/types.js';
import type { ModelIdentity } from '../model/types.js';
import { XpatchError } from '../util/errors.js';
import { SafetensorsFile, type TensorToWrite, writeSafetensors } from '../util/safetensors.js';

/**
 * How a layer is translated: `plain` unchanged, like the plain lens; `bias` with a constant added; a number: an affine
 * map fitted with this ridge strength.
 */
export type LensStrength = 'plain' | 'bias' | number;

/** What a state of one layer gets added to become a prediction of the last layer's: `matrix h + bias`. */
export interface Translator {
  readonly strength: LensStrength;
  /** Row-major [nEmbd, nEmbd]; only for a ridge strength. */
  readonly matrix?: Float32Array;
  /** [nEmbd]; not for `plain`. */
  readonly bias?: Float32Array;
}

/** Everything about a tuned lens but its weights. */
export interface TunedLensInfo {
  readonly model: ModelIdentity;
  readonly hook: HookName;
  /** Block outputs that the lens translates, 0-based and rising: all but the last one, which needs none. */
  readonly layers: readonly number[];
  /** What it was fitted on. */
  readonly fit: {
    /** Distinct prompts and their positions that the maps were fitted to. */
    readonly prompts: number;
    readonly positions: number;
    /** Distinct prompts and their positions that the strengths were chosen on. */
    readonly validationPrompts: number;
    readonly validationPositions: number;
    readonly seed: number;
    /** SHA-256 over all prompts as the model saw them, hex. */
    readonly promptsHash: string;
    /** Version of xpatch. */
    readonly xpatch: string;
  };
}

const FORMAT = 'xpatch.tuned-lens/1';
const nameOf = (layer: number, part: 'matrix' | 'bias') => `layers.${layer}.${part}`;

export async function writeLensFile(
  path: string,
  info: TunedLensInfo,
  translators: readonly Translator[],
): Promise<void> {
  const { model, hook, layers, fit } = info;
  const tensors: Record<string, TensorToWrite> = {};
  translators.forEach(({ matrix, bias }, i) => {
    const layer = layers[i] as number;
    if (matrix) tensors[nameOf(layer, 'matrix')] = { data: matrix, shape: [model.nEmbd, model.nEmbd] };
    if (bias) tensors[nameOf(layer, 'bias')] = { data: bias, shape: [model.nEmbd] };
  });
  await writeSafetensors(path, tensors, {
    format: FORMAT,
    model: JSON.stringify(model),
    hook,
    layers: JSON.stringify(layers),
    strengths: JSON.stringify(translators.map(({ strength }) => strength)),
    fit: JSON.stringify(fit),
  });
}

export async function readLensFile(
  path: string,
  model: ModelIdentity,
): Promise<{ info: TunedLensInfo; translators: Translator[] }> {
  await using file = await SafetensorsFile.open(path).catch((error: unknown) => {
    if (!(error instanceof XpatchError) || error.code !== 'SAFETENSORS_INVALID') throw error;
    throw new XpatchError('LENS_INVALID', error.message, { cause: error });
  });
  try {
    const { info, strengths } = readInfo(file);
    if (info.model.hash !== model.hash) {
      const problem = `${path} is a tuned lens for another model (${info.model.name}) than ${model.name}`;
      throw new XpatchError('LENS_MISMATCH', `${problem}. Fit one for this file with "xpatch tune".`);
    }
    const translators: Translator[] = [];
    for (const [i, strength] of strengths.entries()) {
      const layer = info.layers[i] as number;
      const read = async (part: 'matrix' | 'bias', shape: number[]) => {
        const name = nameOf(layer, part);
        const found = file.tensors.get(name)?.shape.join() ?? 'missing';
        if (found !== shape.join()) throw invalid(path, `tensor ${name} is ${found}, not ${shape.join()}`);
        return file.readFloat32(name);
      };
      const { nEmbd } = info.model;
      translators.push({
        strength,
        ...(typeof strength === 'number' && { matrix: await read('matrix', [nEmbd, nEmbd]) }),
        ...(strength !== 'plain' && { bias: await read('bias', [nEmbd]) }),
      });
    }
    return { info, translators };
  } catch (error) {
    // A tensor of integers, or a file that shrank meanwhile.
    if (!(error instanceof XpatchError) || error.code !== 'SAFETENSORS_INVALID') throw error;
    throw new XpatchError('LENS_INVALID', error.message, { cause: error });
  }
}

function readInfo(file: SafetensorsFile): { info: TunedLensInfo; strengths: LensStrength[] } {
  const { path, metadata } = file;
  const json = (key: string): unknown => {
    try {
      return JSON.parse(metadata[key] ?? '');
    } catch (cause) {
      throw invalid(path, `its metadata key ${key} is missing or not JSON`, cause);
    }
  };
  if (metadata.format !== FORMAT) throw invalid(path, `its format is ${metadata.format}, this version reads ${FORMAT}`);
  const hook = metadata.hook === 'resid_post' ? metadata.hook : undefined;
  const model = json('model');
  const layers = json('layers');
  const strengths = json('strengths');
  const fit = json('fit');
  const isStrength = (x: unknown): x is LensStrength => x === 'plain' || x === 'bias' || typeof x === 'number';
  if (
    hook !== undefined &&
    isRecord<ModelIdentity>(model, {
      hash: 'string',
      architecture: 'string',
      name: 'string',
      nEmbd: 'number',
      nLayers: 'number',
    }) &&
    isRecord<TunedLensInfo['fit']>(fit, {
      prompts: 'number',
      positions: 'number',
      validationPrompts: 'number',
      validationPositions: 'number',
      seed: 'number',
      promptsHash: 'string',
      xpatch: 'string',
    }) &&
    Array.isArray(layers) &&
    layers.every(Number.isSafeInteger) &&
    Array.isArray(strengths) &&
    strengths.every(isStrength) &&
    strengths.length === layers.length
  ) {
    return { info: { model, hook, layers, fit }, strengths };
  }
  throw invalid(path, 'its metadata does not say hook, model, layers, strengths and fit as a lens does');
}

function isRecord<T extends object>(value: unknown, types: { [K in keyof T]: 'string' | 'number' }): value is T {
  return (
    typeof value === 'object' &&
    value !== null &&
    Object.entries(types).every(([key, type]) => typeof (value as Record<string, unknown>)[key] === type)
  );
}

function invalid(path: string, problem: string, cause?: unknown): XpatchError {
  return new XpatchError(
    'LENS_INVALID',
    `${path} is not a usable tuned lens: ${problem}. Fit one with "xpatch tune".`,
    { cause },
  );
}
