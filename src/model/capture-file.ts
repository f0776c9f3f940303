import { HOOKS, type HookName, STREAM_HOOKS } from '../hooks/types.js';
import type { PromptRecord } from '../prompt/prompt-record.js';
import { XpatchError, type XpatchErrorCode } from '../util/errors.js';
import { largest } from '../util/extremes.js';
import { SafetensorsFile, writeSafetensors } from '../util/safetensors.js';
import type { HiddenStatesInfo, ModelIdentity } from './types.js';

const CAPTURE_FORMAT = 'xpatch.capture/1';

/** The hash of an unnamed model: a capture that records no model counts as foreign everywhere. */
export const UNKNOWN_HASH = '';

/** What `HiddenStates.save` writes. @throws {XpatchError} FILE_WRITE */
export async function writeCapture(
  path: string,
  captures: readonly (HiddenStatesInfo & { data: Float32Array; shape: readonly number[] })[],
): Promise<void> {
  const [first, ...others] = captures as [(typeof captures)[0], ...typeof captures];
  const { hook, layers, heads, positions, tokens, marks, model, prompt } = first;
  const hooks = captures.map((capture) => capture.hook);
  // Not as text: a million positions make long ones.
  const differ = (a: readonly number[], b: readonly number[]) => a.length !== b.length || a.some((x, i) => x !== b[i]);
  if (
    new Set(hooks).size < hooks.length ||
    others.some((other) => differ(other.positions, positions) || differ(other.tokens, tokens))
  ) {
    const problem = `A file holds states of different points at the same positions of one prompt, not ${hooks.join(', ')} as given`;
    throw new XpatchError('INVALID_ARGUMENT', `${problem}. Write several files.`);
  }
  const own = captures.map((capture) => [capture.hook, { layers: capture.layers, heads: capture.heads }]);
  const metadata: Record<string, string> = {
    format: CAPTURE_FORMAT,
    hook,
    layers: JSON.stringify(layers),
    ...(heads && { heads: JSON.stringify(heads) }),
    ...(captures.length > 1 && { hooks: JSON.stringify(Object.fromEntries(own)) }),
    positions: JSON.stringify(positions),
    tokens: JSON.stringify(tokens),
    marks: JSON.stringify(marks ?? {}),
    model: JSON.stringify(model),
  };
  if (prompt !== undefined) metadata.prompt = JSON.stringify(prompt);
  const tensors = captures.map((capture) => [capture.hook, { data: capture.data, shape: capture.shape }]);
  await writeSafetensors(path, Object.fromEntries(tensors), metadata);
}

/** What `HiddenStates.load` reads. @throws {XpatchError} FILE_NOT_FOUND, CAPTURE_INVALID */
export async function readCapture(
  path: string,
  hook?: HookName,
): Promise<{ info: HiddenStatesInfo; data: Float32Array }> {
  await using fields = await Fields.open(path, 'CAPTURE_INVALID');
  if (HOOKS.some((hook) => fields.file.tensors.has(hook))) return await readStates(fields, hook);
  const names = [...fields.file.tensors.keys()].slice(0, 5).join(', ') || 'none';
  throw fields.invalid(`it has no tensor named ${HOOKS.join(' or ')} (its tensors: ${names})`);
}

/** The states of an open capture. */
export async function readStates(
  fields: Fields,
  wanted?: HookName,
): Promise<{ info: HiddenStatesInfo; data: Float32Array }> {
  const { hook, layers, heads } = readPlace(fields, wanted);
  const positions = fields.counts('positions');
  const tokens = fields.integers('tokens');
  const width = fields.file.tensors.get(hook)?.shape[2] ?? 0;
  fields.requireShape(hook, [layers.length, positions.length, width]);
  if (tokens.length !== positions.length) {
    throw fields.invalid(`its metadata names ${positions.length} positions but ${tokens.length} tokens`);
  }
  if (layers.length === 0 || positions.length === 0 || width === 0) throw fields.invalid('it holds no states');
  if (heads && (heads.length === 0 || width % heads.length)) {
    throw fields.invalid(`its states are ${width} wide and have ${heads.length} heads`);
  }
  const model = fields.has('model') ? fields.model() : unknownModel(layers, width);
  if (STREAM_HOOKS.includes(hook) && model.nEmbd !== width) {
    throw fields.invalid(`its states are ${width} wide, its model is ${model.nEmbd} wide`);
  }
  const marks = fields.has('marks') ? fields.marks() : {};
  const prompt = fields.has('prompt') ? fields.prompt() : undefined;
  const info = { hook, layers, heads, positions, tokens, marks, model, prompt };
  return { info, data: await fields.file.readFloat32(hook) };
}

/** Which point is read, and of which layers and heads. */
function readPlace(fields: Fields, wanted?: HookName): Pick<HiddenStatesInfo, 'hook' | 'layers' | 'heads'> {
  const there = HOOKS.filter((name) => fields.file.tensors.has(name));
  const hook = wanted ?? (there.length === 1 ? there[0] : undefined);
  if (hook === undefined) throw fields.invalid(`it holds ${there.join(' and ')}`, 'Name one of them with --hook.');
  if (!there.includes(hook)) {
    throw fields.invalid(`it holds ${there.join(' and ')}, not ${hook}`, 'Name the hook where it was read (--hook).');
  }
  if (there.length === 1) {
    const heads = fields.has('heads') ? fields.counts('heads') : undefined;
    return { hook, layers: fields.counts('layers'), heads };
  }
  const { layers, heads } =
    ((fields.json('hooks') ?? {}) as Record<string, { layers: unknown; heads: unknown }>)[hook] ?? {};
  if (isCounts(layers) && (heads === undefined || isCounts(heads))) return { hook, layers, heads };
  throw fields.invalid(`its metadata key hooks does not say which layers ${hook} was read at`);
}

function unknownModel(layers: readonly number[], nEmbd: number): ModelIdentity {
  return {
    hash: UNKNOWN_HASH,
    architecture: 'unknown',
    name: 'unknown',
    nEmbd,
    nLayers: Math.max(0, largest(layers)) + 1,
  };
}

const isCounts = (x: unknown): x is number[] => Array.isArray(x) && x.every(isCount);
export const isCount = (x: unknown): x is number => Number.isSafeInteger(x) && (x as number) >= 0;
export const isText = (x: unknown): x is string => typeof x === 'string';

export function isPromptRecord(value: unknown): value is PromptRecord {
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

/** Checked access to the metadata of one file of states. */
export class Fields {
  private constructor(
    readonly file: SafetensorsFile,
    private readonly code: XpatchErrorCode,
  ) {}

  /** @param code of the error for anything that is damaged: a caller switches on it, whatever layer of the file is broken */
  static async open(path: string, code: 'CAPTURE_INVALID' | 'VECTOR_INVALID'): Promise<Fields> {
    try {
      return new Fields(await SafetensorsFile.open(path), code);
    } catch (error) {
      if (!(error instanceof XpatchError && error.code === 'SAFETENSORS_INVALID')) throw error;
      throw new XpatchError(code, error.message, { cause: error });
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.file.close();
  }

  get path(): string {
    return this.file.path;
  }

  invalid(problem: string, wayOut?: string, cause?: unknown): XpatchError {
    const wanted = this.code === 'VECTOR_INVALID' ? 'task vector' : 'capture';
    const advice = wayOut ?? 'Make one with "xpatch extract" or "xpatch capture".';
    return new XpatchError(this.code, `${this.path} is not a usable ${wanted}: ${problem}. ${advice}`, { cause });
  }

  has(key: string): boolean {
    return Object.hasOwn(this.file.metadata, key);
  }

  text(key: string): string {
    if (!this.has(key)) throw this.invalid(`its metadata has no key ${key}`);
    return this.file.metadata[key] as string;
  }

  counts(key: string): number[] {
    const value = this.json(key);
    if (Array.isArray(value) && value.every(isCount)) return value;
    throw this.invalid(`its metadata key ${key} is not a list of counts`);
  }

  integers(key: string): number[] {
    const value = this.json(key);
    if (Array.isArray(value) && value.every(Number.isSafeInteger)) return value;
    throw this.invalid(`its metadata key ${key} is not a list of integers`);
  }

  hook(): HookName {
    const hook = HOOKS.find((name) => name === this.text('hook'));
    if (hook === undefined) throw this.invalid(`its hook is ${this.text('hook')}; known: ${HOOKS.join(', ')}`);
    return hook;
  }

  model(): ModelIdentity {
    const value = this.json('model') as Partial<ModelIdentity> | null;
    const { hash, architecture, name, nEmbd, nLayers } = value ?? {};
    if (isText(hash) && isText(architecture) && isText(name) && isCount(nEmbd) && isCount(nLayers)) {
      return { hash, architecture, name, nEmbd, nLayers };
    }
    throw this.invalid('its metadata key model lacks hash, architecture, name, nEmbd or nLayers');
  }

  prompt(): PromptRecord {
    const value = this.json('prompt');
    if (isPromptRecord(value)) return value;
    throw this.invalid('its metadata key prompt is not a prompt');
  }

  marks(): Record<string, number> {
    const value = this.json('marks');
    if (typeof value === 'object' && value !== null && Object.values(value).every(isCount)) {
      return value as Record<string, number>;
    }
    throw this.invalid('its metadata key marks does not name positions');
  }

  requireShape(tensor: string, shape: readonly number[]): void {
    const found = this.file.tensors.get(tensor)?.shape ?? [];
    if (found.join() === shape.join()) return;
    throw this.invalid(`tensor ${tensor} is [${found.join(', ')}], but its metadata says [${shape.join(', ')}]`);
  }

  json(key: string): unknown {
    const text = this.text(key);
    try {
      return JSON.parse(text);
    } catch (cause) {
      throw this.invalid(`its metadata key ${key} is not JSON`, undefined, cause);
    }
  }
}
