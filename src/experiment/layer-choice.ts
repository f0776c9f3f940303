import { XpatchError } from '../util/errors.js';
import { choosesLayer, kindOf } from './study.js';
import { type Experiment, type ResultLine, VECTOR_KINDS, type VectorKind } from './types.js';

/**
 * Chooses the layer of the test from validation lines alone: the one with the highest mean lenient accuracy over
 * conditions, tasks and seeds, all weighted equally; ties go to the lowest. Only conditions that patch the model's own
 * unaltered vectors count: no control and no foreign vector affects where all of them are written. Each kind of vector has its
 * own layer.
 */
export class LayerChoice {
  /** Kind of vector by condition. */
  private readonly counting: ReadonlyMap<string, VectorKind>;
  /** Right answers and all of them, by kind of vector, layer, and then by condition, task and seed. */
  private readonly kinds = new Map<VectorKind, Map<number, Map<string, { right: number; n: number }>>>();

  constructor({ conditions }: Pick<Experiment, 'conditions'>) {
    this.counting = new Map(conditions.filter(choosesLayer).map((one) => [one.name, kindOf(one)]));
  }

  add({ stage, condition, task, seed, layer, lenient }: ResultLine): void {
    const kind = this.counting.get(condition);
    if (stage !== 'validation' || layer === undefined || kind === undefined) return;
    const layers = this.kinds.get(kind) ?? new Map<number, Map<string, { right: number; n: number }>>();
    const cells = layers.get(layer) ?? new Map<string, { right: number; n: number }>();
    const key = JSON.stringify([condition, task, seed]);
    const { right, n } = cells.get(key) ?? { right: 0, n: 0 };
    cells.set(key, { right: right + (lenient ? 1 : 0), n: n + 1 });
    layers.set(layer, cells);
    this.kinds.set(kind, layers);
  }

  /** @throws {XpatchError} RUN_INVALID without validation lines of such a condition */
  best(kind: VectorKind = 'task'): number {
    const [best] = this.ranked(kind);
    if (best) return best.layer;
    throw new XpatchError('RUN_INVALID', 'The run has no validation answers to choose a layer from. Start it afresh.');
  }

  /** What to say if validation cannot tell the layers apart; undefined if it can, or chooses none. */
  doubt(): string | undefined {
    const doubts = VECTOR_KINDS.flatMap((kind) => this.doubtOf(kind) ?? []);
    return doubts.length === 0 ? undefined : doubts.join(' ');
  }

  private doubtOf(kind: VectorKind): string | undefined {
    const ranked = this.ranked(kind);
    const [best] = ranked;
    if (best === undefined || ranked.length < 2) return undefined;
    // As exact as sums of the same numbers in a different order.
    const tied = ranked.filter(({ mean }) => best.mean - mean < 1e-9).length;
    if (best.mean > 0 && tied <= ranked.length / 3) return undefined;
    const what =
      best.mean > 0
        ? `${tied} of ${ranked.length} layers tie at the best lenient accuracy, ${best.mean.toFixed(2)}`
        : `no patch at any of the ${ranked.length} layers gives a right answer by the lenient score`;
    const wayOut = 'Look at the sweep over layers, use more validation items, or name the layers.';
    const whose = kind === 'task' ? '' : ` of ${kind} vectors`;
    return `Validation cannot tell layers${whose} apart: ${what}. Layer ${best.layer} was taken as the lowest of them. ${wayOut}`;
  }

  /** Layers by accuracy, the best first; the lowest of those that tie. */
  private ranked(kind: VectorKind): { layer: number; mean: number }[] {
    const means = [...(this.kinds.get(kind) ?? [])].map(([layer, cells]) => {
      const mean = [...cells.values()].reduce((sum, { right, n }) => sum + right / n, 0) / cells.size;
      return { layer, mean };
    });
    return means.sort((a, b) => b.mean - a.mean || a.layer - b.layer);
  }
}
