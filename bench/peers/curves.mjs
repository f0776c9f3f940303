#!/usr/bin/env node
// What work costs by its size, beside PyTorch with hooks written for speed, on the same weights and in one run: tokens of a prompt, layers
// whose states are read at all positions, rows that are patched, queries in a call, cores.
//
//   node bench/peers/curves.mjs --python VENV/bin/python [--work FOLDER] [--repetitions 3] [--only length,layers,rows,queries,cores]
//                               [--json FILE]
//
// Processor seconds, one thread; of cores: seconds on the clock, which a busy machine spoils. Medians. See main.mjs for VENV and FOLDER.

import { mkdtempSync, writeFileSync } from 'node:fs';
import { availableParallelism, cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { argv, stdout } from 'node:process';
import { parseArgs } from 'node:util';
import { loadModel } from '../../dist/index.js';
import { specOf, works } from './ours.mjs';
import { median, peerOf, timed, weights } from './peer.mjs';

/** Tokens, which the prompt of the others than `length` is cut from. */
const LONGEST = 2400;
const USUAL = 600;
const CORES = Array.from({ length: Math.floor(Math.log2(availableParallelism())) + 1 }, (_, i) => 2 ** i);
const CURVES = [
  {
    name: 'length',
    what: 'tokens: prefill, states of all layers at the last one',
    work: 'capture_last',
    sizes: [100, 300, 600, 1200, LONGEST],
  },
  {
    name: 'layers',
    what: `layers: their states at all ${USUAL} positions`,
    work: 'capture_all',
    sizes: [1, 10, 20, 30],
  },
  {
    name: 'rows',
    what: `rows: the last of ${USUAL} tokens, patched at one layer each`,
    work: 'sweep',
    sizes: [1, 10, 30, 100, 300],
  },
  { name: 'queries', what: 'queries: the best next token of short prompts', work: 'queries', sizes: [1, 10, 50, 200] },
  { name: 'cores', what: `cores: prefill of ${USUAL} tokens`, work: 'capture_last', sizes: CORES },
];

const { values } = parseArgs({
  args: argv.slice(2),
  options: {
    python: { type: 'string', default: 'python3' },
    work: { type: 'string' },
    repetitions: { type: 'string', default: '3' },
    only: { type: 'string' },
    json: { type: 'string' },
  },
});
const folder = values.work ?? mkdtempSync(join(tmpdir(), 'xpatch-peers-'));
await weights(values.python, folder);

/** Both sides of curves that have a prompt in common. */
async function measure(curves, length) {
  if (curves.length === 0) return [];
  const model = await loadModel(join(folder, 'model.f16.gguf'), { device: 'cpu', threads: 1 });
  const spec = await specOf(model, length);
  const specFile = join(folder, 'curves.json');
  writeFileSync(specFile, JSON.stringify(spec));
  const peer = await peerOf(values.python, 'torch', folder, specFile, 1);
  const results = [];
  for (const { name, what, work, sizes } of curves) {
    for (const size of sizes) {
      const threads = name === 'cores' ? size : 1;
      const context = await model.createContext({ nCtx: 8192, threads, flashAttention: 'on' });
      const ours = await works(context, spec);
      const asked = name === 'cores' ? undefined : size;
      const sides = [() => timed(() => ours[work](asked)), () => peer.ask({ work, size: asked, threads })];
      const times = sides.map(() => []);
      for (const side of sides) await side(); // warm
      for (let i = 0; i < Number(values.repetitions); i++) {
        for (const [s, side] of sides.entries())
          times[s].push((await side())[name === 'cores' ? 'clock' : 'processor']);
      }
      await context.dispose();
      const [xpatch, torch] = times.map(median);
      results.push({ name, what, size, xpatch, torch, ratio: xpatch / torch });
      stdout.write(
        `${name} ${size}: ${xpatch.toFixed(3)} s, PyTorch ${torch.toFixed(3)} s, ${(xpatch / torch).toFixed(2)}\n`,
      );
    }
  }
  peer.end();
  await model.dispose();
  return results;
}

const chosen = CURVES.filter(({ name }) => values.only?.split(',').includes(name) ?? true);
const results = [
  ...(await measure(
    chosen.filter(({ name }) => name === 'length'),
    LONGEST,
  )),
  ...(await measure(
    chosen.filter(({ name }) => name !== 'length'),
    USUAL,
  )),
];
const report = { date: new Date().toISOString(), cpu: cpus()[0]?.model.trim(), results };
if (values.json) writeFileSync(values.json, `${JSON.stringify(report, null, 2)}\n`);
for (const { name, what } of chosen) {
  const found = results.filter((result) => result.name === name);
  const row = (head, of) => `| ${[head, ...found.map(of)].join(' | ')} |\n`;
  stdout.write(`\n${row(what, ({ size }) => size)}${row('---', () => '---')}`);
  stdout.write(
    row('xpatch, s', ({ xpatch }) => xpatch.toFixed(2)) + row('PyTorch, s', ({ torch }) => torch.toFixed(2)),
  );
  stdout.write(row('ratio', ({ ratio }) => ratio.toFixed(2)));
}
stdout.write(`\n${report.date}, ${report.cpu}\n`);
