import type { LensCell } from '../../src/lens/logit-lens.js';
import type { LensView, Report } from '../../src/report/report.js';

export interface SampleOptions {
  layers: readonly number[];
  positions: number;
  /** Best tokens of a cell. */
  topK?: number;
  /** Size of the vocabulary that the tokens are drawn from. */
  vocabulary?: number;
  /** How many tokens are followed. */
  tracked?: number;
  text?: (token: number) => string;
}

/** A lens with made-up numbers that differ in every cell; the same for the same options. */
export function sampleLens(options: SampleOptions): LensView {
  const { layers, positions, topK = 3, vocabulary = 50, tracked = 0, text = (token) => ` word${token}` } = options;
  let seed = 1;
  const random = () => {
    seed = (seed * 48271) % 2147483647;
    return seed / 2147483647;
  };
  const cell = (): LensCell => {
    const first = Math.floor(random() * vocabulary);
    const score = (token: number, probability: number) => ({
      token,
      text: text(token),
      logit: Math.log(probability),
      probability,
    });
    let left = 1;
    const top = Array.from({ length: topK }, (_, r) => {
      const probability = left * (0.3 + 0.6 * random());
      left -= probability;
      return score((first + r) % vocabulary, probability);
    });
    return {
      top,
      tokens: Array.from({ length: tracked }, (_, t) => ({ ...score(t, 1e-4 * random()), rank: 10 + t })),
      entropy: 8 * random(),
      kl: 5 * random(),
    };
  };
  const cells = layers.map(() => Array.from({ length: positions }, cell));
  return {
    title: 'Logit lens',
    lens: {
      layers: [...layers],
      positions: Array.from({ length: positions }, (_, p) => p),
      cells,
      settled: Array.from({ length: positions }, (_, p) => layers[p % layers.length] as number),
    },
    inputs: Array.from({ length: positions }, (_, p) => ({ text: ` in${p}`, kind: 'token' as const })),
    pictures: [],
  };
}

export const sampleReport = (blocks: Report['blocks']): Report => ({
  title: 'A report',
  introduction: ['What this is.'],
  blocks,
  provenance: { command: 'xpatch lens', seed: 1 },
});
