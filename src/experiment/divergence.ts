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
  private readonly wanted: ReadonlySet<string>;
  private readonly rows = new Map<string, { index: number; logits: Float32Array }>();

  constructor(conditions: readonly Condition[]) {
    for (const condition of conditions) {
      const twin = twinOf(conditions, condition);
      if (twin) this.twins.set(condition.name, twin.name);
    }
    this.wanted = new Set([...this.twins].flat());
  }

  add(index: number, { item, condition: { name }, layer }: Row, logits: Float32Array): void {
    if (this.wanted.has(name)) this.rows.set(JSON.stringify([name, item.input, layer]), { index, logits });
  }

  /** By index of the row with the foreign vector. */
  *all(): Generator<[index: number, kl: number]> {
    for (const [key, { index, logits }] of this.rows) {
      const [name, ...where] = JSON.parse(key) as [string, string, number];
      const own = this.rows.get(JSON.stringify([this.twins.get(name), ...where]));
      if (own) yield [index, divergence(own.logits, logits)];
    }
  }
}
