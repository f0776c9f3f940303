import { setImmediate } from 'node:timers/promises';
import { XpatchError } from './errors.js';

/** Milliseconds that JavaScript may compute before others on the event loop get their turn. */
const SLICE = 30;

/** Lets Ctrl-C, timers and progress through during long computations in JavaScript: `if (pace.due()) await pace.rest()`. */
export class Pace {
  private since = performance.now();

  constructor(private readonly signal?: AbortSignal | undefined) {}

  /** Whether it is time for a rest, or to stop. */
  due(): boolean {
    return this.signal?.aborted === true || performance.now() - this.since > SLICE;
  }

  /** `items.map(work)`, with a rest whenever one is due. @throws XpatchError ABORTED. */
  async map<Item, Result>(items: readonly Item[], work: (item: Item) => Result): Promise<Result[]> {
    const results: Result[] = [];
    for (const item of items) {
      results.push(work(item));
      if (this.due()) await this.rest();
    }
    return results;
  }

  /** @throws XpatchError ABORTED. */
  async rest(): Promise<void> {
    await setImmediate();
    if (this.signal?.aborted) {
      throw new XpatchError('ABORTED', 'The call was aborted.', { cause: this.signal.reason });
    }
    this.since = performance.now();
  }
}
