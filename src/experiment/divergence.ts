import { divergence } from '../model/tracked.js';
import type { Condition } from './types.js';

/** The condition that patches the model's own vector where this one patches a foreign one, all else equal. */
export function twinOf(conditions: readonly Condition[], foreign: Condition): Condition | undefined {
  if (foreign.kind !== 'patch' || !foreign.foreign || foreign.control !== undefined) return undefined;
  const { name: _, foreign: __, ...rest } = foreign;
  const key = (condition: object) => JSON.stringify(Object.entries(condition).sort());
  return conditions.find(({ name: _name, foreign: other, ...own }) => !other && key(own) === key(rest));
}

interface Row {
  readonly item: { readonly input: string };
  readonly condition: Condition;
  readonly layer?: number;
}

/** Collects the logits with foreign vectors and with the model's own. */
export class Divergences {
  private readonly twins = new Map<string, string>();
  /** The first of two, until the other comes. */
  private readonly waiting = new Map<string, { index: number; logits: Float32Array }>();
  /** By index of the row with the foreign vector. */
  readonly found: [index: number, kl: number][] = [];

  constructor(conditions: readonly Condition[]) {
    for (const condition of conditions) {
      const twin = twinOf(conditions, condition);
      if (twin) this.twins.set(condition.name, twin.name);
    }
  }

  add(index: number, { item, condition: { name }, layer }: Row, logits: Float32Array): void {
    const row = { index, logits };
    for (const [foreign, own] of this.twins) {
      if (name !== foreign && name !== own) continue;
      const key = JSON.stringify([foreign, item.input, layer]);
      const before = this.waiting.get(key);
      if (before === undefined) {
        this.waiting.set(key, row);
        continue;
      }
      this.waiting.delete(key);
      const [first, second] = name === own ? [row, before] : [before, row];
      this.found.push([second.index, divergence(first.logits, second.logits)]);
    }
  }
}
