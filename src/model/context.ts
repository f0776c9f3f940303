import { type HookPoint, HookPoints } from '../hooks/points.js';
import type { HookName } from '../hooks/types.js';
import type { ContextHandle } from '../native/addon.js';
import { native, nativeError } from '../native/index.js';
import { Prompt } from '../prompt/prompt.js';
import { counted } from '../util/counted.js';
import { XpatchError } from '../util/errors.js';
import { type ContextOptions, contextOptions } from './context-options.js';
import { type DecodeTarget, type RowEnd, runTree } from './executor.js';
import { type GenerateOptions, type Generation, planGeneration } from './generate.js';
import { KeptRow } from './kept-row.js';
import type { Model } from './model.js';
import {
  asRow,
  type BuiltRow,
  blocksOf,
  finishRow,
  type PassResult,
  type PreparedRow,
  prepareRow,
  type RowInput,
} from './pass.js';
import type { PrefixTree, TreeNode } from './prefix-tree.js';
import {
  normStates,
  type ReadOutOptions,
  type ReadOutTarget,
  readStates,
  type StateGrid,
  type StateReading,
} from './read-out.js';
import type { OnProgress } from './types.js';
import { wavesOf, worthwhileCells } from './waves.js';

/** One result per row, in order: for a list a list, for rows written out a tuple that can be destructured unchecked. */
export type PassResults<Rows extends readonly RowInput[]> = { -readonly [I in keyof Rows]: PassResult<Rows[I]> };
/** One generation for each row, in the order of the rows. */
export type Generations<Rows extends readonly RowInput[]> = { -readonly [I in keyof Rows]: Generation<Rows[I]> };

/** What is wanted from a pass as a whole. */
export interface PassOptions {
  /**
   * Keeps the rows of this call in the cache, so that the next call, whatever its rows, computes only what is new after
   * the common starts. Of rows that did not fit in the cache together, the last ones are kept. Defaults to false.
   */
  keep?: boolean;
  signal?: AbortSignal;
  /** Positions decoded of all. */
  onProgress?: OnProgress;
}

/** Sequences that llama.cpp can keep apart. */
const MAX_SEQUENCES = 256;

/**
 * A KV cache and the passes on it. One call at a time: a second one is refused with BUSY, so that two experiments cannot
 * disturb each other; make a context for each.
 *
 * @example
 * ```ts
 * await using context = await model.createContext({ nCtx: 1024 });
 * const { states, top } = await context.run({ prompt: 'Q:Peru\nA:', capture: 'all', topK: 5 });
 * const [answer] = await context.generate([{ prompt: 'Q:Peru\nA:' }], { maxTokens: 8, stop: ['\n'] });
 * ```
 */
export class Context implements AsyncDisposable {
  private running = false;
  private disposing: Promise<void> | undefined;
  private deviation: Promise<number> | undefined;
  /** What the last call left in the cache. */
  private kept: readonly KeptRow[] = [];

  private constructor(
    readonly model: Model,
    private readonly handle: ContextHandle,
    /** The options in force, defaults filled in. */
    readonly options: Readonly<Required<ContextOptions>>,
    private readonly nSeq: number,
    /** @internal */
    readonly points: HookPoints,
  ) {}

  /** Where states can be read and written, found from the model's graph. */
  get hooks(): readonly HookPoint[] {
    return this.points.list();
  }

  /** @internal Use `model.createContext`. */
  static async create(model: Model, options: ContextOptions): Promise<Context> {
    const { addon } = native();
    const filled = contextOptions(model, options);
    // Recurrent state cannot be shared by metadata: one row at a time.
    const nSeq = model.info.recurrent ? 1 : MAX_SEQUENCES;
    try {
      const handle = await addon.contextCreate(model.native, { ...filled, nSeq });
      const points = new HookPoints(addon.contextPoints(handle), model.info.architecture, model.hookRefusal);
      return new Context(model, handle, filled, nSeq, points);
    } catch (error) {
      throw nativeError(error, `Cannot make a context of ${filled.nCtx} positions`);
    }
  }

  /**
   * Decodes one row: `pass` of a single one.
   *
   * @returns What the row asked for.
   * @throws As `pass`.
   */
  async run<const Row extends RowInput>(row: Row, options: PassOptions = {}): Promise<PassResult<Row>> {
    const [result] = await this.pass([row] as const, options);
    return result as PassResult<Row>;
  }

  /**
   * Decodes rows in as few batches as possible and returns what each asked for, in order.
   * The common beginning of rows, interventions included, is computed once.
   *
   * @throws XpatchError CONTEXT_OVERFLOW when a prompt does not fit, HOOK_UNSUPPORTED, HOOK_NOT_FIRED, LAYER_OUT_OF_RANGE,
   *   HEAD_OUT_OF_RANGE, POSITION_OUT_OF_RANGE, INTERVENTION_INVALID, BUSY, ABORTED, DISPOSED, and as `Model.prompt`.
   */
  async pass<const Rows extends readonly RowInput[]>(
    rows: Rows,
    options: PassOptions = {},
  ): Promise<PassResults<Rows>> {
    const prepared = await this.prepare(await this.build(rows, options.signal));
    if (prepared.some(({ generated }) => generated.length)) {
      const problem = 'A pass generates no tokens for an intervention to edit';
      throw new XpatchError('INTERVENTION_INVALID', `${problem}. Use generate(), or steps: 'prompt'.`);
    }
    return this.exclusive(options.signal, async (target) => {
      const total = prepared.reduce((n, row) => n + row.prompt.length, 0);
      let finished = 0;
      let kept: KeptRow[] = [];
      for (const tree of this.waves(prepared, 0)) {
        let done = 0;
        const onRows = (n: number) => {
          done += n;
          options.onProgress?.({ done: finished + done, total });
        };
        kept = options.keep ? tree.rows.map((row) => new KeptRow(row)) : [];
        await this.runWave(tree, target, { continues: kept.length > 0, kept, onRows });
        finished += tree.rows.reduce((n, row) => n + row.prompt.length, 0);
        options.onProgress?.({ done: finished, total });
      }
      this.kept = kept;
      const results = prepared.map((row) => finishRow(row, (token) => this.model.detokenize([token])));
      return results as PassResults<Rows>;
    });
  }

  /**
   * Continues prompts token by token, all rows in common batches.
   *
   * @returns One generation per row, in their order, with what the row's prompt pass returned.
   * @throws As `pass`.
   */
  async generate<const Rows extends readonly RowInput[]>(
    rows: Rows,
    options: GenerateOptions = {},
  ): Promise<Generations<Rows>> {
    const plan = planGeneration(this.model, await this.build(rows, options.signal), options);
    const prepared = await this.prepare(plan.passRows);
    if (options.keep && prepared.length > 1) {
      throw new XpatchError('INVALID_ARGUMENT', `keep is for one answer, not ${prepared.length}.`);
    }
    return this.exclusive(options.signal, async (target) => {
      const total = prepared.reduce((n, row) => n + row.prompt.length + plan.maxTokens, 0);
      let finished = 0;
      let reused = 0;
      for (const tree of this.waves(prepared, plan.maxTokens)) {
        const kept = options.keep ? tree.rows.map((row) => new KeptRow(row)) : [];
        let done = 0;
        const onRows = (n: number) => {
          done += n;
          options.onProgress?.({ done: finished + done, total });
        };
        try {
          const wave = await this.runWave(tree, target, { continues: true, kept, onRows });
          reused = wave.reused;
          await plan.run(
            tree.rows.map((row) => ({ row, index: prepared.indexOf(row), end: wave.ends.get(row) as RowEnd })),
            target,
            onRows,
          );
          this.kept = kept;
        } catch (error) {
          if (!kept.length || this.disposing || (error as { code?: string }).code !== 'ABORTED') throw error;
          // Aborted before it began, the call leaves what was there. The state of a recurrent model after half a batch is unknown.
          if (!this.model.info.recurrent && this.kept.length === 0) this.kept = kept;
          if (!plan.abort()) throw error;
        }
        kept[0]?.append(plan.cached());
        finished += tree.rows.reduce((n, row) => n + row.prompt.length + plan.maxTokens, 0);
        options.onProgress?.({ done: finished, total });
      }
      const results = plan.results(prepared.map((row) => finishRow(row, (token) => this.model.detokenize([token]))));
      if (options.keep) for (const result of results) result.reused = reused;
      return results as Generations<Rows>;
    });
  }

  /** @internal What each state of a grid says; use `logitLens`. */
  readOut(states: StateGrid, options: ReadOutOptions): Promise<StateReading[][]> {
    return this.exclusive(options.signal, (target) => readStates(target, states, options));
  }

  /** @internal Rows of n_embd numbers after the model's final norm; use `finalNorm`. */
  norm(rows: Float32Array, { signal, onProgress }: PassOptions): Promise<Float32Array> {
    return this.exclusive(signal, (target) => normStates(target, rows, target.nEmbd, onProgress));
  }

  /**
   * Checks that states can be read and patched at a point of all layers.
   *
   * @throws XpatchError HOOK_UNSUPPORTED.
   */
  requireHook(hook: HookName): void {
    this.points.layers(hook, 'all');
  }

  /**
   * Standard deviation of the embeddings of tokens as the first block reads them, over up to 4096 tokens of the vocabulary, evenly
   * spaced: the unit of the operation `noise`.
   *
   * @throws XpatchError HOOK_UNSUPPORTED.
   */
  async embeddingDeviation(): Promise<number> {
    this.points.require('embed', [0]);
    const failed = (error: unknown) => Promise.reject(nativeError(error, 'The embeddings cannot be read'));
    this.deviation ??= (async () => native().addon.contextEmbeddingDeviation(this.handle))().catch(failed);
    return this.deviation;
  }

  /** Frees the KV cache. A call in progress ends with ABORTED. May be called twice. */
  dispose(): Promise<void> {
    if (!this.disposing) {
      this.model.forget(this);
      native().addon.contextAbort(this.handle, true);
      this.disposing = native().addon.contextDispose(this.handle);
    }
    return this.disposing;
  }

  /** `dispose()`, at the end of an `await using` block. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }

  /** Rows with their prompts built. */
  private async build(rows: readonly RowInput[], signal: AbortSignal | undefined): Promise<BuiltRow[]> {
    if (!Array.isArray(rows) || rows.length === 0) {
      throw new XpatchError('INVALID_ARGUMENT', 'A pass takes a list of at least one row; run() takes a single row.');
    }
    const built: BuiltRow[] = [];
    for (const input of rows) {
      const row = asRow(input);
      const { prompt } = row;
      built.push({ ...row, prompt: prompt instanceof Prompt ? prompt : await this.model.prompt(prompt, { signal }) });
    }
    return built;
  }

  private async prepare(rows: readonly BuiltRow[]): Promise<PreparedRow[]> {
    const { info, identity } = this.model;
    const noisy = rows.some(({ interventions = [] }) => interventions.some(({ op }) => op === 'noise'));
    const deviation = noisy ? await this.embeddingDeviation() : Number.NaN;
    return rows.map((row) => prepareRow(row, { ...info, identity, points: this.points, deviation }));
  }

  /** Decodes the prompts of a wave. The first one after a call that kept its rows computes only what is new after them. */
  private async runWave(
    tree: PrefixTree,
    target: DecodeTarget,
    options: {
      /** Whether cells of this wave are used afterwards. */
      continues: boolean;
      kept: readonly KeptRow[];
      onRows: (rows: number) => void;
    },
  ): Promise<{ ends: Map<PreparedRow, RowEnd>; reused: number }> {
    const { kept } = options;
    const n = tree.rows.length;
    const attends = tree.rows.some((row) => row.attends);
    // Rows get sequences at the end of the range where kept ones are not.
    const firstSeq = this.kept.some(({ seq }) => seq < n) ? this.nSeq - n : 0;
    const apart = this.kept.every(({ seq }) => seq < firstSeq || seq >= firstSeq + n);
    // The place of a kept row in the cache was not tracked.
    const before = !attends && (apart || this.model.info.recurrent) ? this.kept : [];
    const nodes = new Map<TreeNode, number>();
    for (const row of before) {
      for (const node of row.sharedWith(tree, this.model.info)) if (!nodes.has(node)) nodes.set(node, row.seq);
    }
    const alone = n === 1 && (nodes.size === 0 || (before.length === 1 && before[0]?.alone === true));
    for (const [i, row] of kept.entries()) Object.assign(row, { seq: firstSeq + i, alone });
    const held = { nodes, sequences: before.map(({ seq }) => seq) };
    const reused = [...nodes.keys()].reduce((sum, { nRows }) => sum + nRows, 0);
    options.onRows(reused);
    target.requireAlive(); // the callback may have aborted, and up to here the cache is as it was
    this.kept = [];
    const advance = (rows: number) => {
      if (kept.length === 1) kept[0]?.advance(rows);
    };
    advance(reused);
    const onRows = (rows: number) => {
      advance(rows);
      options.onRows(rows);
    };
    // Cells that others will continue from hold the keys and values of all blocks.
    const blocks = options.continues ? undefined : blocksOf(tree.rows);
    const ends = await runTree(tree, target, { firstSeq, held, attends, onRows, blocks });
    for (const row of kept) row.complete();
    return { ends, reused };
  }

  private waves(rows: readonly PreparedRow[], reserve: number): Generator<PrefixTree> {
    for (const { prompt } of rows) this.requireRoom(prompt, reserve); // all of them before any is computed
    // The first wave takes over what was kept, if that leaves it enough sequences.
    const spare = this.nSeq - this.kept.length;
    return wavesOf(rows, {
      cells: this.options.nCtx,
      reserve,
      // With answers later, since each of their tokens is a batch of its own in every wave.
      worthwhile: (reserve ? 2 : 1) * worthwhileCells(this.model.info),
      first: spare >= this.nSeq / 2 ? spare : this.nSeq,
      rows: this.nSeq,
    });
  }

  private requireRoom(prompt: Prompt, reserve: number): void {
    const { nCtx, nUbatch } = this.options;
    if (prompt.length + reserve > nCtx) {
      throw new XpatchError(
        'CONTEXT_OVERFLOW',
        `A prompt of ${counted(prompt.length, 'position')}${reserve ? ` and ${counted(reserve, 'new token')}` : ''} does not fit a context of ${nCtx}. Make the context larger (--n-ctx).`,
      );
    }
    for (const segment of prompt.segments) {
      if (segment.kind === 'image' && segment.nonCausal && segment.nRows > nUbatch) {
        throw new XpatchError(
          'CONTEXT_OVERFLOW',
          `A picture of ${segment.nRows} positions must be decoded at once by this model. Decode more at once than ${nUbatch} (--n-ubatch).`,
        );
      }
    }
  }

  /** Runs `work` as the only call on this context, with the signal wired to the native abort. */
  private async exclusive<T>(
    signal: AbortSignal | undefined,
    work: (target: DecodeTarget & ReadOutTarget) => Promise<T>,
  ): Promise<T> {
    if (this.disposing) throw new XpatchError('DISPOSED', 'The context was disposed. Create another.');
    if (this.running) {
      throw new XpatchError(
        'BUSY',
        'The context is running another call. Await it, or create a context for each concurrent call.',
      );
    }
    const { addon } = native();
    const { info } = this.model;
    if (signal?.aborted)
      throw new XpatchError('ABORTED', 'The call was aborted before it began.', { cause: signal.reason });
    const onAbort = () => addon.contextAbort(this.handle, true);
    // Between batches too: only work on the CPU can be stopped half-way.
    const requireAlive = () => {
      if (signal?.aborted || this.disposing)
        throw new XpatchError('ABORTED', 'The call was aborted.', { cause: signal?.reason });
    };
    // Only what the addon throws: a callback's own error reaches the caller unchanged.
    const compute = async (start: () => Promise<void>) => {
      requireAlive();
      try {
        await start();
      } catch (error) {
        throw nativeError(error, 'The call on the context failed');
      }
    };
    this.running = true;
    try {
      signal?.addEventListener('abort', onAbort);
      return await work({
        nUbatch: this.options.nUbatch,
        nEmbd: info.nEmbd,
        nEmbdInput: info.nEmbdInput,
        positionsPerEmbedding: info.positionsPerEmbedding,
        requireAlive,
        decode: (job) => compute(() => addon.contextDecode(this.handle, job)),
        runTail: async (job) => {
          await compute(() => addon.contextLens(this.handle, job));
          requireAlive(); // work in progress cannot be stopped
        },
        textOf: (token) => this.model.detokenize([token]),
      });
    } finally {
      signal?.removeEventListener('abort', onAbort);
      this.running = false;
      if (!this.disposing) addon.contextAbort(this.handle, false);
    }
  }
}
