import { join } from 'node:path';
import { resolveLayers } from '../hooks/points.js';
import { ATTENTION_HOOKS, type HookName, type LayerSelection, ONE_PLACE } from '../hooks/types.js';
import type { Context } from '../model/context.js';
import type { HiddenStates } from '../model/hidden-states.js';
import type { PassResult } from '../model/pass.js';
import { LOGITS_HELD, logSumExp, rowsWithin } from '../model/tracked.js';
import type { Prompt, PromptInput } from '../prompt/prompt.js';
import { XpatchError } from '../util/errors.js';
import { makeFolder, writeFileAtomic } from '../util/files.js';
import { RunLock } from '../util/run-lock.js';
import { writeSafetensors } from '../util/safetensors.js';
import { Corpus, hashesOf } from './corpus.js';
import {
  type CorpusManifest,
  type CorpusPositions,
  type CorpusPrompt,
  type CorpusRequest,
  FORMAT,
  readManifest,
  writeManifest,
} from './corpus-file.js';

/** A prompt to capture, and what goes into the index with it. */
export interface CorpusInput {
  readonly prompt: PromptInput;
  /** Such as a label. Defaults to nothing. */
  readonly fields?: Readonly<Record<string, unknown>>;
}

/** What is captured of every prompt. */
export interface CorpusOptions {
  /** Defaults to `resid_post`. */
  hooks?: readonly HookName[];
  /** Defaults to `all`. */
  layers?: LayerSelection;
  /**
   * `last`: the last position of each prompt; `all` of them; `mean`: the mean over all of them, a single row; `marks`: those that have
   * a mark; `generated`: the tokens that were generated; or the tokens of a text. Defaults to `last`.
   */
  positions?: CorpusPositions;
  /** Tokens to generate after each prompt, greedily; their states are there to capture too. Defaults to 0. */
  generate?: number;
  /** What the prompts come from, such as the hash of their file: a corpus is resumed only with the same. Defaults to nothing. */
  source?: Readonly<Record<string, unknown>>;
  /** Bytes of states that a shard holds, and the memory that they take. Defaults to 64 MB. */
  shardBytes?: number;
  /** Bytes of logits of generated tokens that are held at a time, at least those of one prompt. Defaults to 64 MB. */
  logitsBytes?: number | undefined;
  signal?: AbortSignal;
  /** Called after every pass with the number of prompts that are done, those of an earlier call included. */
  onProgress?: (progress: { prompts: number }) => void;
}

const SHARD_BYTES = 64 << 20;
/** Prompts and positions that go through one pass. */
const [BATCH, BATCH_POSITIONS] = [64, 2048];

/**
 * Captures states of any number of prompts into a folder: shards of safetensors with an index of prompts beside each, and `corpus.json`.
 * Only one shard is held in memory. A folder of the same request is resumed where it was: whole shards stay, and the prompts in them are
 * skipped; from the first that is damaged or lost on, all are made again.
 *
 * @param inputs prompts in an order that is always the same
 * @throws {XpatchError} RUN_MISMATCH when the folder holds another corpus, RUN_BUSY when another process writes it, RUN_INVALID when shards
 *   are lost meanwhile, DATA_INVALID for
 *   prompts that run out before those that are there, FILE_WRITE, ABORTED (what was written stays), and as `Context.pass`
 */
export async function captureCorpus(
  context: Context,
  inputs: AsyncIterable<CorpusInput> | Iterable<CorpusInput>,
  folder: string,
  options: CorpusOptions = {},
): Promise<CorpusManifest> {
  const { model } = context;
  const { hooks = ['resid_post'], positions = 'last', generate = 0, source = {}, signal } = options;
  if (positions === 'generated' && generate === 0) {
    throw new XpatchError('INVALID_ARGUMENT', 'No tokens are generated whose states could be captured: set generate.');
  }
  requireHooks(hooks);
  if (!isJson(source)) throw new XpatchError('INVALID_ARGUMENT', 'The source must be what JSON can hold.');
  const layers = resolveLayers(options.layers ?? 'all', model.info.nLayers);
  for (const hook of hooks) context.points.layers(hook, ONE_PLACE[hook] ? undefined : layers); // before there is a folder
  const request: CorpusRequest = { model: model.identity, hooks, layers, positions, generate, source };
  await makeFolder(folder);
  const lock = await RunLock.acquire(folder, 'The corpus');
  try {
    let manifest = await begin(folder, request);
    if (manifest.status === 'complete') return manifest;
    const known = manifest.shards.reduce((n, { prompts }) => n + prompts, 0);
    const shard = new Shard(hooks, options.shardBytes ?? SHARD_BYTES);
    const write = async () => {
      if (shard.prompts.length === 0) return;
      const name = `states-${String(manifest.shards.length).padStart(5, '0')}`;
      manifest = { ...manifest, shards: [...manifest.shards, await shard.write(folder, name, request)] };
      await writeManifest(folder, manifest);
    };
    let index = 0;
    let batch: { input: CorpusInput; prompt: Prompt; index: number }[] = [];
    const run = async () => {
      for (const captured of await captureBatch(context, batch, request, options)) shard.add(captured);
      options.onProgress?.({ prompts: index });
      batch = [];
      if (shard.isFull) await write();
    };
    for await (const input of inputs) {
      requireInput(input, index);
      if (index >= known) {
        const prompt = await model.prompt(input.prompt, { signal });
        const held = batch.reduce((n, { prompt: { length } }) => n + length, 0);
        if (batch.length === BATCH || (batch.length > 0 && held + prompt.length > BATCH_POSITIONS)) await run();
        batch.push({ input, prompt, index });
      }
      index++;
    }
    if (index < known) {
      const problem = `${folder} has ${known} prompts, but the source now ends after ${index}`;
      throw new XpatchError('DATA_INVALID', `${problem}. Give the same prompts, or another folder.`);
    }
    if (batch.length > 0) await run();
    await write();
    if (manifest.shards.length === 0) throw new XpatchError('DATA_INVALID', 'There are no prompts to capture.');
    if ((await new Corpus(folder, manifest).whole()) < manifest.shards.length) {
      const problem = `Shards of ${folder} were deleted or changed while it was being written`;
      throw new XpatchError('RUN_INVALID', `${problem}. Start again: what is missing is made again.`);
    }
    manifest = { ...manifest, status: 'complete' };
    await writeManifest(folder, manifest);
    return manifest;
  } finally {
    lock.release();
  }
}

function requireHooks(hooks: readonly HookName[]): void {
  const wide = hooks.find((hook) => ATTENTION_HOOKS.includes(hook));
  const problem =
    hooks.length === 0
      ? 'No hooks were given'
      : new Set(hooks).size < hooks.length
        ? `Hooks repeat: ${hooks.join(', ')}`
        : wide && `Prompts of other lengths have other numbers at '${wide}', which make no corpus`;
  if (problem)
    throw new XpatchError('INVALID_ARGUMENT', `${problem}. Name points with states of one width, each once.`);
}

/** What comes out of an iterable is seen only here. */
function requireInput(input: CorpusInput, index: number): void {
  const invalid = (problem: string) => new XpatchError('INVALID_ARGUMENT', `Input ${index} ${problem}.`);
  if (typeof input !== 'object' || input === null) throw invalid('must be an object with a prompt');
  if (!isJson(input.fields)) throw invalid('has fields that JSON cannot hold');
}

function isJson(value: unknown): boolean {
  try {
    JSON.stringify(value);
    return true;
  } catch {
    return false; // a bigint, or what holds itself
  }
}

async function begin(folder: string, request: CorpusRequest): Promise<CorpusManifest> {
  const before = await readManifest(folder);
  if (before === undefined) {
    const manifest = { format: FORMAT, status: 'running', ...request, shards: [] } as const;
    await writeManifest(folder, manifest);
    return manifest;
  }
  for (const key of ['model', 'hooks', 'layers', 'positions', 'generate', 'source'] as const) {
    const [there, wanted] = [JSON.stringify(before[key]), JSON.stringify(request[key])];
    if (there === wanted) continue;
    const problem = `${folder} holds another corpus: its ${key} is ${there}, not ${wanted}`;
    throw new XpatchError('RUN_MISMATCH', `${problem}. Name another folder, or ask for the same.`);
  }
  const whole = await new Corpus(folder, before).whole({ hashes: true });
  if (whole === before.shards.length) return before;
  const manifest = { ...before, status: 'running', shards: before.shards.slice(0, whole) } as const;
  await writeManifest(folder, manifest);
  return manifest;
}

interface Captured {
  readonly prompt: Omit<CorpusPrompt, 'rows'>;
  /** One of each hook, in their order. */
  readonly states: readonly HiddenStates[];
  readonly mean: boolean;
}

/** States of some prompts, and what was generated after them. */
async function captureBatch(
  context: Context,
  batch: readonly { input: CorpusInput; prompt: Prompt; index: number }[],
  { hooks, layers, positions, generate }: CorpusRequest,
  { logitsBytes = LOGITS_HELD, signal }: CorpusOptions,
): Promise<Captured[]> {
  const said = generate
    ? await context.generate(
        batch.map(({ prompt }) => ({ prompt })),
        { maxTokens: generate, signal },
      )
    : [];
  const wholes = batch.map(({ prompt }, i) => prompt.append(said[i]?.tokens ?? []));
  const rows = batch.map(({ prompt }, i) => {
    const whole = wholes[i] as Prompt;
    const added = whole.length - prompt.length;
    const at = placesOf(prompt, whole, positions);
    const captures = hooks.map((hook) => (ONE_PLACE[hook] ? { hook, positions: at } : { hook, layers, positions: at }));
    const before = { from: prompt.length - 1, to: prompt.length + added - 2 };
    return { prompt: whole, captures, ...(added > 0 && { logits: before }) };
  });
  // A prompt has logits of as many tokens as were generated.
  const together = generate ? Math.max(1, Math.floor(rowsWithin(logitsBytes, context.model) / generate)) : rows.length;
  const done: Captured[] = [];
  while (done.length < rows.length) {
    const results = await context.pass(rows.slice(done.length, done.length + together), { signal });
    done.push(...results.map((result, i) => capturedOf(result, done.length + i)));
  }
  return done;

  function capturedOf({ captured = [], logits }: PassResult, i: number): Captured {
    const { input, prompt, index } = batch[i] as (typeof batch)[number];
    const [first] = captured as HiddenStates[];
    const tokens = (wholes[i] as Prompt).record().tokens;
    const next = said[i]?.tokens ?? [];
    const logProbabilities = next.map((token, n) => {
      const { data, shape } = logits as NonNullable<typeof logits>;
      const row = data.subarray(n * shape[1], (n + 1) * shape[1]);
      return (row[token] as number) - logSumExp(row);
    });
    return {
      prompt: {
        index,
        positions: positions === 'mean' ? [] : (first?.positions ?? []),
        tokens,
        ...(generate > 0 && { generated: { text: said[i]?.text ?? '', logProbabilities } }),
        fields: input.fields ?? {},
      },
      states: captured,
      mean: positions === 'mean' && prompt.length > 0,
    };
  }
}

function placesOf(prompt: Prompt, whole: Prompt, positions: CorpusPositions): number[] | 'all' {
  if (positions === 'all' || positions === 'mean') return 'all';
  if (positions === 'last') return [prompt.length - 1];
  if (positions === 'generated') {
    const places = Array.from({ length: whole.length - prompt.length }, (_, i) => prompt.length + i);
    if (places.length > 0) return places;
    throw new XpatchError(
      'PROMPT_EMPTY',
      'The model ends its answer at once, so there is no generated token to capture.',
    );
  }
  if (positions !== 'marks') return prompt.positions(positions);
  const marked = [...new Set(Object.values(prompt.marks))].sort((a, b) => a - b);
  if (marked.length > 0) return marked;
  throw new XpatchError(
    'POSITION_OUT_OF_RANGE',
    'A prompt has no marks whose states could be captured: write <mark:NAME> into its template.',
  );
}

/** What is held until it is written. */
class Shard {
  prompts: CorpusPrompt[] = [];
  private rows = 0;
  private bytes = 0;
  /** For each hook its states, [layers, width] one after another. */
  private parts: Float32Array[][];
  private widths: number[] = [];

  constructor(
    private readonly hooks: readonly HookName[],
    private readonly maxBytes: number,
  ) {
    this.parts = hooks.map(() => []);
  }

  get isFull(): boolean {
    return this.bytes >= this.maxBytes;
  }

  add({ prompt, states, mean }: Captured): void {
    const n = mean ? 1 : prompt.positions.length;
    this.prompts.push({ ...prompt, rows: [this.rows, this.rows + n] } as CorpusPrompt);
    this.rows += n;
    for (const [h, state] of states.entries()) {
      const rows = mean ? meanRow(state) : rowsFirst(state);
      this.parts[h]?.push(rows);
      this.widths[h] = state.shape[2];
      this.bytes += rows.byteLength;
    }
  }

  /** Writes the shard and empties it. The states go last: an index without them is written over. */
  async write(folder: string, name: string, { layers, model }: CorpusRequest) {
    const { prompts, rows } = this;
    const tensors = this.hooks.map((hook, h) => {
      const width = this.widths[h] as number;
      const nLayers = ONE_PLACE[hook] ? 1 : layers.length;
      const data = new Float32Array(rows * nLayers * width);
      let at = 0;
      for (const part of this.parts[h] ?? []) {
        data.set(part, at);
        at += part.length;
      }
      return [hook, { data, shape: [rows, nLayers, width] }] as const;
    });
    const index = prompts.map((prompt) => `${JSON.stringify(prompt)}\n`).join('');
    await writeFileAtomic(join(folder, `${name}.jsonl`), index);
    const metadata = { format: FORMAT, layers: JSON.stringify(layers), model: JSON.stringify(model) };
    await writeSafetensors(join(folder, `${name}.safetensors`), Object.fromEntries(tensors), metadata);
    [this.prompts, this.rows, this.bytes, this.parts] = [[], 0, 0, this.hooks.map(() => [])];
    return { name, prompts: prompts.length, rows, sha256: await hashesOf(folder, name) };
  }
}

/** [layers, positions, width] as [positions, layers, width]. */
function rowsFirst(states: HiddenStates): Float32Array {
  const [nLayers, nPositions, width] = states.shape;
  const rows = new Float32Array(states.data.length);
  for (let p = 0; p < nPositions; p++) {
    for (let l = 0; l < nLayers; l++) rows.set(states.row(l, p), (p * nLayers + l) * width);
  }
  return rows;
}

/** The mean over positions, [layers, width], summed in double precision. */
function meanRow(states: HiddenStates): Float32Array {
  const [nLayers, nPositions, width] = states.shape;
  const mean = new Float64Array(nLayers * width);
  for (let l = 0; l < nLayers; l++) {
    for (let p = 0; p < nPositions; p++) {
      const row = states.row(l, p);
      for (let d = 0; d < width; d++) mean[l * width + d] = (mean[l * width + d] as number) + (row[d] as number);
    }
  }
  return Float32Array.from(mean, (x) => x / nPositions);
}
