#!/usr/bin/env node
// What work costs by its size: length of the prompt, layers that are read, rows that are patched, queries in a batch, cores. Processor
// seconds (of cores: on the clock too), least of the repetitions, on a model in the shape of SmolLM2-135M with random weights.
//
//   node bench/curves.mjs [--repetitions 2] [--only length,layers,rows,queries,cores] [--json FILE]
//
// Needs the compiled dist/.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { argv, cpuUsage, stdout } from 'node:process';
import { parseArgs } from 'node:util';
import { loadModel } from '../dist/index.js';
import { makeModel } from './make-model.mjs';

const { values } = parseArgs({
  args: argv.slice(2),
  options: {
    repetitions: { type: 'string', default: '2' },
    only: { type: 'string', default: 'length,layers,rows,queries,cores' },
    json: { type: 'string' },
  },
});
const tokens = (n, seed) => Array.from({ length: n }, (_, i) => 10 + ((i * 7919 + seed * 104729) % 49000));
const folder = mkdtempSync(join(tmpdir(), 'xpatch-curves-'));
const path = join(folder, 'model.gguf');
const results = [];

/** The least of the repetitions, in seconds: of the processor, on the clock. */
async function least(action) {
  let best = [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY];
  for (let i = 0; i <= Number(values.repetitions); i++) {
    const [used, from] = [cpuUsage(), performance.now()];
    await action(i);
    const { user, system } = cpuUsage(used);
    const now = [(user + system) / 1e6, (performance.now() - from) / 1e3];
    if (i > 0) best = best.map((one, k) => Math.min(one, now[k])); // the first warms up
  }
  return best;
}

async function report(name, size, context, row) {
  const [processor, clock] = await least((i) => row(context, i));
  results.push({ name, size, processor, clock });
  const shown = name === 'cores' ? `, ${clock.toFixed(2)} s on the clock` : '';
  stdout.write(`${name} ${size}: ${processor.toFixed(2)} s${shown}\n`);
}

const patch = (model, layer) => {
  const value = Float32Array.from({ length: model.info.nEmbd }, (_, i) => Math.sin(i));
  return [{ layers: layer, op: 'replace', value }];
};
const prefill = (n) => (context, i) => context.run({ prompt: [{ tokens: tokens(n, i) }], topK: 1 });
const reading = (n) => (context, i) => {
  const layers = Array.from({ length: n }, (_, k) => Math.floor((k * 30) / n));
  return context.run({ prompt: [{ tokens: tokens(600, i) }], capture: { layers, positions: 'last' }, topK: 1 });
};
const sweep = (n) => async (context, i) => {
  const prompt = await context.model.prompt([{ tokens: tokens(600, i) }]);
  return context.pass(
    Array.from({ length: n }, (_, k) => ({ prompt, interventions: patch(context.model, k), topK: 5 })),
  );
};
const queries = (n) => (context, i) => {
  const rows = Array.from({ length: n }, (_, k) => ({
    prompt: [{ tokens: tokens(16, 1000 * i + k) }],
    interventions: patch(context.model, 15),
  }));
  return context.generate(rows, { maxTokens: 4 });
};
const CURVES = {
  length: [[100, 300, 600, 1200, 2400], prefill],
  layers: [[1, 10, 30], reading],
  rows: [[1, 10, 30], sweep],
  queries: [[1, 8, 32, 128], queries],
};

try {
  makeModel(path);
  const model = await loadModel(path, { device: 'cpu', threads: 1 });
  const context = await model.createContext({ nCtx: 4096 });
  for (const [name, [sizes, work]] of Object.entries(CURVES)) {
    if (!values.only.split(',').includes(name)) continue;
    for (const size of sizes) await report(name, size, context, work(size));
  }
  await model.dispose();
  for (let threads = 1; values.only.includes('cores') && threads <= Math.min(8, availableParallelism()); threads *= 2) {
    const other = await loadModel(path, { device: 'cpu', threads });
    await report('cores', threads, await other.createContext({ nCtx: 2048 }), prefill(600));
    await other.dispose();
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}
if (values.json) writeFileSync(values.json, `${JSON.stringify(results, null, 1)}\n`);
