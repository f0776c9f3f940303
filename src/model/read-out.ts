import type { LensJob, LensReadings } from '../native/addon.js';
import type { HiddenStates } from './hidden-states.js';
import type { OnProgress, TokenScore } from './types.js';

/** States on a grid: `data[(l * positions.length + p) * width + i]`. */
export type StateGrid = Pick<HiddenStates, 'data' | 'layers' | 'positions'>;

/** The options of `logitLens`, defaults filled in. */
export interface ReadOutOptions {
  topK: number;
  tokens: readonly number[];
  normalise: boolean;
  signal?: AbortSignal;
  onProgress?: OnProgress;
}

/** What one state says. */
export interface StateReading {
  /** The best tokens, best first. */
  top: TokenScore[];
  /** The chosen tokens, in the order they were asked for; `rank` 0 is the best token. */
  tokens: (TokenScore & { rank: number })[];
  /** Entropy of the distribution over the vocabulary, nats. */
  entropy: number;
  /** KL divergence of this distribution from that of the highest layer at the same position, nats; 0 for that layer itself. */
  kl: number;
}

/** What reading needs of a context. */
export interface ReadOutTarget {
  runTail(job: LensJob): Promise<void>;
  textOf(token: number): string;
}

/** Parts of the graph after the last block, in the order of the native enum. */
const TAIL = { whole: 0, norm: 1, head: 2 } as const;

/** Rows whose logits are in memory at once, whatever the size of the grid. */
const CHUNK = 128;

/** `result[l][p]` is what state (l, p) says. */
export async function readStates(
  target: ReadOutTarget,
  { data, layers, positions }: StateGrid,
  { topK, tokens, normalise, onProgress }: ReadOutOptions,
): Promise<StateReading[][]> {
  const nLayers = layers.length;
  const width = data.length / (nLayers * positions.length);
  const top = layers.indexOf(Math.max(...layers));
  const texts = new Map<number, string>();
  const textOf = (token: number): string => {
    let text = texts.get(token);
    if (text === undefined) {
      text = target.textOf(token);
      texts.set(token, text);
    }
    return text;
  };
  const result: StateReading[][] = layers.map(() => new Array(positions.length));

  // Position by position, so that the highest layer, which the others are compared with, is always in the same chunk.
  const perChunk = Math.max(1, Math.floor(CHUNK / nLayers));
  for (let first = 0; first < positions.length; first += perChunk) {
    const count = Math.min(perChunk, positions.length - first);
    const rows = count * nLayers;
    const states = new Float32Array(rows * width);
    for (let row = 0; row < rows; row++) {
      const from = ((row % nLayers) * positions.length + first + Math.floor(row / nLayers)) * width;
      states.set(data.subarray(from, from + width), row * width);
    }
    const readings: LensReadings = {
      topK,
      topIds: new Int32Array(rows * topK),
      topLogits: new Float32Array(rows * topK),
      tokens: Int32Array.from(tokens),
      tokenLogits: new Float32Array(rows * tokens.length),
      tokenRanks: new Int32Array(rows * tokens.length),
      logsumexp: new Float32Array(rows),
      entropy: new Float32Array(rows),
      reference: Int32Array.from({ length: rows }, (_, row) => row - (row % nLayers) + top),
      kl: new Float32Array(rows),
    };
    await target.runTail({ tail: normalise ? TAIL.whole : TAIL.head, rows, states, readings });
    for (let row = 0; row < rows; row++) {
      (result[row % nLayers] as StateReading[])[first + Math.floor(row / nLayers)] = reading(readings, row, textOf);
    }
    onProgress?.({ done: (first + count) * nLayers, total: positions.length * nLayers });
  }
  return result;
}

function reading(of: LensReadings, row: number, textOf: (token: number) => string): StateReading {
  const score = (token: number, logit: number): TokenScore => ({
    token,
    text: textOf(token),
    logit,
    probability: Math.exp(logit - (of.logsumexp[row] as number)),
  });
  const tops = row * of.topK;
  const chosen = row * of.tokens.length;
  return {
    top: Array.from({ length: of.topK }, (_, i) =>
      score(of.topIds[tops + i] as number, of.topLogits[tops + i] as number),
    ),
    tokens: Array.from(of.tokens, (token, i) => ({
      ...score(token, of.tokenLogits[chosen + i] as number),
      rank: of.tokenRanks[chosen + i] as number,
    })),
    entropy: of.entropy[row] as number,
    kl: of.kl[row] as number,
  };
}

/** The model's final norm of rows of `width` numbers. */
export async function normStates(
  target: ReadOutTarget,
  data: Float32Array,
  width: number,
  onProgress?: OnProgress,
): Promise<Float32Array> {
  const total = data.length / width;
  const result = new Float32Array(data.length);
  for (let done = 0; done < total; ) {
    const rows = Math.min(CHUNK, total - done);
    const [from, to] = [done * width, (done + rows) * width];
    const normed = result.subarray(from, to);
    await target.runTail({ tail: TAIL.norm, rows, states: data.subarray(from, to), normed });
    done += rows;
    onProgress?.({ done, total });
  }
  return result;
}
