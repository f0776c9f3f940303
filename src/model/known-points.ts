import { join } from 'node:path';
import { checkModelFile, modelParts } from '../gguf/gguf-check.js';
import { headerHash } from '../gguf/header-hash.js';
import type { HookPoint } from '../hooks/points.js';
import { pointsFolder } from '../hub/cache.js';
import type { ModelFiles } from '../hub/resolve.js';
import { native } from '../native/index.js';
import { XpatchError } from '../util/errors.js';
import { makeFolder, writeFileAtomic } from '../util/files.js';
import { parseJson } from '../util/json.js';
import { readWhole } from '../util/read-file.js';
import type { ContextOptions } from './context-options.js';
import { loadModel } from './load-model.js';
import type { LoadOptions } from './model.js';
import type { ModelIdentity } from './types.js';

/** Where states of a model can be read and written. */
export interface KnownPoints {
  readonly model: Omit<ModelIdentity, 'hash'>;
  readonly flashAttention: string;
  readonly hooks: readonly (Omit<HookPoint, 'hook'> & { readonly hook: string })[];
}

/** To be raised when the points are others than before. */
const FORMAT = 'xpatch.points/1';
const RECORD = { what: 'the record of its points', maxBytes: 1 << 24 } as const;

/**
 * The points of a model: as this machine found them before in files with the same headers, else by loading it without
 * the data of its weights, on which no point depends.
 *
 * @throws {XpatchError} as `loadModel` and `Model.createContext`
 */
export async function knownPoints(
  files: ModelFiles,
  options: LoadOptions & Pick<ContextOptions, 'flashAttention'>,
): Promise<KnownPoints> {
  const { flashAttention, device = 'auto', gpuLayers = -1 } = options;
  const header = checkModelFile(files.model);
  const salt = [FORMAT, native().build.sha256, device, gpuLayers, flashAttention].join(' ');
  const ofModel = await headerHash(salt, modelParts(files.model), header);
  const key = files.mmproj === undefined ? ofModel : await headerHash(ofModel, [files.mmproj]);
  const record = join(pointsFolder(), `${key}.json`);
  const known = await read(record);
  if (known) return known;

  const load = (weightless: boolean) => loadModel(files.model, { ...options, mmproj: files.mmproj, weightless });
  await using model = await load(true).catch((error: XpatchError) => {
    if (error.code !== 'MODEL_LOAD') throw error;
    return load(false); // as in a trial: there may be no room for weights that are not mapped
  });
  await using context = await model.createContext({ nCtx: 64, nUbatch: 64, flashAttention });
  const vision = model.visionPoint();
  const { hash: _, ...identity } = model.identity;
  const found = {
    model: identity,
    flashAttention: context.options.flashAttention,
    hooks: [...context.hooks, ...(vision ? [vision] : [])],
  };
  await write(record, found);
  return found;
}

/** A record that cannot be read is made again. */
async function read(path: string): Promise<KnownPoints | undefined> {
  try {
    const { format, ...points } = parseJson(
      await readWhole(path, { ...RECORD, code: 'DATA_INVALID' }),
    ) as KnownPoints & {
      format: string;
    };
    return format === FORMAT && Array.isArray(points.hooks) ? points : undefined;
  } catch {
    return undefined;
  }
}

/** In a folder that cannot be written to, the next process searches again. */
async function write(path: string, points: KnownPoints): Promise<void> {
  try {
    await makeFolder(pointsFolder());
    await writeFileAtomic(path, `${JSON.stringify({ format: FORMAT, ...points })}\n`);
  } catch (error) {
    if (!(error instanceof XpatchError)) throw error;
  }
}
