import { ATTENTION_HOOKS, type HookName, type LayerSelection, STREAM_HOOKS } from '../hooks/types.js';
import type { PromptRecord } from '../prompt/prompt-record.js';
import type { PositionRef } from '../prompt/types.js';
import { counted, plural } from '../util/counted.js';
import { dot } from '../util/dot.js';
import { XpatchError } from '../util/errors.js';
import { readCapture, writeCapture } from './capture-file.js';
import type { HiddenStatesInfo, ModelIdentity } from './types.js';

/** Which part of the states to select; what is left out stays whole. */
export interface StatesSelection {
  layers?: LayerSelection;
  /** Positions in the prompt, or marks. */
  positions?: readonly PositionRef[];
}

/**
 * Hidden states of one prompt, read at one hook: layers x positions x width. At points with heads a state holds them side by
 * side: `axes` says what its numbers are, `head` gives one. They know where they were read, so nobody
 * counts offsets: `states.at(3, 'delimiter')`.
 *
 * @example
 * ```ts
 * const { states } = await context.run({ prompt: ['Q:Peru\nA:', mark('delimiter')], capture: 'all' });
 * const state = states.at(3, 'delimiter');                 // Float32Array of the model's width
 * const late = states.select({ layers: [5, 6] });          // the same class, fewer layers
 * await states.save('peru.safetensors');
 * ```
 */
export class HiddenStates {
  readonly hook: HookName;
  readonly layers: readonly number[];
  readonly positions: readonly number[];
  readonly tokens: readonly number[];
  readonly marks: Readonly<Record<string, number>>;
  readonly model: ModelIdentity;
  readonly prompt: PromptRecord | undefined;
  /** Heads that each state is made of, side by side; undefined at points without heads. */
  readonly heads: readonly number[] | undefined;
  /** Sizes of `data`, row by row. `width` is n_embd for the residual stream and what is added to it. */
  readonly shape: readonly [layers: number, positions: number, width: number];

  /**
   * @param data [layers, positions, width], row by row; not copied
   * @throws {XpatchError} INVALID_ARGUMENT if the sizes do not agree
   */
  constructor(
    info: HiddenStatesInfo,
    readonly data: Float32Array,
  ) {
    const { hook, layers, heads, positions, tokens, marks = {}, model, prompt } = info;
    if (layers.length === 0 || positions.length === 0 || tokens.length !== positions.length) {
      const found = `${layers.length} layers, ${positions.length} positions and ${tokens.length} tokens`;
      throw new XpatchError('INVALID_ARGUMENT', `Not hidden states: they have ${found}. Give at least one of each.`);
    }
    const rows = layers.length * positions.length;
    const width = STREAM_HOOKS.includes(hook) ? model.nEmbd : Math.floor(data.length / rows);
    if (width === 0 || data.length !== rows * width || (heads && width % heads.length !== 0)) {
      const size = STREAM_HOOKS.includes(hook) ? `width ${width}` : 'one width';
      const wanted = `${layers.length} layers of ${positions.length} positions and ${size}`;
      throw new XpatchError('INVALID_ARGUMENT', `Not hidden states: ${data.length} numbers do not make ${wanted}.`);
    }
    this.hook = hook;
    this.layers = [...layers];
    this.heads = heads && [...heads];
    this.positions = [...positions];
    this.tokens = [...tokens];
    this.marks = { ...marks };
    this.model = model;
    this.prompt = prompt;
    this.shape = [layers.length, positions.length, width];
  }

  /**
   * The state of one layer at one position, [width]: a view of `data`, not a copy.
   *
   * @param layer 0-based
   * @param position index in the prompt, a mark, or `last` for the last position that was read. Defaults to the only one
   * @throws {XpatchError} LAYER_OUT_OF_RANGE, POSITION_OUT_OF_RANGE for what was not read; INVALID_ARGUMENT when several
   *   positions were read and none is named
   */
  at(layer: number, position?: PositionRef): Float32Array {
    if (position === undefined && this.positions.length > 1) {
      const wayOut = `Name one of them: states.at(${layer}, ${this.positions[0]}).`;
      throw new XpatchError('INVALID_ARGUMENT', `The states have ${this.positions.length} positions. ${wayOut}`);
    }
    return this.row(this.layerIndex(layer), position === undefined ? 0 : this.positionIndex(position));
  }

  /** What the numbers of a state are, from the outside in: `['head', 'dimension']` for `z`, `['neuron']` for `mlp_post`. */
  get axes(): readonly string[] {
    if (ATTENTION_HOOKS.includes(this.hook)) return ['head', 'position'];
    if (this.heads) return ['head', 'dimension'];
    if (this.hook === 'mlp_post') return ['neuron'];
    return this.hook === 'router' ? ['expert'] : ['dimension'];
  }

  /**
   * One head's part of a state: a view of `data`, not a copy. For `z`, `q`, `k` and `v` its numbers; for `pattern` and `attn_scores`
   * one number for each position of the prompt.
   *
   * @param head as the model counts them, from 0
   * @throws {XpatchError} HEAD_OUT_OF_RANGE for a head that was not read, HOOK_UNSUPPORTED at a point without heads; else as `at`
   */
  head(layer: number, head: number, position?: PositionRef): Float32Array {
    const { heads, hook } = this;
    if (!heads)
      throw new XpatchError('HOOK_UNSUPPORTED', `States of '${hook}' are not made of heads. Read them with at().`);
    const index = heads.indexOf(head);
    if (index < 0) {
      throw new XpatchError('HEAD_OUT_OF_RANGE', `The states have no head ${head}; they have ${heads.join(', ')}.`);
    }
    const state = this.at(layer, position);
    const size = state.length / heads.length;
    return state.subarray(index * size, (index + 1) * size);
  }

  /** The state at indices of the two axes, not layer and position numbers: a view. @internal */
  row(l: number, p: number): Float32Array {
    const [, nPositions, width] = this.shape;
    const from = (l * nPositions + p) * width;
    return this.data.subarray(from, from + width);
  }

  /**
   * A copy of some layers and positions, in the order given.
   *
   * @throws {XpatchError} LAYER_OUT_OF_RANGE, POSITION_OUT_OF_RANGE
   */
  select({ layers = 'all', positions }: StatesSelection): HiddenStates {
    const ls = layers === 'all' ? [...this.layers.keys()] : layers.map((layer) => this.layerIndex(layer));
    const ps = positions ? positions.map((ref) => this.positionIndex(ref)) : [...this.positions.keys()];
    const data = new Float32Array(ls.length * ps.length * this.shape[2]);
    ls.forEach((l, i) => {
      ps.forEach((p, j) => void data.set(this.row(l, p), (i * ps.length + j) * this.shape[2]));
    });
    const info = {
      ...this.info,
      layers: ls.map((l) => this.layers[l] as number),
      positions: ps.map((p) => this.positions[p] as number),
      tokens: ps.map((p) => this.tokens[p] as number),
    };
    return new HiddenStates(info, data);
  }

  /**
   * Cosine similarity with states of the same layers and equally many positions, [layers][positions]; NaN if either is
   * all zeros. The others may come from another prompt, or from another model of equal width.
   *
   * @throws {XpatchError} INVALID_ARGUMENT if layers, number of positions, hook or width differ
   */
  cosine(other: HiddenStates): number[][] {
    const describe = ({ hook, layers, shape }: HiddenStates) =>
      `${hook}, ${plural(layers.length, 'layer')} ${layers.join(', ')}, ${counted(shape[1], 'position')} of width ${shape[2]}`;
    if (describe(this) !== describe(other)) {
      const problem = `Cosines need states of the same shape, not ${describe(this)} and ${describe(other)}`;
      throw new XpatchError('INVALID_ARGUMENT', `${problem}. Choose with select().`);
    }
    return this.layers.map((_, l) =>
      this.positions.map((_, p) => {
        const a = this.row(l, p);
        const b = other.row(l, p);
        return dot(a, b) / (Math.sqrt(dot(a, a)) * Math.sqrt(dot(b, b)));
      }),
    );
  }

  /** The same places with other numbers. @internal */
  withData(data: Float32Array): HiddenStates {
    return new HiddenStates(this.info, data);
  }

  /**
   * Saves as safetensors that Python reads unchanged: a tensor named after the hook, F32 [layers, positions, width], and in
   * the metadata JSON `layers`, `heads` (where it has some, side by side), `positions` (indices in the expanded prompt), `tokens`
   * (-1 = row of a picture), `marks`, `model` and, where it is known, `prompt`.
   *
   * @param others states of other points at the same positions of the same prompt, for the same file
   * @throws {XpatchError} FILE_WRITE; INVALID_ARGUMENT for states of one point twice, or of other positions
   */
  async save(path: string, ...others: readonly HiddenStates[]): Promise<void> {
    await writeCapture(path, [this, ...others]);
  }

  /**
   * Loads what `save` or `xpatch capture` wrote.
   *
   * @param options.hook of a file with several: which one. Defaults to the only one
   * @throws {XpatchError} FILE_NOT_FOUND, CAPTURE_INVALID
   */
  static async load(path: string, options: { hook?: HookName } = {}): Promise<HiddenStates> {
    const { info, data } = await readCapture(path, options.hook);
    return new HiddenStates(info, data);
  }

  private get info(): HiddenStatesInfo {
    const { hook, layers, heads, positions, tokens, marks, model, prompt } = this;
    return { hook, layers, heads, positions, tokens, marks, model, prompt };
  }

  private layerIndex(layer: number): number {
    const index = this.layers.indexOf(layer);
    if (index >= 0) return index;
    throw new XpatchError(
      'LAYER_OUT_OF_RANGE',
      `The states have no layer ${layer}; they have ${this.layers.join(', ')}. Capture it too.`,
    );
  }

  private positionIndex(ref: PositionRef): number {
    if (ref === 'last') return this.positions.length - 1;
    const position = typeof ref === 'string' ? (Object.hasOwn(this.marks, ref) ? this.marks[ref] : undefined) : ref;
    const index = position === undefined ? -1 : this.positions.indexOf(position);
    if (index >= 0) return index;
    const shown = this.positions.slice(0, 10).join(', ');
    const known = `positions ${shown}${this.positions.length > 10 ? `, … (${this.positions.length})` : ''}`;
    const marks = Object.keys(this.marks).join(', ') || 'none';
    throw new XpatchError(
      'POSITION_OUT_OF_RANGE',
      `The states have no position ${JSON.stringify(ref)}; they have ${known} and the marks ${marks}.`,
    );
  }
}
