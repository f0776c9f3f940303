import type { GgufField } from '../gguf/gguf-writer.js';
import { type ChosenType, GGML } from '../gguf/tensor-types.js';
import { type Checkpoint, list, type SourceTensor } from './checkpoint.js';

/** A tensor of the file to write, and where its values come from. */
export interface TensorPlan {
  readonly name: string;
  /** The fastest axis first. */
  readonly shape: readonly number[];
  /** ggml's number. */
  readonly type: number;
  /** The type that its rows do not allow. */
  readonly instead?: string;
  readonly source: SourceTensor;
  /** ggml's number of the source's type. */
  readonly sourceType: number;
  /** Values that are read, converted and written together. */
  readonly rowLength: number;
  /** For every row of the result its row in the source; absent where they are the same. */
  readonly rows?: Int32Array;
}

/** A GGUF file to write. */
export interface FilePlan {
  readonly kind: 'model' | 'mmproj';
  readonly metadata: Record<string, GgufField>;
  readonly tensors: TensorPlan[];
}

/** How rows of a source become a tensor. */
interface Rearrangement {
  /** Defaults to the fastest axis. */
  rowLength?: number;
  /** Asked only when the shape is right: a wrong one may be too large for any list. */
  rows?: () => Int32Array;
  /** Shape of the source, row-major, where it is not that of the result. */
  from?: readonly number[];
}

const SOURCE_TYPES: Readonly<Record<string, number>> = { F32: GGML.F32, F16: GGML.F16, BF16: GGML.BF16 };

/** Takes tensors out of a checkpoint, each at most once, and knows what is left. */
export class TensorTaker {
  readonly plans: TensorPlan[] = [];
  private readonly byName = new Map<string, SourceTensor>();
  private readonly left = new Set<string>();

  /** @param rename turns a name of the checkpoint into one that is the same in all of its layouts; null for what no model needs */
  constructor(
    private readonly checkpoint: Checkpoint,
    rename: (name: string) => string | null,
    private readonly chooseType: (name: string, shape: readonly number[]) => ChosenType,
  ) {
    for (const [original, tensor] of checkpoint.tensors) {
      const name = rename(original);
      if (name === null) continue;
      if (this.byName.has(name)) throw checkpoint.invalid(`it has '${original}' under two names`);
      this.byName.set(name, tensor);
      this.left.add(name);
    }
  }

  /** @throws {XpatchError} CHECKPOINT_INVALID */
  find(name: string): SourceTensor {
    const tensor = this.byName.get(name);
    if (!tensor) throw this.checkpoint.invalid(`it has no tensor '${name}'`);
    this.left.delete(name);
    return tensor;
  }

  /**
   * Plans the tensor `name` of the result.
   * @param shape of the result, row-major as in the checkpoint
   */
  take(name: string, source: string, shape: readonly number[], { rowLength, rows, from = shape }: Rearrangement = {}) {
    const tensor = this.find(source);
    this.requireShape(tensor, source, from);
    const ggmlShape = [...shape].reverse();
    const { type, instead } = this.chooseType(name, ggmlShape);
    this.plans.push({
      name,
      shape: ggmlShape,
      type: GGML[type],
      ...(instead && { instead }),
      source: tensor,
      sourceType: SOURCE_TYPES[tensor.info.dtype] as number,
      rowLength: rowLength ?? (ggmlShape[0] as number),
      ...(rows && { rows: rows() }),
    });
  }

  /** The weight of a layer. */
  takeWeight(name: string, source: string, shape: readonly number[], how?: Rearrangement): void {
    this.take(`${name}.weight`, `${source}.weight`, shape, how);
  }

  /** The weight of a layer and its bias, one number a row. */
  takeBoth(name: string, source: string, shape: readonly number[]): void {
    this.takeWeight(name, source, shape);
    this.take(`${name}.bias`, `${source}.bias`, shape.slice(0, 1));
  }

  /** @throws {XpatchError} CHECKPOINT_INVALID */
  requireShape(tensor: SourceTensor, name: string, shape: readonly number[]): void {
    const { info } = tensor;
    const same = info.shape.length === shape.length && info.shape.every((n, i) => n === shape[i]);
    if (!same) {
      throw this.checkpoint.invalid(
        `'${name}' is ${info.shape.join(' x ')}, but by config.json it should be ${shape.join(' x ')}`,
      );
    }
    if (SOURCE_TYPES[info.dtype] === undefined) {
      throw this.checkpoint.invalid(`'${name}' is of type ${info.dtype}; F32, F16 and BF16 can be converted`);
    }
  }

  /** A tensor that nobody asked for is a part of the model that the result would lack. */
  requireAllTaken(): void {
    if (this.left.size === 0) return;
    const names = [...this.left].map((name) => `'${name}'`);
    throw this.checkpoint.invalid(`it has tensors that this architecture does not have: ${list(names)}`);
  }
}
