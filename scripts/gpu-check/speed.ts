// What a GPU may be slow at: stops of the graph at points that are read, batches of an experiment, flash attention.
import { join } from 'node:path';
import { makeModel } from '../../bench/make-model.mjs';
import type { HookName } from '../../src/hooks/types.js';
import type { Context } from '../../src/model/context.js';
import { loadModel } from '../../src/model/load-model.js';

export interface Figure {
  what: string;
  unit: string;
  value: number;
}

/** Ten points of every layer, from the one that is read most. */
const POINTS: HookName[] = [
  ...(['resid_post', 'resid_mid', 'attn_out', 'mlp_out', 'z', 'q', 'k', 'v', 'pattern', 'mlp_post'] as const),
];

/** Median seconds of each action, in turns. */
async function secondsOf(actions: readonly (() => Promise<unknown>)[], repetitions: number): Promise<number[]> {
  const times = actions.map((): number[] => []);
  for (let i = 0; i <= repetitions; i++) {
    for (const [which, action] of actions.entries()) {
      const from = performance.now();
      await action();
      if (i > 0) times[which]?.push((performance.now() - from) / 1000); // the first time is for caches and shaders
    }
  }
  return times.map((list) => list.sort((a, b) => a - b)[list.length >> 1] as number);
}

/** With a model in the shape of SmolLM2-135M, F16, random weights, written to the folder. */
export async function measureStops(device: string, folder: string, quick: boolean): Promise<Figure[]> {
  const [layers, length, long, repetitions] = quick ? [2, 32, 64, 1] : [30, 600, 2000, 5];
  const path = join(folder, 'random.gguf');
  makeModel(path, { layers });
  await using model = await loadModel(path, { device, ...(quick && { threads: 1 }) });
  const tokens = (n: number, seed: number) =>
    Array.from({ length: n }, (_, i) => 10 + ((i * 7919 + seed * 104729) % 49000));
  const promptOf = (n: number) => model.prompt({ tokens: tokens(n, 1) });
  const figures: Figure[] = [];
  const prompt = await promptOf(length);
  await using off = await model.createContext({ nCtx: 2 * long, flashAttention: 'off' });
  const reading = (points: number) => () =>
    off.run({
      prompt,
      topK: 1,
      captures: POINTS.slice(0, points).map((hook) => ({ hook, positions: 'last' as const })),
    });
  const points = [0, 1, 4, 10];
  const stops = await secondsOf(points.map(reading), repetitions);
  for (const [i, n] of points.entries()) {
    const times = i === 0 ? '' : `, ${((stops[i] as number) / (stops[0] as number)).toFixed(3)} times none`;
    figures.push({
      what: `prefill of ${length} with ${n * layers} stops${times}`,
      unit: 's',
      value: stops[i] as number,
    });
  }
  await using on = await model.createContext({ nCtx: 2 * long, flashAttention: 'on' });
  for (const n of [length, long]) {
    const text = await promptOf(n);
    const plain = (context: Context) => () => context.run({ prompt: text, topK: 1 });
    const [without, flash] = (await secondsOf([plain(off), plain(on)], repetitions)) as [number, number];
    figures.push({
      what: `prefill of ${n}, flash attention on, ${(flash / without).toFixed(3)} times off`,
      unit: 's',
      value: flash,
    });
  }
  for (const size of quick ? [1, 4] : [1, 8, 32, 128, 512]) {
    await using context = await model.createContext({ nCtx: Math.max(1024, 32 * size) });
    const value = Float32Array.from({ length: model.info.nEmbd }, (_, i) => Math.sin(i));
    const rows = Array.from({ length: size }, (_, i) => ({
      prompt: [{ tokens: tokens(16, 2 + i) }],
      interventions: [{ layers: layers >> 1, op: 'replace' as const, value }],
    }));
    const [seconds = 0] = await secondsOf([() => context.generate(rows, { maxTokens: 4 })], repetitions);
    figures.push({
      what: `patched queries of 16 tokens, ${size} in a batch`,
      unit: 'queries/s',
      value: size / seconds,
    });
  }
  return figures;
}
