import { XpatchError } from '../util/errors.js';
import { choosesLayer } from './study.js';
import type { Experiment, ResultLine } from './types.js';

/**
 * Chooses the layer of the test from validation lines alone: the one with the highest lenient accuracy in the mean over
 * conditions, tasks and seeds, each counting alike; ties go to the lowest. Only conditions that patch the model's own
 * vectors as they are count: no control and no foreign vector has a say in where all of them are written.
 */
export class LayerChoice {
  private readonly counting: ReadonlySet<string>;
  /** Right answers and all of them, by layer and then by condition, task and seed. */
  private readonly layers = new Map<number, Map<string, { right: number; n: number }>>();

  constructor({ conditions }: Pick<Experiment, 'conditions'>) {
    this.counting = new Set(conditions.filter(choosesLayer).map(({ name }) => name));
  }

  add({ stage, condition, task, seed, layer, lenient }: ResultLine): void {
    if (stage !== 'validation' || layer === undefined || !this.counting.has(condition)) return;
    const cells = this.layers.get(layer) ?? new Map<string, { right: number; n: number }>();
    const key = JSON.stringify([condition, task, seed]);
    const { right, n } = cells.get(key) ?? { right: 0, n: 0 };
    cells.set(key, { right: right + (lenient ? 1 : 0), n: n + 1 });
    this.layers.set(layer, cells);
  }

  /** @throws {XpatchError} RUN_INVALID without validation lines of such a condition */
  best(): number {
    let best: { layer: number; mean: number } | undefined;
    for (const [layer, cells] of [...this.layers].sort(([a], [b]) => a - b)) {
      const mean = [...cells.values()].reduce((sum, { right, n }) => sum + right / n, 0) / cells.size;
      if (best === undefined || mean > best.mean) best = { layer, mean };
    }
    if (best) return best.layer;
    throw new XpatchError('RUN_INVALID', 'The run has no validation answers to choose a layer from. Start it anew.');
  }
}
