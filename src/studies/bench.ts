import { cpuUsage, resourceUsage } from 'node:process';
import type { Intervention } from '../hooks/types.js';
import { logitLens } from '../lens/logit-lens.js';
import type { Context } from '../model/context.js';
import type { HiddenStates } from '../model/hidden-states.js';
import type { RowInput } from '../model/pass.js';
import type { OnProgress } from '../model/types.js';
import { XpatchError } from '../util/errors.js';

/** How fast one kind of work is. */
export interface Measurement {
  readonly name: 'prefill' | 'decode' | 'capture' | 'sweep' | 'lens' | 'queries' | 'picture' | 'memory';
  readonly what: string;
  /** Of what so many are done in a second; MB of `memory`. */
  readonly unit: string;
  /** The median of the repetitions. */
  readonly value: number;
  /** Seconds of processors for a second on the clock; none of `memory`. */
  readonly busy?: number;
}

interface Work extends Pick<Measurement, 'name' | 'what' | 'unit'> {
  /**
   * @param n another for each call, so that nothing is known from the last one
   * @returns how many units it did
   */
  readonly run: (n: number) => Promise<number>;
}

/** At least so often, whatever it takes. */
const LEAST = 3;
/** Tokens of a long prompt, and of a query. */
const LENGTH = 512;
const SHORT = 16;
/** Asked in one pass. */
const QUERIES = 24;

/**
 * Measures what experiments are made of, each kind of work for about the same time. Prompts are token ids without meaning: what they say
 * makes no difference to the time.
 *
 * @param options.seconds for all together. Defaults to 40; slow models take longer
 * @throws {XpatchError} ABORTED; as `Context.pass`
 */
export async function measureSpeed(
  context: Context,
  options: { seconds?: number; signal?: AbortSignal; onProgress?: OnProgress } = {},
): Promise<Measurement[]> {
  const { seconds = 40, signal, onProgress } = options;
  const works = worksOf(context);
  const measured: Measurement[] = [];
  for (const { name, what, unit, run } of works) {
    await run(0); // caches, threads and the graph are there then
    const rates: number[] = [];
    const from = performance.now();
    const used = cpuUsage();
    const spent = () => (performance.now() - from) / 1000;
    while (rates.length < LEAST || spent() < seconds / works.length) {
      if (signal?.aborted) throw new XpatchError('ABORTED', 'The measurement was aborted.', { cause: signal.reason });
      const begun = performance.now();
      const done = await run(rates.length + 1);
      rates.push((1000 * done) / (performance.now() - begun));
      const part = Math.min(1, Math.max(rates.length / LEAST, (spent() * works.length) / seconds));
      onProgress?.({ done: measured.length + part, total: works.length });
    }
    const { user, system } = cpuUsage(used);
    rates.sort((a, b) => a - b);
    const value = rates[rates.length >> 1] as number;
    measured.push({ name, what, unit, value, busy: (user + system) / 1e6 / spent() });
  }
  const memory = resourceUsage().maxRSS / 1024;
  return [...measured, { name: 'memory', what: 'most memory of the process', unit: 'MB', value: memory }];
}

function worksOf(context: Context): Work[] {
  const { model } = context;
  const { nLayers, nVocab, nEmbd, maxPositions = LENGTH } = model.info;
  const length = Math.min(LENGTH, maxPositions, context.options.nCtx >> 1);
  const newTokens = Math.min(32, length >> 2);
  const promptOf = (n: number, seed: number) => [
    { tokens: Array.from({ length: n }, (_, i) => (10 + i * 7919 + seed * 104729) % nVocab) },
  ];
  const value = Float32Array.from({ length: nEmbd }, (_, i) => Math.sin(i));
  const patch = (layer: number): Intervention[] => [{ layers: layer, op: 'replace', value }];
  const layers = Array.from({ length: nLayers }, (_, layer) => layer);
  const ofPrompt = `of a prompt of ${length}`;
  const answers = async (rows: RowInput[], maxTokens: number) => {
    const generations = await context.generate(rows, { maxTokens });
    return generations.reduce((sum, { tokens }) => sum + tokens.length, 0);
  };
  let states: HiddenStates | undefined;
  const works: Work[] = [
    {
      name: 'prefill',
      what: `positions ${ofPrompt}`,
      unit: 'positions',
      run: async (n) => (await context.run({ prompt: promptOf(length, n), topK: 1 })).prompt.length,
    },
    {
      name: 'decode',
      what: 'new tokens, one after the other',
      unit: 'tokens',
      run: (n) => answers([promptOf(SHORT, n)], newTokens),
    },
    {
      name: 'capture',
      what: `positions ${ofPrompt} read at all ${nLayers} layers`,
      unit: 'positions',
      run: async (n) => (await context.run({ prompt: promptOf(length, n), capture: 'all' })).prompt.length,
    },
    {
      name: 'sweep',
      what: `layers patched at the last token ${ofPrompt}`,
      unit: 'layers',
      run: async (n) => {
        const prompt = await model.prompt(promptOf(length, n));
        return (await context.pass(layers.map((layer) => ({ prompt, interventions: patch(layer), topK: 5 })))).length;
      },
    },
    {
      name: 'lens',
      what: 'states read as words, 10 best tokens',
      unit: 'states',
      run: async () => {
        states ??= (await context.run({ prompt: promptOf(SHORT, 0), capture: 'all' })).states;
        const { cells } = await logitLens(context, states, { topK: 10 });
        return cells.length * SHORT;
      },
    },
    {
      name: 'queries',
      what: `tokens of patched answers, ${QUERIES} queries of ${SHORT} tokens at a time`,
      unit: 'tokens',
      run: (n) => {
        const rows = Array.from({ length: QUERIES }, (_, i) => ({
          prompt: promptOf(SHORT, n * QUERIES + i),
          interventions: patch(nLayers >> 1),
        }));
        return answers(rows, 4);
      },
    },
  ];
  if (model.files.mmproj === undefined) return works;
  const pixels = (seed: number) => Uint8Array.from({ length: 224 * 224 * 3 }, (_, i) => (i * (seed + 3)) % 256);
  const picture = async (n: number) => {
    await model.prompt([{ image: { data: pixels(n), width: 224, height: 224 } }]);
    return 1;
  };
  return [...works, { name: 'picture', what: 'pictures of 224 x 224 encoded', unit: 'pictures', run: picture }];
}
