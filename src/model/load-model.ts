import { createHash } from 'node:crypto';
import { statSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { hookRefusal } from '../gguf/architecture-check.js';
import { type GgufHeader, ggufNumber, readGgufHeader } from '../gguf/gguf.js';
import { checkModelFile, modelParts } from '../gguf/gguf-check.js';
import { checkProjectorFile } from '../gguf/mmproj-check.js';
import { isQuantised, modelNotes, projectorNotes } from '../gguf/model-notes.js';
import { resolveModel } from '../hub/resolve.js';
import { openEncoder } from '../images/encoders/index.js';
import type { ModelHandle } from '../native/addon.js';
import { native, nativeError } from '../native/index.js';
import { findServers } from '../native/rpc.js';
import { JsonTokenizer } from '../prompt/tokenizer.js';
import { XpatchError } from '../util/errors.js';
import { hashInto } from '../util/files.js';
import { SMALL_BYTES } from './context-options.js';
import { type LoadOptions, Model, type ModelInfo } from './model.js';
import { readQkNorm } from './qk-norm.js';
import { tryFiles } from './trial.js';

/** Values of general.file_type (enum llama_ftype) whose matrices are F32, F16 and BF16. */
const FLOAT_FILES = new Set<number | undefined>([0, 1, 32]);

/**
 * Loads a GGUF model, and its picture encoder.
 *
 * @param source Name from the catalogue (`demo` comes with the package), `hf:` URI, or path of a GGUF file. Nothing is downloaded
 *   here: see `downloadModel`.
 * @throws XpatchError FILE_NOT_FOUND, MODEL_NOT_DOWNLOADED, GGUF_INVALID, MMPROJ_INVALID, MODEL_LOAD, DEVICE_UNKNOWN, ARCHITECTURE_UNSUPPORTED, MODEL_UNUSABLE, RPC_FAILED, ABORTED.
 *
 * @example
 * ```ts
 * await using model = await loadModel('demo');
 * await using context = await model.createContext();
 * ```
 */
export async function loadModel(source: string, options: LoadOptions = {}): Promise<Model> {
  const files = resolveModel(source, options.mmproj);
  const { addon } = native();
  const threads = options.threads ?? defaultThreads(files.model);
  const device = options.device ?? 'auto';
  if (!Number.isInteger(threads) || threads < 1 || threads > 512) {
    throw new XpatchError('INVALID_ARGUMENT', `threads must be a whole number from 1 to 512, not ${threads}.`);
  }
  const gpuLayers = options.gpuLayers ?? -1;
  if (!Number.isInteger(gpuLayers) || gpuLayers < -1) {
    throw new XpatchError('INVALID_ARGUMENT', `gpuLayers must be a whole number from 0, not ${gpuLayers}.`);
  }
  const aborted = (cause?: unknown) => new XpatchError('ABORTED', 'Loading the model was aborted.', { cause });
  if (options.signal?.aborted) throw aborted(options.signal.reason);
  const header = checkModelFile(files.model);
  const qkNorm = readQkNorm(header, files.model);
  const tokenizer = JsonTokenizer.of(header, files.model);
  const projector = files.mmproj ? checkProjectorFile(files.mmproj, header) : undefined;

  const abort = new Int32Array(1);
  const onAbort = () => {
    abort[0] = 1;
  };
  let thrown: { error: unknown } | undefined;
  const onProgress = (fraction: number) => {
    try {
      if (!thrown) options.onProgress?.(fraction);
    } catch (error) {
      thrown = { error };
      onAbort();
    }
  };
  options.signal?.addEventListener('abort', onAbort);
  let handle: ModelHandle | undefined;
  try {
    await tryFiles(files, header, { ...options, device, gpuLayers, threads });
    const hashing = options.weightless ? '' : hashFiles(modelParts(files.model), options.signal);
    Promise.resolve(hashing).catch(() => {}); // awaited below; an earlier failure of loading must not leave it unhandled
    const { weightless } = options;
    const rpc = await findServers(options.rpc ?? []);
    const floats = FLOAT_FILES.has(ggufNumber(header, 'general.file_type'));
    const load = { path: files.model, device, rpc, gpuLayers, qkNorm, weightless, floats };
    handle = await addon.modelLoad(load, onProgress, abort);
    if (thrown) throw thrown.error;
    const info: ModelInfo = { ...addon.modelInfo(handle), maxPositions: learnedPositions(header) };
    const bos = ggufNumber(header, 'tokenizer.ggml.bos_token_id') ?? info.bosToken;
    if (bos < 0 || bos >= info.nVocab) {
      if (info.addsBos && info.hasTokenizer) {
        const message = `'${files.model}' is not a usable model: its tokenizer begins prompts with token ${bos}, of ${info.nVocab} tokens.`;
        throw new XpatchError('GGUF_INVALID', message);
      }
      info.bosToken = -1; // llama.cpp falls back to a token that the file does not mean
    }
    if (info.hasEncoder || !info.hasDecoder) {
      throw new XpatchError('ARCHITECTURE_UNSUPPORTED', `'${info.architecture}' is not a decoder-only language model.`);
    }
    const hash = await hashing;
    const identity = {
      hash,
      architecture: info.architecture,
      name: info.name,
      nEmbd: info.nEmbd,
      nLayers: info.nLayers,
    };
    const model = new Model(handle, identity, info, files, { ...options, threads, device }, tokenizer);
    model.hookRefusal = hookRefusal(header, info.recurrent);
    model.quantised = isQuantised(header);
    model.notes.push(...modelNotes(header, info.slidingWindow));
    if (files.mmproj && projector) {
      const hash = await hashFiles([files.mmproj], options.signal);
      const settings = { projector, hash, device, threads };
      const encoder = await openEncoder({ handle, info }, files.mmproj, settings).catch((error) => {
        throw nativeError(error, `'${files.mmproj}' cannot be used with '${files.model}'`);
      });
      model.useEncoder(encoder, hash);
      model.notes.push(...projectorNotes(readGgufHeader(files.mmproj), projector));
    }
    return model;
  } catch (error) {
    if (handle) await addon.modelDispose(handle);
    if (thrown) throw thrown.error;
    if (options.signal?.aborted) throw aborted(error);
    throw nativeError(error, `'${files.model}' cannot be loaded`);
  } finally {
    options.signal?.removeEventListener('abort', onAbort);
  }
}

/** llama.cpp ends the process at a position beyond the table's end. */
function learnedPositions({ tensors }: GgufHeader): number | undefined {
  return tensors.find(({ name }) => name === 'position_embd.weight')?.shape[1];
}

function defaultThreads(path: string): number {
  const bytes = modelParts(path).reduce((sum, part) => sum + statSync(part).size, 0);
  return bytes < SMALL_BYTES ? 1 : Math.min(availableParallelism(), 8);
}

/** SHA-256 of the bytes of files, one after the other. */
async function hashFiles(paths: readonly string[], signal?: AbortSignal): Promise<string> {
  const hash = createHash('sha256');
  for (const path of paths) await hashInto(hash, path, signal);
  return hash.digest('hex');
}
