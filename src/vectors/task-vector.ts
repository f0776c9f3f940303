import { isDeepStrictEqual } from 'node:util';
import { type HookName, type Intervention, STREAM_HOOKS } from '../hooks/types.js';
import { UNKNOWN_HASH } from '../model/capture-file.js';
import type { HiddenStates } from '../model/hidden-states.js';
import type { ModelIdentity } from '../model/types.js';
import type { PromptRecord } from '../prompt/prompt-record.js';
import { plural } from '../util/counted.js';
import { dot } from '../util/dot.js';
import { XpatchError } from '../util/errors.js';
import { Random } from '../util/random.js';
import { writeSafetensors } from '../util/safetensors.js';
import { isControlVector, writeControlVector } from './control-vector.js';
import { readVectorFile, VECTOR_FORMAT, VECTOR_TENSOR } from './vector-file.js';
import { type DirectionNumbering, isDirection, type TaskVectorInfo, type VectorOrigin } from './vector-origin.js';

/**
 * A task vector: the residual stream at one token of a prompt that specifies a task, one state per layer (Hendel, Geva and
 * Globerson, "In-Context Learning Creates Task Vectors", 2023; across modalities: Luo, Darrell and Bar, 2024).
 * Immutable: data are copied in and out, and arithmetic makes new vectors.
 *
 * @example
 * ```ts
 * const vector = await TaskVector.load('capital.safetensors');
 * const query = { prompt: 'Q:Peru\nA:' };
 * const [bare, patched] = await context.generate([query, { ...query, interventions: [vector.at(2)] }]);
 * ```
 */
export class TaskVector {
  readonly info: TaskVectorInfo;
  /** Numbers per layer: n_embd for the residual stream and what is added to it. */
  readonly width: number;
  readonly #data: Float32Array;

  /**
   * @param data row-major [layers, width], copied
   * @throws {XpatchError} VECTOR_INVALID if the size is wrong, layers do not rise within the model, or a number is NaN or infinite
   */
  constructor(info: TaskVectorInfo, data: ArrayLike<number>) {
    const { model, hook, layers, heads } = info;
    const width = STREAM_HOOKS.includes(hook) ? model.nEmbd : Math.floor(data.length / layers.length);
    const fits = layers.length > 0 && width > 0 && data.length === layers.length * width;
    if (!fits || (heads && width % heads.length)) {
      const problem = `${data.length} numbers do not make ${layers.length} layers of width ${width}`;
      throw new XpatchError(
        'VECTOR_INVALID',
        `Not a task vector: ${problem}. Give [layers, width] values, row by row.`,
      );
    }
    this.width = width;
    layers.forEach((layer, i) => {
      const rises = i === 0 || layer > (layers[i - 1] as number);
      if (!Number.isInteger(layer) || layer < 0 || layer >= model.nLayers || !rises) {
        const problem = `layers [${layers.join(', ')}] must rise within 0 to ${model.nLayers - 1}`;
        throw new XpatchError('VECTOR_INVALID', `Not a task vector of ${model.name}: ${problem}.`);
      }
    });
    this.#data = Float32Array.from(data);
    const bad = this.#data.findIndex((x) => !Number.isFinite(x));
    if (bad >= 0) {
      const place = `layer ${layers[Math.floor(bad / width)]}, dimension ${bad % width}`;
      const wayOut = 'Extract it again; if that repeats, the model overflows at this layer (try F32 or BF16 weights).';
      throw new XpatchError('VECTOR_INVALID', `A task vector has ${this.#data[bad]} at ${place}. ${wayOut}`);
    }
    this.info = deepFreeze(structuredClone(info));
  }

  /**
   * One vector from captured states.
   * @param states with exactly one position
   * @throws {XpatchError} VECTOR_INVALID
   */
  static fromStates(states: HiddenStates, info: Omit<TaskVectorInfo, 'hook' | 'layers' | 'heads'>): TaskVector {
    if (states.positions.length !== 1) {
      const problem = `${states.positions.length} positions were captured, but a task vector has one`;
      throw new XpatchError('VECTOR_INVALID', `Not a task vector: ${problem}. Capture only the read position.`);
    }
    return new TaskVector({ ...info, hook: states.hook, layers: states.layers, heads: states.heads }, states.data);
  }

  /**
   * Elementwise mean, summed in double precision. Vectors of the same task, spec, shots, seed, template and number of prompts become one
   * list of prompts in the origin.
   * @throws {XpatchError} INVALID_ARGUMENT for no vectors; VECTOR_MISMATCH when they differ in model, hook or layers
   */
  static mean(vectors: readonly TaskVector[]): TaskVector {
    const [first] = vectors;
    if (first === undefined)
      throw new XpatchError('INVALID_ARGUMENT', 'There are no vectors to average: give at least one.');
    const sum = new Float64Array(first.#data.length);
    for (const vector of vectors) {
      first.#requireSameShape(vector, true);
      for (let i = 0; i < sum.length; i++) sum[i] = (sum[i] as number) + (vector.#data[i] as number);
    }
    const data = sum.map((x) => x / vectors.length);
    const readPosition = commonReadPosition(vectors);
    return new TaskVector({ ...first.info, readPosition, origin: originOfMean(vectors) }, data);
  }

  /** @throws {XpatchError} VECTOR_MISMATCH when the vectors differ in model, hook or layers */
  add(other: TaskVector): TaskVector {
    return this.#combine(other, 'add', (a, b) => a + b);
  }

  /** @throws {XpatchError} VECTOR_MISMATCH when the vectors differ in model, hook or layers */
  subtract(other: TaskVector): TaskVector {
    return this.#combine(other, 'subtract', (a, b) => a - b);
  }

  /** @throws {XpatchError} VECTOR_INVALID when a result is not finite */
  scale(factor: number): TaskVector {
    const origin: VectorOrigin = { op: 'scale', factor, of: [this.info.origin] };
    return new TaskVector(
      { ...this.info, origin },
      this.#data.map((x) => x * factor),
    );
  }

  /**
   * Cosine similarity with another vector, layer by layer, in the order of `info.layers`. The other may come from
   * another model of equal width and layers. NaN if either is all zeros.
   * @throws {XpatchError} VECTOR_MISMATCH when width, hook or layers differ
   */
  cosine(other: TaskVector): number[] {
    this.#requireSameShape(other, false);
    return this.info.layers.map((_, row) => {
      const a = this.#row(row);
      const b = other.#row(row);
      return dot(a, b) / (Math.sqrt(dot(a, a)) * Math.sqrt(dot(b, b)));
    });
  }

  /** L2 norm of every layer, in the order of `info.layers`. */
  norms(): number[] {
    return this.info.layers.map((_, row) => Math.sqrt(dot(this.#row(row), this.#row(row))));
  }

  /** A control: seeded Gaussian directions, each layer scaled to the L2 norm it has here. */
  normMatchedRandom(seed: number): TaskVector {
    const norms = this.norms();
    const { width } = this;
    const data = new Float64Array(this.#data.length);
    this.info.layers.forEach((layer, row) => {
      // One stream per layer: the noise at a layer does not depend on which others the vector has.
      const random = new Random(seed, 'norm-matched', layer);
      const noise = Float64Array.from({ length: width }, () => random.gaussian());
      const factor = (norms[row] as number) / Math.sqrt(dot(noise, noise));
      data.set(
        noise.map((x) => x * factor),
        row * width,
      );
    });
    return new TaskVector({ ...this.info, origin: { op: 'random', seed, of: [this.info.origin] } }, data);
  }

  /**
   * A control: the state of another layer at every layer. Row i gets the state of row i - `by`, counted round the ends.
   * @throws {XpatchError} INVALID_ARGUMENT if `by` is not a whole number from 0
   */
  rollLayers(by: number): TaskVector {
    if (!Number.isSafeInteger(by) || by < 0) {
      throw new XpatchError('INVALID_ARGUMENT', `Layers are rolled by a whole number from 0, not ${String(by)}.`);
    }
    const data = new Float32Array(this.#data.length);
    const n = this.info.layers.length;
    for (let row = 0; row < n; row++) data.set(this.#row(row), ((row + by) % n) * this.width);
    return new TaskVector({ ...this.info, origin: { op: 'roll', by, of: [this.info.origin] } }, data);
  }

  /** Copy of all numbers, row-major [layers, width]. */
  toArray(): Float32Array {
    return this.#data.slice();
  }

  /**
   * Copy of the state of one layer, [width].
   * @param layer 0-based
   * @throws {XpatchError} LAYER_OUT_OF_RANGE when the vector does not have it
   */
  state(layer: number): Float32Array {
    const row = this.info.layers.indexOf(layer);
    if (row < 0) {
      const wayOut = `It has ${formatLayers(this.info.layers)}; choose one of them or extract it again.`;
      throw new XpatchError('LAYER_OUT_OF_RANGE', `The task vector has no layer ${String(layer)}. ${wayOut}`);
    }
    return this.#row(row).slice();
  }

  /**
   * Whether this vector may be written into a model. Another model of equal width is allowed (that is how a language
   * model's vector goes into a vision-language model); record what this returns.
   * @returns `same` when it was read from this very file, else `foreign`
   * @throws {XpatchError} VECTOR_MISMATCH when the widths differ
   */
  requireCompatible(model: ModelIdentity): 'same' | 'foreign' {
    const own = this.info.model;
    if (own.nEmbd !== model.nEmbd) {
      const problem = `of width ${own.nEmbd} (${own.name}) does not fit ${model.name} of width ${model.nEmbd}`;
      const wayOut = 'Extract it from this model, or from one of equal width.';
      throw new XpatchError('VECTOR_MISMATCH', `A task vector ${problem}. ${wayOut}`);
    }
    return own.hash !== UNKNOWN_HASH && own.hash === model.hash ? 'same' : 'foreign';
  }

  /**
   * The intervention that patches this vector in: its state of a layer, written at the same layer.
   * @param layers blocks: one, or a list, each with its own state
   * @param options.heads which of its heads to write, at a hook that has heads. Defaults to those that it has
   * @param options.op Defaults to `this.op`
   * @param options.positions where in the prompt. Defaults to `last`
   * @param options.steps Defaults to `prompt`
   * @param options.strength factor on the vector. Defaults to 1
   * @throws {XpatchError} LAYER_OUT_OF_RANGE when the vector does not have a layer, INTERVENTION_INVALID for another operation
   */
  at(
    layers: number | readonly number[],
    options: { op?: 'replace' | 'add'; strength?: number } & Pick<Intervention, 'heads' | 'positions' | 'steps'> = {},
  ): Intervention {
    const { op = this.op, positions = 'last', steps = 'prompt', strength = 1 } = options;
    if (op !== 'replace' && op !== 'add') {
      throw new XpatchError('INTERVENTION_INVALID', `A vector is patched in with the op replace or add, not ${op}.`);
    }
    const heads = options.heads ?? this.info.heads;
    const scaled = (layer: number) => this.#select(this.state(layer), heads).map((x) => x * strength);
    const value = typeof layers === 'number' ? scaled(layers) : layers.map(scaled);
    return { hook: this.info.hook, layers, ...(heads && { heads }), positions, steps, op, value };
  }

  /** What `at` does with this vector unless told otherwise: a steering or control vector is added, a state replaces another. */
  get op(): 'replace' | 'add' {
    return isDirection(this.info.origin) ? 'add' : 'replace';
  }

  /**
   * Saves as safetensors: tensor `task_vector` F32 [layers, width], everything else as text or JSON in the metadata (keys
   * `format`, `model`, `hook`, `layers`, `read_position`, `origin`). A path that ends in `.gguf` gets a control vector, as llama.cpp
   * and repeng read it: `direction.N` for the output of block N, without block 0 and without the origin.
   * @throws {XpatchError} FILE_WRITE; VECTOR_INVALID for a control vector of layer 0 alone, or of another point than `resid_post`
   */
  async save(path: string): Promise<void> {
    const { hook, layers, heads, model, readPosition, origin } = this.info;
    if (isControlVector(path)) return writeControlVector(path, this.info, this.#data);
    const shape = [layers.length, this.width];
    await writeSafetensors(
      path,
      { [VECTOR_TENSOR]: { data: this.#data, shape } },
      {
        format: VECTOR_FORMAT,
        model: JSON.stringify(model),
        hook,
        layers: JSON.stringify(layers),
        ...(heads && { heads: JSON.stringify(heads) }),
        read_position: readPosition,
        origin: JSON.stringify(origin),
      },
    );
  }

  /**
   * Loads a saved vector, a file made by `xpatch capture`, or a control vector (`.gguf`) of llama.cpp or repeng.
   * @param options.position for a capture of several positions: which one, by its index in the prompt
   * @param options.hook for a capture of several points: which one
   * @param options.numbering for a control vector: which block `direction.N` belongs to. The file does not say it. Defaults to
   *   `applied`: block N, as llama.cpp applies every such file
   * @throws {XpatchError} FILE_NOT_FOUND; VECTOR_INVALID for anything else, for a damaged file, or leaves the position open
   */
  static async load(
    path: string,
    options: { position?: number; hook?: HookName; numbering?: DirectionNumbering } = {},
  ): Promise<TaskVector> {
    const { info, data } = await readVectorFile(path, options);
    return new TaskVector(info, data);
  }

  #row(row: number): Float32Array {
    const { width } = this;
    return this.#data.subarray(row * width, (row + 1) * width);
  }

  /** Some heads of a state, side by side. */
  #select(state: Float32Array, wanted: readonly number[] | undefined): Float32Array {
    const { heads, hook } = this.info;
    if (!wanted) return state;
    const missing = wanted.find((head) => !heads?.includes(head));
    if (missing !== undefined || !heads) {
      const has = heads ? `it has heads ${heads.join(', ')} of '${hook}'` : `'${hook}' is not made of heads`;
      throw new XpatchError('HEAD_OUT_OF_RANGE', `The vector has no head ${missing}: ${has}.`);
    }
    const size = this.width / heads.length;
    const parts = wanted.map((head) => state.subarray(heads.indexOf(head) * size, (heads.indexOf(head) + 1) * size));
    return Float32Array.from(parts.flatMap((part) => [...part]));
  }

  #combine(other: TaskVector, op: 'add' | 'subtract', apply: (a: number, b: number) => number): TaskVector {
    this.#requireSameShape(other, true);
    const origin: VectorOrigin = { op, of: [this.info.origin, other.info.origin] };
    const readPosition = commonReadPosition([this, other]);
    return new TaskVector(
      { ...this.info, readPosition, origin },
      this.#data.map((x, i) => apply(x, other.#data[i] as number)),
    );
  }

  #requireSameShape(other: TaskVector, sameModel: boolean): void {
    const a = this.info;
    const b = other.info;
    let problem: string | undefined;
    if (this.width !== other.width) problem = `widths ${this.width} and ${other.width}`;
    else if (a.heads?.join() !== b.heads?.join()) problem = `heads ${a.heads} and ${b.heads}`;
    else if (a.hook !== b.hook) problem = `hooks ${a.hook} and ${b.hook}`;
    else if (a.layers.join() !== b.layers.join()) problem = `${formatLayers(a.layers)} and ${formatLayers(b.layers)}`;
    else if (sameModel && a.model.hash !== b.model.hash) problem = `models ${a.model.name} and ${b.model.name}`;
    if (problem === undefined) return;
    throw new XpatchError(
      'VECTOR_MISMATCH',
      `Two task vectors do not fit together: ${problem}. Use vectors that agree.`,
    );
  }
}

function originOfMean(vectors: readonly TaskVector[]): VectorOrigin {
  const origins = vectors.map((vector) => vector.info.origin);
  const [first] = origins;
  if (first === undefined || first.op !== 'prompts') return { op: 'mean', of: origins };
  const prompts: PromptRecord[] = [];
  for (const origin of origins) {
    // Unequal counts would weight prompts differently from one mean over all of them.
    const alike =
      origin.op === 'prompts' &&
      origin.task === first.task &&
      origin.spec === first.spec &&
      origin.shots === first.shots &&
      origin.seed === first.seed &&
      isDeepStrictEqual(origin.template, first.template) &&
      origin.prompts.length === first.prompts.length;
    if (!alike) return { op: 'mean', of: origins };
    prompts.push(...origin.prompts);
  }
  return { ...first, prompts };
}

function commonReadPosition(vectors: readonly TaskVector[]): string {
  return [...new Set(vectors.map((vector) => vector.info.readPosition))].join('+');
}

function formatLayers(layers: readonly number[]): string {
  return `${plural(layers.length, 'layer')} ${layers.join(', ')}`;
}

function deepFreeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null) Object.values(value).forEach(deepFreeze);
  return Object.freeze(value);
}
