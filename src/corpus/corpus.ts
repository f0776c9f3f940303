import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { type HookName, ONE_PLACE } from '../hooks/types.js';
import { XpatchError } from '../util/errors.js';
import { hashOf } from '../util/files.js';
import { readRecords } from '../util/records.js';
import { SafetensorsFile } from '../util/safetensors.js';
import { type CorpusManifest, type CorpusPrompt, type CorpusShard, readManifest } from './corpus-file.js';

/** States of one hook and layer: `rows[i]` is a row of the prompt `prompts[i]`. */
export interface CorpusRows {
  readonly prompts: readonly CorpusPrompt[];
  readonly rows: readonly Float32Array[];
}

/** Hidden states of many prompts in a folder, as `captureCorpus` and `xpatch capture --prompts` write them. */
export class Corpus {
  /** @internal Use `openCorpus`. */
  constructor(
    readonly folder: string,
    readonly manifest: CorpusManifest,
  ) {}

  /** How many prompts there are. */
  get length(): number {
    return this.manifest.shards.reduce((n, { prompts }) => n + prompts, 0);
  }

  /** The prompts, in their order. One shard is read at a time. */
  async *prompts(): AsyncGenerator<CorpusPrompt> {
    for (const shard of this.manifest.shards) yield* this.index(shard);
  }

  /**
   * Every state of a hook at one layer, shard by shard, such as the data of a linear probe.
   *
   * @param layer one of those that were captured; whichever for `embed` and `final_norm`, which have one place
   * @param wanted of which prompts. Defaults to all
   * @throws {XpatchError} LAYER_OUT_OF_RANGE, INVALID_ARGUMENT for what was not captured; DATA_INVALID, SAFETENSORS_INVALID
   */
  async *rows(
    layer: number,
    hook: HookName = this.manifest.hooks[0] as HookName,
    wanted: (prompt: CorpusPrompt) => boolean = () => true,
  ): AsyncGenerator<CorpusRows> {
    const { hooks, layers, shards } = this.manifest;
    const l = ONE_PLACE[hook] ? 0 : layers.indexOf(layer);
    if (l < 0) throw new XpatchError('LAYER_OUT_OF_RANGE', `The corpus has layers ${layers.join(', ')}, not ${layer}.`);
    if (!hooks.includes(hook)) {
      throw new XpatchError('INVALID_ARGUMENT', `The corpus has the hooks ${hooks.join(', ')}, not ${hook}.`);
    }
    for (const shard of shards) {
      await using file = await this.states(shard);
      const [, nLayers = 0, width = 0] = file.tensors.get(hook)?.shape ?? [];
      const prompts: CorpusPrompt[] = [];
      const found: Float32Array[] = [];
      for await (const prompt of this.index(shard)) {
        if (!wanted(prompt)) continue;
        for (let row = prompt.rows[0]; row < prompt.rows[1]; row++) {
          const bytes = new Uint8Array(4 * width);
          await file.readBytes(hook, 4 * (row * nLayers + l) * width, bytes);
          found.push(new Float32Array(bytes.buffer));
          prompts.push(prompt);
        }
      }
      yield { prompts, rows: found };
    }
  }

  /** How many of the shards, from the first, are there as the manifest says. @param options.hashes to read all of their bytes */
  async whole({ hashes = false } = {}): Promise<number> {
    for (const [i, shard] of this.manifest.shards.entries()) {
      try {
        await using _ = await this.states(shard);
        let prompts = 0;
        for await (const _ of this.index(shard)) prompts++;
        if (prompts !== shard.prompts) return i;
        const { sha256, name } = shard;
        if (hashes && sha256 && !isDeepStrictEqual(await hashesOf(this.folder, name), sha256)) return i;
      } catch {
        return i;
      }
    }
    return this.manifest.shards.length;
  }

  private async states({ name, rows: nRows }: CorpusShard): Promise<SafetensorsFile> {
    const { hooks, layers } = this.manifest;
    const path = join(this.folder, `${name}.safetensors`);
    const file = await SafetensorsFile.open(path);
    for (const hook of hooks) {
      const { dtype, shape = [] } = file.tensors.get(hook) ?? {};
      const [rows, nLayers] = shape;
      if (dtype === 'F32' && rows === nRows && nLayers === (ONE_PLACE[hook] ? 1 : layers.length)) continue;
      await file.close();
      throw invalid(path, `does not have ${nRows} rows of ${hook}`);
    }
    return file;
  }

  private async *index({ name, rows: nRows }: CorpusShard): AsyncGenerator<CorpusPrompt> {
    const path = join(this.folder, `${name}.jsonl`);
    try {
      for await (const { fields } of readRecords(path, { pipe: false })) {
        const { rows, ...prompt } = fields as unknown as CorpusPrompt;
        const [from = -1, to = -1] = Array.isArray(rows) ? rows : [];
        const isPart = Number.isSafeInteger(from) && Number.isSafeInteger(to) && 0 <= from && from <= to && to <= nRows;
        if (!isPart) throw new Error(`has a prompt whose rows are not of the ${nRows} in the shard`);
        yield { ...prompt, rows };
      }
    } catch (cause) {
      throw invalid(path, `is damaged (${(cause as Error).message})`, cause);
    }
  }
}

/** SHA-256 of the files of a shard. */
export async function hashesOf(folder: string, name: string): Promise<NonNullable<CorpusShard['sha256']>> {
  const [states, prompts] = ['safetensors', 'jsonl'].map((ending) => join(folder, `${name}.${ending}`));
  return { states: await hashOf(states as string), prompts: await hashOf(prompts as string) };
}

/**
 * Opens a corpus of `captureCorpus`.
 *
 * @throws {XpatchError} FILE_NOT_FOUND for a folder without one, DATA_INVALID for one that is damaged or not complete
 */
export async function openCorpus(folder: string): Promise<Corpus> {
  const manifest = await readManifest(folder);
  if (manifest === undefined) {
    throw new XpatchError('FILE_NOT_FOUND', `${folder} has no corpus.json. Make one with "xpatch capture --prompts".`);
  }
  if (manifest.status !== 'complete') throw invalid(folder, 'is not complete: start its command again to resume it');
  return new Corpus(folder, manifest);
}

function invalid(path: string, problem: string, cause?: unknown): XpatchError {
  return new XpatchError('DATA_INVALID', `${path} ${problem}. Capture the corpus again.`, { cause });
}
