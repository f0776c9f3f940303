import { checkProjectorFile } from '../gguf/mmproj-check.js';
import type { ImageEncoder } from '../images/encoders/encoder.js';
import { openEncoder } from '../images/encoders/index.js';
import { rgbImage } from '../images/image.js';
import { native, nativeError } from '../native/index.js';
import { Prompt, type Segment } from '../prompt/prompt.js';
import type { XpatchError, XpatchErrorCode } from '../util/errors.js';
import type { Context } from './context.js';
import { loadModel } from './load-model.js';
import type { Model } from './model.js';
import type { TrialJob } from './trial.js';

/** Letters, digits, spaces, scripts and an emoji: each is split by a rule of its own. */
const TEXT = "Q: The cat's 1234 naïve\n\tcafés… 猫は12 🙂 A:";
/** Tokens of the text that are computed, and rows of the picture: those of a model of 8B take a tenth of a second each. */
const ROWS = 2;
/** Of a common shape: some encoders end the process on a narrow one. */
const PICTURE = rgbImage(
  Uint8Array.from({ length: 56 * 56 * 3 }, (_, i) => (i * 37) % 256),
  56,
  56,
);

/** Errors that may have kept the rest from being tried. */
const UNFINISHED: readonly XpatchErrorCode[] = ['MODEL_LOAD', 'NATIVE_FAILURE', 'ADDON_LOAD', 'DEVICE_UNKNOWN'];

type Attempt = (stage: string, work: () => Promise<unknown>) => Promise<boolean>;

/**
 * Loads files and runs them for a few tokens and a picture, which may end the process.
 *
 * @param onStage hears of each step before it is made
 * @returns whether all of it was tried
 */
export async function runTrial(job: TrialJob, onStage: (stage: string) => void): Promise<boolean> {
  let complete = true;
  // An error is an answer: whoever loads the files gets it again.
  const attempt: Attempt = async (stage, work) => {
    onStage(stage);
    try {
      await work();
      return true;
    } catch (error) {
      const { code } = nativeError(error, stage);
      if (UNFINISHED.includes(code)) complete = false;
      return false;
    }
  };
  const { device, gpuLayers } = job;
  let model: Model | undefined;
  await attempt('the model was loaded', async () => {
    // One thread: several wait for each other in loops, which on a busy machine takes minutes. Pictures are worth more.
    const options = { device, gpuLayers, threads: 1, trust: true };
    const load = (weightless: boolean) => loadModel(job.model, { ...options, weightless });
    // Where there is no room for weights that take none, they are mapped from the file.
    model = await load(true).catch(() => load(false));
  });
  if (!model) return false;
  const tokens = await tryTokens(model, attempt);
  await tryContexts(model, tokens, attempt);
  if (job.mmproj !== undefined) await tryPicture(model, tokens, job.mmproj, job, attempt);
  await attempt('the model was freed', () => (model as Model).dispose());
  return complete;
}

/** Tokens to be computed. */
async function tryTokens(model: Model, attempt: Attempt): Promise<Int32Array> {
  let tokens = Int32Array.from({ length: ROWS }, (_, i) => Math.min(i, model.info.nVocab - 1));
  await attempt('text was tokenised', async () => {
    if (!model.info.hasTokenizer) return;
    const found = model.tokenize(TEXT);
    model.detokenize(found);
    model.detokenize(native().addon.modelControlTokens(model.native));
    model.isEnd(0);
    if (found.length >= ROWS) tokens = found.slice(0, ROWS);
  });
  return tokens;
}

async function tryContexts(model: Model, tokens: Int32Array, attempt: Attempt): Promise<void> {
  const prompt = new Prompt([{ kind: 'tokens', tokens }], {}, []);
  await attempt('its first tokens were computed', () =>
    withContext(model, 'off', async (context) => {
      const capture = { layers: 'all', positions: 'last' } as const;
      await context.pass([{ prompt, capture, topK: 1 }]).catch((error: XpatchError) => {
        if (error.code !== 'HOOK_UNSUPPORTED') throw error;
        return context.pass([{ prompt, topK: 1 }]);
      });
      const state = new Float32Array(model.info.nEmbd).fill(1);
      await context.readOut({ data: state, layers: [0], positions: [0] }, { topK: 1, tokens: [], normalise: true });
    }),
  );
  await attempt('a token was computed with flash attention', () => {
    const one = new Prompt([{ kind: 'tokens', tokens: tokens.slice(0, 1) }], {}, []);
    return withContext(model, 'on', (context) => context.pass([{ prompt: one, topK: 1 }]));
  });
}

async function tryPicture(
  model: Model,
  tokens: Int32Array,
  path: string,
  job: TrialJob,
  attempt: Attempt,
): Promise<void> {
  let encoder: ImageEncoder | undefined;
  await attempt('the picture encoder was loaded', async () => {
    const settings = { ...job, projector: checkProjectorFile(path), hash: '' };
    encoder = await openEncoder({ handle: model.native, info: model.info }, path, settings);
  });
  if (!encoder) return;
  let rows: Segment[] = [];
  await attempt('a picture was encoded', async () => {
    const segments = await (encoder as ImageEncoder).encode(PICTURE);
    rows = [{ kind: 'tokens', tokens }, ...segments.slice(0, 8).map(shorten)];
  });
  await attempt('the picture encoder was freed', () => (encoder as ImageEncoder).dispose());
  if (rows.length === 0) return;
  await attempt('a picture was read by the model', () =>
    withContext(model, 'off', (context) => context.pass([{ prompt: new Prompt(rows, {}, []), topK: 1 }])),
  );
}

/** The first rows of a picture, and tokens as they are. */
function shorten(segment: Segment): Segment {
  if (segment.kind === 'tokens' || segment.nRows <= ROWS) return segment;
  const { nRows, positions } = segment;
  const width = segment.embeddings.length / nRows;
  return {
    ...segment,
    nRows: ROWS,
    embeddings: segment.embeddings.slice(0, ROWS * width),
    // Dimension by dimension.
    positions: positions.filter((_, i) => i % nRows < ROWS),
  };
}

async function withContext(
  model: Model,
  flashAttention: 'on' | 'off',
  work: (context: Context) => Promise<unknown>,
): Promise<void> {
  const context = await model.createContext({ nCtx: 512, flashAttention });
  try {
    await work(context);
  } finally {
    await context.dispose();
  }
}
