#!/usr/bin/env node
// What sharing prefixes, reading states, the logit lens, caching pictures and planning an experiment cost, as ratios of two
// things measured in turns (A B A B) in one run: the machine's own speed drops out, and what else it does hits both.
//
//   npm run bench -- [--repetitions 7] [--tokens 600] [--layers 30] [--threads N] [--json FILE] [--only NAME,...]
//
// Needs the compiled dist/ (npm run build) and no model: one of 135M shape with random weights is written to a
// temporary folder.

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, cpus, tmpdir, totalmem } from 'node:os';
import { join } from 'node:path';
import { argv, cpuUsage, stderr, stdout, versions } from 'node:process';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { logitDifference } from '../dist/circuits/measure.js';
import { patchLayers } from '../dist/circuits/patch-layers.js';
import { parallelism } from '../dist/experiment/run.js';
import { loadModel } from '../dist/index.js';
import { logitLens } from '../dist/lens/logit-lens.js';
import { native } from '../dist/native/index.js';
import { loadAddon } from '../dist/native/load.js';
import { listTasks } from '../dist/tasks/task.js';
import { lendTokenizer, mainExperiment, oneByOne, throughEngine } from './experiment.mjs';
import { makeModel } from './make-model.mjs';

const { values } = parseArgs({
  args: argv.slice(2),
  options: {
    repetitions: { type: 'string', default: '7' },
    tokens: { type: 'string', default: '600' },
    layers: { type: 'string', default: '30' },
    threads: { type: 'string', default: String(Math.min(availableParallelism(), 8)) },
    json: { type: 'string' },
    only: { type: 'string' },
  },
});
const [repetitions, nTokens, nLayers, threads] = ['repetitions', 'tokens', 'layers', 'threads'].map((name) => {
  const number = Number(values[name]);
  if (!Number.isInteger(number) || number < 1)
    throw new RangeError(`--${name} is a whole number from 1, not ${values[name]}`);
  return number;
});

const median = (list) => {
  const sorted = [...list].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
};

/**
 * Milliseconds of two actions in turns, on the clock and of the processor, and for each repetition the ratio of the first
 * to the second. Processor time is what to go by on a busy machine, with --threads 1: several threads that wait for each
 * other burn it.
 */
async function inTurns(count, first, second) {
  const times = [[], []];
  const cpu = [[], []];
  for (let i = 0; i < count; i++) {
    // The one that begins changes: what is left in caches favours neither.
    const order = i % 2 ? [1, 0] : [0, 1];
    for (const which of order) {
      const start = performance.now();
      const used = cpuUsage();
      await [first, second][which]();
      times[which].push(performance.now() - start);
      const { user, system } = cpuUsage(used);
      cpu[which].push((user + system) / 1000);
    }
  }
  const ratios = times[0].map((time, i) => time / times[1][i]);
  const [medians, cpuMedians] = [times.map(median), cpu.map(median)];
  return { ratio: medians[0] / medians[1], cpuRatio: cpuMedians[0] / cpuMedians[1], ratios, medians, cpuMedians };
}

const results = [];
function report(name, what, baseline, target, measured, extra = {}) {
  const { ratio, ratios, medians, cpuRatio, cpuMedians } = measured;
  const [low, high] = [Math.min(...ratios), Math.max(...ratios)];
  const met = target.startsWith('<=') ? ratio <= Number(target.slice(2)) : ratio >= Number(target.slice(2));
  results.push({
    name,
    what,
    baseline,
    target,
    met,
    ratio,
    low,
    high,
    milliseconds: medians,
    cpuRatio,
    cpuMilliseconds: cpuMedians,
    ...extra,
  });
  stderr.write(`  ${name}: ${ratio.toFixed(3)}, processor time ${cpuRatio.toFixed(3)} (target ${target})\n`);
}

/** A deterministic prompt of token ids, other for each seed, so that no two repetitions share work by accident. */
const tokens = (n, seed) => Array.from({ length: n }, (_, i) => 10 + ((i * 7919 + seed * 104729) % 49000));

async function languageModel(folder, wanted) {
  const path = join(folder, 'model.gguf');
  makeModel(path, { layers: nLayers });
  const model = await loadModel(path, { device: 'cpu', threads });
  const context = await model.createContext({ nCtx: 2 * nTokens + nLayers });
  const prompt = await model.prompt({ tokens: tokens(nTokens, 1) });
  const vector = Float32Array.from({ length: model.info.nEmbd }, (_, i) => Math.sin(i));
  const row = (layer) => ({
    prompt,
    interventions: [{ hook: 'resid_post', layers: layer, positions: 'last', op: 'replace', value: vector }],
    topK: 5,
  });
  const all = Array.from({ length: nLayers }, (_, layer) => row(layer));
  const plain = () => context.pass([{ prompt, topK: 5 }]);
  const sweep = () => context.pass(all);
  const naive = async () => {
    for (const one of all) await context.pass([one]);
  };
  const capturing = () => context.pass([{ prompt, capture: { layers: 'all', positions: 'last' }, topK: 5 }]);
  await plain();
  if (wanted('sweep') || wanted('naive')) await sweep(); // warm

  if (wanted('sweep')) {
    const what = `sweep of ${nLayers} layers over the last of ${nTokens} tokens`;
    report('sweep', what, 'one plain prefill', '<= 1.15', await inTurns(repetitions, sweep, plain));
  }
  if (wanted('capture')) {
    const what = `prefill of ${nTokens} tokens reading the last one's ${nLayers} layers`;
    report('capture', what, 'the prefill without reading', '<= 1.03', await inTurns(2 * repetitions, capturing, plain));
  }
  if (wanted('hooks')) await hookCost(model);
  if (wanted('flash')) await flashCost(model);
  if (wanted('map')) await mapCost(context);
  if (wanted('lens')) await lensCost(model, context, prompt, plain);
  if (wanted('naive')) {
    // Seconds each: fewer repetitions than the others.
    const count = Math.max(1, Math.ceil(repetitions / 3));
    report('naive', `${nLayers} prefills, one a layer`, 'the sweep', '>= 22', await inTurns(count, naive, sweep));
  }
  await model.dispose();
}

/** Prompts of several lengths and many short ones together, with flash attention and without. */
async function flashCost(model) {
  const on = await model.createContext({ nCtx: 4096, flashAttention: 'on' });
  const off = await model.createContext({ nCtx: 4096, flashAttention: 'off' });
  const works = [16, 64, 600, 2000].map((n) => [
    `prefill of ${n} tokens`,
    [{ prompt: { tokens: tokens(n, 3) }, topK: 1 }],
  ]);
  const queries = Array.from({ length: 32 }, (_, i) => ({ prompt: { tokens: tokens(16, 4 + i) }, topK: 1 }));
  for (const [what, rows] of [...works, ['32 queries of 16 tokens in one pass', queries]]) {
    const turns = await inTurns(
      repetitions,
      () => on.pass(rows),
      () => off.pass(rows),
    );
    report('flash', `${what} with flash attention`, 'the same without', '<= 1', turns);
  }
}

/** Ten points of every layer, and every point of one, at the last of 256 tokens. */
async function hookCost(model) {
  const context = await model.createContext({ nCtx: 512, flashAttention: 'off' });
  const prompt = await model.prompt({ tokens: tokens(256, 2) });
  const plain = () => context.run({ prompt, topK: 5 });
  const reading = (captures) => () => context.run({ prompt, topK: 5, captures });
  const inside = ['resid_mid', 'resid_post', 'attn_out', 'mlp_out', 'z', 'q', 'k', 'v', 'pattern', 'mlp_post'];
  const everywhere = inside.map((hook) => ({ hook, positions: 'last' }));
  const { hooks } = context;
  const there = hooks.filter(({ layers }) => layers.length === nLayers);
  const oneLayer = there.map(({ hook }) => ({ hook, layers: [nLayers >> 1], positions: 'last' }));
  await plain();
  const stops = `prefill of 256 tokens reading the last one at ${inside.length * nLayers} points`;
  report(
    'hooks-all',
    stops,
    'the prefill without reading',
    '<= 1.05',
    await inTurns(2 * repetitions, reading(everywhere), plain),
  );
  const block = `prefill of 256 tokens reading the last one at all ${oneLayer.length} points of one layer`;
  report(
    'hooks-layer',
    block,
    'the prefill without reading',
    '<= 1.05',
    await inTurns(2 * repetitions, reading(oneLayer), plain),
  );
}

/** Tokens of the two prompts of a patching map. */
const MAP_TOKENS = 16;

/** A patching map of all layers and positions, whose rows share what comes before the patch, against the same patches one a pass. */
async function mapCost(context) {
  const { model } = context;
  const [from, into] = [3, 4].map((seed) => ({ tokens: tokens(MAP_TOKENS, seed) }));
  const metric = logitDifference(10, 20);
  let map;
  const shared = async () => {
    map = await patchLayers(context, { from, into, metric });
  };
  const values = new Map();
  const alone = async () => {
    const capture = { layers: 'all', positions: 'all' };
    const [{ states }] = await context.pass([{ prompt: from, capture }]);
    for (let layer = 0; layer < model.info.nLayers; layer++) {
      for (let position = 0; position < MAP_TOKENS; position++) {
        const patch = { layers: layer, positions: position, op: 'replace', value: states.at(layer, position) };
        const [{ logits }] = await context.pass([{ prompt: into, interventions: [patch], logits: 'last' }]);
        values.set(`${layer} ${position}`, metric.value(logits.data, [10, 20]));
      }
    }
  };
  await shared(); // warm
  const what = `${model.info.nLayers * MAP_TOKENS} patches of ${MAP_TOKENS} tokens, one a pass`;
  const count = Math.max(1, Math.ceil(repetitions / 3));
  report('map', what, 'the patching map', '>= 1.5', await inTurns(count, alone, shared));
  const apart = [...values].map(([place, value]) => Math.abs(value - map.at(...place.split(' ').map(Number))));
  const spread = Math.abs(map.clean - map.corrupt);
  if (Math.max(...apart) > 0.01 * spread) throw new Error(`maps differ by ${Math.max(...apart)} of ${spread}`);
}

/**
 * The whole grid of a prompt read out, against a prefill and the bare product of the head with as many rows. The product is
 * the addon's own with nothing read from its logits, in pieces as large as the lens takes, so that it needs no more memory.
 */
async function lensCost(model, context, prompt, plain) {
  const { nEmbd, nVocab } = model.info;
  const { addon } = native();
  const rows = nLayers * nTokens;
  const product = async () => {
    for (let left = rows; left > 0; left -= 128) {
      const piece = Math.min(left, 128);
      const states = new Float32Array(piece * nEmbd).fill(1);
      await addon.contextLens(context.handle, { tail: 0, rows: piece, states });
    }
  };
  const lens = async () => {
    const [pass] = await context.pass([{ prompt, capture: { layers: 'all', positions: 'all' }, topK: 5 }]);
    await logitLens(context, pass, { topK: 5, tokens: [10, 20, 30] });
  };
  const both = async () => {
    await plain();
    await product();
  };
  const what = `reading and lens of ${nLayers} layers x ${nTokens} positions, top-5 and 3 chosen tokens of ${nVocab}`;
  // Tens of seconds each: fewer repetitions than the others.
  const count = Math.max(1, Math.ceil(repetitions / 3));
  report('lens', what, 'one plain prefill and the head on as many rows', '<= 1.5', await inTurns(count, lens, both));
}

/** Tiny models: what counts is that the encoder does not run again. */
async function pictures() {
  const fixture = (name) => fileURLToPath(new URL(`../tests/fixtures/models/${name}`, import.meta.url));
  const model = await loadModel(fixture('llava-siglip.gguf'), {
    device: 'cpu',
    threads,
    mmproj: fixture('llava-siglip.mmproj.gguf'),
  });
  // Raw pixels of many sizes: decoding a file is not what is compared.
  const picture = (seed) => ({
    data: Uint8Array.from({ length: 32 * 32 * 3 }, (_, i) => (i * (seed + 3)) % 256),
    width: 32,
    height: 32,
  });
  await model.prompt([{ image: picture(0) }]);
  const count = 20 * repetitions;
  const before = model.imageEncodes;
  let seed = 0;
  const measured = await inTurns(
    count,
    () => model.prompt([{ image: picture(0) }]),
    () => model.prompt([{ image: picture(++seed) }]),
  );
  const encodes = model.imageEncodes - before;
  report('picture', 'a second query on a picture', 'a query on a new picture', '<= 1', measured, {
    encodes: { again: encodes - count, new: count },
  });
  if (encodes !== count) throw new Error(`${encodes} pictures were encoded, ${count} were new`);
  await model.dispose();
}

/** An experiment from its config to its answers, on the shipped model and on one of 135M shape. */
async function experiments(folder) {
  const open = async (path, options = {}, { kvType, prepare = () => {} } = {}) => {
    const model = await loadModel(path, { device: 'cpu', ...options });
    prepare(model);
    return model.createContext({ kvType });
  };
  // Rounded keys and values carry the order of sums on: an answer may then fall otherwise, but only where two tokens tie. In
  // full precision none may.
  const TIE = 0.02;
  const compare = async (name, what, target, { context, other = context, experiment, parallel }) => {
    const ids = Array.from({ length: 64 }, (_, i) => 10 + i);
    for (const one of [context, other]) await one.pass([{ prompt: await one.model.prompt({ tokens: ids }) }]); // warm
    const found = [];
    const measured = await inTurns(
      1,
      async () => {
        found[0] = await oneByOne(other, experiment);
      },
      async () => {
        found[1] = await throughEngine(context, experiment, parallel);
      },
    );
    const [slow, fast] = found;
    if (slow.size !== fast.size) throw new Error(`${slow.size} answers one by one, ${fast.size} through the engine`);
    const others = [...slow].filter(([key, { answer }]) => fast.get(key)?.answer !== answer);
    let lead = 0;
    for (const [, answer] of others) lead = Math.max(lead, await answer.lead());
    const size = `${slow.size} answers, one prompt, one layer at a time`;
    report(name, `${what}, ${size}`, `the engine, ${parallel} at a time`, target, measured, {
      answers: slow.size,
      others: others.length,
    });
    const ties = `where the closest token led by at most ${lead.toFixed(4)} nats`;
    if (others.length) stderr.write(`    ${others.length} answers fell otherwise, ${ties}\n`);
    const rounded = context.options.kvType === 'f16';
    if (others.length && !(rounded && lead < TIE)) {
      throw new Error(`${others.length} of ${slow.size} answers differ, ${ties}: ${others[0][0]}`);
    }
  };
  for (const [name, tasks, kvType, target] of [
    ['main demo', await listTasks(), 'f32', '>= 5'],
    ['main demo, one core', ['food-color', 'food-flavor'], 'f16', '>= 4'],
  ]) {
    // No more threads, which would make either slower.
    const context = await open('demo', {}, { kvType });
    const other = await open('demo', { imageCacheBytes: 0 }, { kvType });
    const experiment = mainExperiment({ tasks }, true);
    const parallel = kvType === 'f32' ? parallelism(context.model) : 1;
    await compare(name, `\`main\` with pictures, ${kvType}`, target, { context, other, experiment, parallel });
    for (const { model } of [context, other]) await model.dispose();
  }
  const path = join(folder, 'experiment.gguf');
  makeModel(path, { layers: nLayers });
  const context = await open(path, { threads }, { kvType: 'f32', prepare: lendTokenizer });
  const experiment = mainExperiment({ validation: 6, prompts: 6, test: 12, maxTokens: 4 }, false);
  await compare('main 135M', '`main` with text, f32', '>= 5', { context, experiment, parallel: 1 });
  await context.model.dispose();
}

const only = values.only?.split(',');
const wanted = (name) => only === undefined || only.includes(name);
const folder = mkdtempSync(join(tmpdir(), 'xpatch-bench-'));
try {
  if (['sweep', 'capture', 'hooks', 'flash', 'map', 'naive', 'lens'].some(wanted)) await languageModel(folder, wanted);
  if (wanted('picture')) await pictures();
  if (wanted('main')) await experiments(folder);
} finally {
  rmSync(folder, { recursive: true, force: true });
}

const { build } = loadAddon();
const machine = {
  cpu: cpus()[0]?.model.trim() ?? 'unknown',
  cores: availableParallelism(),
  memoryGiB: Math.round(totalmem() / 2 ** 30),
  node: versions.node,
  llamaTag: build.llamaTag,
  buildMode: build.mode,
  threads,
};
const settings = { repetitions, tokens: nTokens, layers: nLayers, shape: 'SmolLM2-135M, f16, random weights' };
const date = new Date().toISOString();
if (values.json) writeFileSync(values.json, `${JSON.stringify({ date, machine, settings, results }, null, 2)}\n`);

const cells = results.map(({ what, baseline, ratio, cpuRatio, low, high, target, met, milliseconds }) => [
  what,
  baseline,
  ratio.toFixed(3),
  cpuRatio.toFixed(3),
  `${low.toFixed(2)} - ${high.toFixed(2)}`,
  `${target} ${met ? 'met' : 'MISSED'}`,
  milliseconds.map((ms) => (ms < 100 ? ms.toFixed(2) : ms.toFixed(0))).join(' / '),
]);
const head = ['measured', 'baseline', 'ratio', 'cpu', 'range', 'target', 'median ms'];
const widths = head.map((title, i) => Math.max(title.length, ...cells.map((row) => row[i].length)));
const line = (row) => `| ${row.map((cell, i) => cell.padEnd(widths[i])).join(' | ')} |\n`;
stdout.write(line(head) + line(widths.map((width) => '-'.repeat(width))) + cells.map(line).join(''));
stdout.write(
  `${date}, ${machine.cpu}, ${machine.cores} cores, ${threads} threads, node ${machine.node}, llama.cpp ${machine.llamaTag} (${machine.buildMode})\n`,
);
process.exitCode = results.every((result) => result.met) ? 0 : 1;
