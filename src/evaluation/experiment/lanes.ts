import type { Context } from '../../model/index.js';

/** Where one thing is computed at a time. */
export interface Lane {
  readonly context: Context;
  /** Of the model of `foreign` conditions. */
  readonly foreign: Context | undefined;
}

/** Lanes beside each other. Those beyond the first have contexts of their own, which end with them. */
export class Lanes implements AsyncDisposable {
  private constructor(private readonly all: readonly [Lane, ...Lane[]]) {}

  /** @throws {XpatchError} as `Model.createContext` */
  static async open(first: Lane, count: number): Promise<Lanes> {
    const all: [Lane, ...Lane[]] = [first];
    const lanes = new Lanes(all);
    try {
      while (all.length < count)
        all.push({ context: await another(first.context), foreign: await another(first.foreign) });
      return lanes;
    } catch (error) {
      await lanes[Symbol.asyncDispose]();
      throw error;
    }
  }

  /**
   * Works through a list in its order, in every lane one thing at a time. Where one fails no more are begun, and it throws when
   * those under way have come to their end.
   */
  async each<T>(list: readonly T[], work: (element: T, index: number, lane: Lane) => Promise<void>): Promise<void> {
    let next = 0;
    const ends = await Promise.allSettled(
      this.all.map(async (lane) => {
        try {
          for (let i = next++; i < list.length; i = next++) await work(list[i] as T, i, lane);
        } finally {
          next = list.length;
        }
      }),
    );
    const failed = ends.find((end) => end.status === 'rejected');
    if (failed) throw failed.reason;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const [, ...more] = this.all;
    for (const { context, foreign } of more) {
      await context.dispose();
      await foreign?.dispose();
    }
  }
}

async function another<C extends Context | undefined>(context: C): Promise<C> {
  return (await context?.model.createContext(context.options)) as C;
}
