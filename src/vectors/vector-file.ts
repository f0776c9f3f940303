import { type HiddenStates, HOOKS, type HookName, type ModelIdentity } from '../model/types.js';
import type { PromptRecord } from '../prompt/prompt-record.js';
import { XpatchError } from '../util/errors.js';
import { SafetensorsFile, writeSafetensors } from './safetensors.js';
import type { TaskVectorInfo, VectorOrigin } from './vector-origin.js';

export const VECTOR_TENSOR = 'task_vector';
export const VECTOR_FORMAT = 'xpatch.task-vector/1';
const CAPTURE_FORMAT = 'xpatch.capture/1';

/** The hash of a model nobody named: a capture that carries no model counts as foreign everywhere. */
export const UNKNOWN_HASH = '';

/**
 * Saves captured states as safetensors: a tensor named after the hook, F32 [layers, positions, n_embd], and in the metadata
 * JSON `layers`, `positions` (indices in the expanded prompt), `tokens` (their ids, -1 = image row), `model` and, when
 * given, `prompt`.
 * @throws {XpatchError} FILE_WRITE
 */
export async function saveCapture(
  path: string,
  states: HiddenStates,
  made: { model: ModelIdentity; prompt?: PromptRecord },
): Promise<void> {
  const metadata: Record<string, string> = {
    format: CAPTURE_FORMAT,
    hook: states.hook,
    layers: JSON.stringify(states.layers),
    positions: JSON.stringify(states.positions),
    tokens: JSON.stringify(states.tokens),
    model: JSON.stringify(made.model),
  };
  if (made.prompt !== undefined) metadata.prompt = JSON.stringify(made.prompt);
  await writeSafetensors(path, { [states.hook]: { data: states.data, shape: states.shape } }, metadata);
}

/** What `TaskVector.load` reads: a saved vector, or one position of a capture. */
export async function readVectorFile(
  path: string,
  position: number | undefined,
): Promise<{ info: TaskVectorInfo; data: Float32Array }> {
  let file: SafetensorsFile;
  try {
    file = await SafetensorsFile.open(path);
  } catch (error) {
    // A caller who asked for a vector switches on VECTOR_INVALID, whatever layer of the file is broken.
    if (error instanceof XpatchError && error.code === 'SAFETENSORS_INVALID') {
      throw new XpatchError('VECTOR_INVALID', error.message, { cause: error });
    }
    throw error;
  }
  try {
    if (file.tensors.has(VECTOR_TENSOR)) return await readVector(new Fields(file), position);
    if (HOOKS.some((hook) => file.tensors.has(hook))) return await readCapture(new Fields(file), position);
    const names = [...file.tensors.keys()].slice(0, 5).join(', ') || 'none';
    throw invalid(path, `it has neither a tensor ${VECTOR_TENSOR} nor ${HOOKS.join(', ')} (its tensors: ${names})`);
  } finally {
    await file.close();
  }
}

async function readVector(fields: Fields, position: number | undefined) {
  if (position !== undefined) {
    throw invalid(
      fields.path,
      `it is a single vector, so position ${position} cannot be chosen`,
      'Leave the position out.',
    );
  }
  const format = fields.text('format');
  if (format !== VECTOR_FORMAT)
    throw invalid(fields.path, `its format is ${format}, this version reads ${VECTOR_FORMAT}`);
  const model = fields.model();
  const layers = fields.counts('layers');
  fields.requireShape(VECTOR_TENSOR, [layers.length, model.nEmbd]);
  const info = {
    model,
    hook: fields.hook(),
    layers,
    readPosition: fields.text('read_position'),
    origin: fields.origin(),
  };
  return { info, data: await fields.file.readFloat32(VECTOR_TENSOR) };
}

async function readCapture(fields: Fields, position: number | undefined) {
  const hook = HOOKS.find((name) => fields.file.tensors.has(name)) as HookName;
  const layers = fields.counts('layers');
  const positions = fields.counts('positions');
  const tokens = fields.integers('tokens');
  const nEmbd = fields.file.tensors.get(hook)?.shape[2] ?? 0;
  fields.requireShape(hook, [layers.length, positions.length, nEmbd]);
  if (tokens.length !== positions.length) {
    throw invalid(fields.path, `its metadata names ${positions.length} positions but ${tokens.length} tokens`);
  }
  const model = fields.has('model') ? fields.model() : unknownModel(layers, nEmbd);
  if (model.nEmbd !== nEmbd) throw invalid(fields.path, `its states are ${nEmbd} wide, its model ${model.nEmbd}`);
  const index = position === undefined && positions.length === 1 ? 0 : positions.indexOf(position ?? -1);
  if (index < 0) {
    const problem =
      position === undefined
        ? `it is a capture of ${positions.length} positions, and a vector has one`
        : `it is a capture without position ${position}`;
    throw invalid(fields.path, problem, `Name one of its positions: ${summarise(positions)}.`);
  }
  const states = await fields.file.readFloat32(hook);
  const data = new Float32Array(layers.length * nEmbd);
  layers.forEach((_, row) => {
    const start = (row * positions.length + index) * nEmbd;
    data.set(states.subarray(start, start + nEmbd), row * nEmbd);
  });
  const origin = { op: 'capture', position: positions[index] as number, token: tokens[index] as number } as const;
  return { info: { model, hook, layers, readPosition: 'position', origin }, data };
}

function unknownModel(layers: readonly number[], nEmbd: number): ModelIdentity {
  return { hash: UNKNOWN_HASH, architecture: 'unknown', name: 'unknown', nEmbd, nLayers: Math.max(0, ...layers) + 1 };
}

function summarise(positions: readonly number[]): string {
  const shown = positions.slice(0, 10).join(', ');
  return positions.length > 10 ? `${shown}, … (${positions.length})` : shown;
}

function invalid(path: string, problem: string, wayOut?: string, cause?: unknown): XpatchError {
  const advice = wayOut ?? 'Make one with "xpatch extract" or "xpatch capture".';
  return new XpatchError('VECTOR_INVALID', `${path} is not a usable task vector: ${problem}. ${advice}`, { cause });
}

const isCount = (x: unknown): x is number => Number.isSafeInteger(x) && (x as number) >= 0;
const isText = (x: unknown): x is string => typeof x === 'string';

/** Checked access to the metadata of one file. */
class Fields {
  constructor(readonly file: SafetensorsFile) {}

  get path(): string {
    return this.file.path;
  }

  has(key: string): boolean {
    return Object.hasOwn(this.file.metadata, key);
  }

  text(key: string): string {
    if (!this.has(key)) throw invalid(this.path, `its metadata has no key ${key}`);
    return this.file.metadata[key] as string;
  }

  counts(key: string): number[] {
    const value = this.#json(key);
    if (Array.isArray(value) && value.every(isCount)) return value;
    throw invalid(this.path, `its metadata key ${key} is not a list of counts`);
  }

  integers(key: string): number[] {
    const value = this.#json(key);
    if (Array.isArray(value) && value.every(Number.isSafeInteger)) return value;
    throw invalid(this.path, `its metadata key ${key} is not a list of integers`);
  }

  hook(): HookName {
    const hook = HOOKS.find((name) => name === this.text('hook'));
    if (hook === undefined) throw invalid(this.path, `its hook is ${this.text('hook')}; known: ${HOOKS.join(', ')}`);
    return hook;
  }

  model(): ModelIdentity {
    const value = this.#json('model') as Partial<ModelIdentity> | null;
    const { hash, architecture, name, nEmbd, nLayers } = value ?? {};
    if (isText(hash) && isText(architecture) && isText(name) && isCount(nEmbd) && isCount(nLayers)) {
      return { hash, architecture, name, nEmbd, nLayers };
    }
    throw invalid(this.path, 'its metadata key model lacks hash, architecture, name, nEmbd or nLayers');
  }

  origin(): VectorOrigin {
    const value = this.#json('origin');
    if (isOrigin(value, 0)) return value;
    throw invalid(this.path, 'its metadata key origin does not say how the vector was made');
  }

  requireShape(tensor: string, shape: readonly number[]): void {
    const found = this.file.tensors.get(tensor)?.shape ?? [];
    if (found.join() === shape.join()) return;
    throw invalid(this.path, `tensor ${tensor} is [${found.join(', ')}], but its metadata says [${shape.join(', ')}]`);
  }

  #json(key: string): unknown {
    const text = this.text(key);
    try {
      return JSON.parse(text);
    } catch (cause) {
      throw invalid(this.path, `its metadata key ${key} is not JSON`, undefined, cause);
    }
  }
}

/** Arithmetic on arithmetic; nobody nests it deeper than this, and a hostile file must not exhaust the stack. */
const MAX_ORIGIN_DEPTH = 500;

function isOrigin(value: unknown, depth: number): value is VectorOrigin {
  if (typeof value !== 'object' || value === null || depth > MAX_ORIGIN_DEPTH) return false;
  const { op, of, ...rest } = value as Record<string, unknown>;
  const parents =
    Array.isArray(of) && of.length > 0 && of.every((origin) => isOrigin(origin, depth + 1)) ? of.length : 0;
  switch (op) {
    case 'prompts':
      return (
        isText(rest.task) &&
        ['text', 'image', 'instruction'].includes(rest.spec as string) &&
        isCount(rest.shots) &&
        isCount(rest.seed) &&
        Array.isArray(rest.prompts) &&
        rest.prompts.every(isPromptRecord)
      );
    case 'capture':
      return isCount(rest.position) && Number.isSafeInteger(rest.token);
    case 'mean':
      return parents > 0;
    case 'add':
    case 'subtract':
      return parents === 2;
    case 'scale':
      return parents === 1 && Number.isFinite(rest.factor);
    case 'random':
      return parents === 1 && isCount(rest.seed);
    case 'roll':
      return parents === 1 && isCount(rest.by);
    default:
      return false;
  }
}

function isPromptRecord(value: unknown): value is PromptRecord {
  if (typeof value !== 'object' || value === null) return false;
  const { text, images = [], tokens } = value as Record<string, unknown>;
  return (
    isText(text) &&
    Array.isArray(images) &&
    images.every(isText) &&
    Array.isArray(tokens) &&
    tokens.every(Number.isSafeInteger)
  );
}
