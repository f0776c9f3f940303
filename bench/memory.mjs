#!/usr/bin/env node
// How much memory saving takes: `HiddenStates.save` of what is there, beside the data; and a corpus that is captured into a folder, by
// its number of rows. A process for each number.
//
//   node bench/memory.mjs [--rows 10000,100000,1000000]
//
// Needs the compiled dist/ and room for the largest in the temporary folder.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { argv, execPath, memoryUsage, resourceUsage, stdout } from 'node:process';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { captureCorpus } from '../dist/corpus/capture-corpus.js';
import { HiddenStates, loadModel } from '../dist/index.js';

const { values } = parseArgs({
  args: argv.slice(2),
  options: { rows: { type: 'string', default: '10000,100000,1000000' }, one: { type: 'string' } },
});
const mb = (bytes) => Math.round(bytes / 1e6);
const peak = () => mb(1024 * resourceUsage().maxRSS);
/** Tokens of a prompt of a corpus. */
const LENGTH = 200;

/** One layer of 256 numbers at so many positions. @returns MB: data, and the most that the process took beside what it had */
async function save(rows, folder) {
  const positions = Array.from({ length: rows }, (_, i) => i);
  const tokens = positions.map((i) => i % 49152);
  const model = { hash: '', architecture: 'llama', name: '', nEmbd: 256, nLayers: 1 };
  const info = { hook: 'resid_post', layers: [0], positions, tokens, model };
  const states = new HiddenStates(info, new Float32Array(rows * 256).fill(1));
  globalThis.gc();
  const before = mb(memoryUsage().rss);
  await states.save(join(folder, 'states.safetensors'));
  return [mb(states.data.byteLength), Math.max(0, peak() - before)];
}

/** All positions of prompts of a tiny model of three layers of 64. @returns MB: data, and the most that the process took */
async function corpus(rows, folder) {
  const path = fileURLToPath(new URL('../tests/fixtures/models/llama.gguf', import.meta.url));
  const model = await loadModel(path, { device: 'cpu', threads: 1 });
  const context = await model.createContext();
  const prompts = Array.from({ length: rows / LENGTH }, (_, n) => ({
    prompt: [{ tokens: Array.from({ length: LENGTH }, (_, i) => 20 + ((i * 13 + n * 7 + (n >> 5)) % 250)) }],
  }));
  await captureCorpus(context, prompts, join(folder, 'corpus'), { positions: 'all' });
  await model.dispose();
  return [mb(rows * 3 * 64 * 4), peak()];
}

const works = { save, corpus };
if (values.one !== undefined) {
  const [name, rows] = values.one.split(':');
  const folder = mkdtempSync(join(tmpdir(), 'xpatch-memory-'));
  try {
    stdout.write(JSON.stringify(await works[name](Number(rows), folder)));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
} else {
  for (const name of Object.keys(works)) {
    for (const rows of values.rows.split(',')) {
      const own = ['--no-warnings', '--expose-gc', fileURLToPath(import.meta.url), '--one', `${name}:${rows}`];
      const [data, memory] = JSON.parse(execFileSync(execPath, own, { encoding: 'utf8' }));
      const what = name === 'save' ? 'more while it is saved' : 'in all';
      stdout.write(`${name} of ${rows} rows: ${data} MB of states, ${memory} MB ${what}\n`);
    }
  }
}
