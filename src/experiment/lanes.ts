import type { Context } from '../model/context.js';

/** Where one thing is computed at a time. */
export interface Lane {
  readonly context: Context;
  /** Of the model of `foreign` conditions. */
  readonly foreign: Context | undefined;
}

/** Parallel lanes. Those after the first have their own contexts, which end with them. */
export class Lanes implements AsyncDisposable {
  private readonly opened: Context[] = [];
  private readonly all: Lane[];

  private constructor(first: Lane) {
    this.all = [first];
  }

  /** @throws {XpatchError} as `Model.createContext` */
  static async open(first: Lane, count: number): Promise<Lanes> {
    const lanes = new Lanes(first);
    try {
      while (lanes.all.length < count) {
        const context = await lanes.another(first.context);
        lanes.all.push({ context, foreign: first.foreign && (await lanes.another(first.foreign)) });
      }
      return lanes;
    } catch (error) {
      await lanes[Symbol.asyncDispose]();
      throw error;
    }
  }

  /**
   * Works through a list in order, one thing at a time in every lane. If one fails, no more are begun, and it throws when
   * those in progress have ended.
   *
   * @throws what failed first
   */
  async each<T>(list: readonly T[], work: (element: T, index: number, lane: Lane) => Promise<void>): Promise<void> {
    let next = 0;
    const failures: unknown[] = [];
    const along = async (lane: Lane) => {
      for (let i = next++; i < list.length; i = next++) await work(list[i] as T, i, lane);
    };
    const fail = (error: unknown) => {
      next = list.length;
      failures.push(error);
    };
    await Promise.all(this.all.map((lane) => along(lane).catch(fail)));
    if (failures.length) throw failures[0];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.opened.map((context) => context.dispose()));
  }

  private async another({ model, options }: Context): Promise<Context> {
    const context = await model.createContext(options);
    this.opened.push(context);
    return context;
  }
}
