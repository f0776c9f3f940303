// Reads states, patches and sweeps on the device named by the argument and on the CPU; started by vulkan.test.ts with the
// software Vulkan driver made visible, which must happen before the backends are loaded.
import { fileURLToPath } from 'node:url';
import { listDevices, loadModel } from '../../dist/index.js';
import { finalNorm } from '../../dist/lens/final-norm.js';
import { logitLens } from '../../dist/lens/logit-lens.js';

const fixtures = fileURLToPath(new URL('../fixtures/models/', import.meta.url));

async function measure(name, device, image) {
  const path = `${fixtures}${name}`;
  const mmproj = image && `${path}.mmproj.gguf`;
  const model = await loadModel(`${path}.gguf`, { device, mmproj, threads: 1 });
  const context = await model.createContext({ nCtx: 256, nUbatch: 16 });
  const tokens = Array.from({ length: 20 }, (_, i) => 20 + ((i * 13) % 250));
  const parts = image ? [{ tokens }, { image: `${fixtures}pictures/${image}` }, { tokens: [33, 44] }] : { tokens };
  const prompt = await model.prompt(parts);
  const value = Float32Array.from({ length: model.info.nEmbd }, (_, i) => Math.sin(1 + 3 * i));
  const layers = Array.from({ length: model.info.nLayers }, (_, layer) => layer);
  const patch = (layer, positions) => ({ hook: 'resid_post', layers: layer, positions, op: 'replace', value });
  const everything = { capture: { layers: 'all', positions: 'all' }, logits: 'all' };
  const [plain] = await context.pass([{ prompt, ...everything }]);
  const [patched] = await context.pass([{ prompt, ...everything, interventions: [patch(1, [5, -1]), patch(2, -2)] }]);
  const sweep = layers.map((layer) => ({ prompt, interventions: [patch(layer, 'last')], logits: 'last' }));
  const shared = await context.pass(sweep);
  const naive = [];
  for (const row of sweep) naive.push(...(await context.pass([row])));
  const generated = await context.generate([{ prompt, interventions: [patch(1, 'last')] }], { maxTokens: 3 });
  const own = { capture: { layers: [1], positions: [7] }, logits: 'last' };
  const [read] = await context.pass([{ prompt, ...own }]);
  const identity = [{ hook: 'resid_post', layers: 1, positions: 7, op: 'replace', value: read.states.data }];
  const [same] = await context.pass([{ prompt, ...own, interventions: identity }]);
  const whole = { tokens: Array.from({ length: model.info.nVocab }, (_, token) => token) };
  const normed = await finalNorm(context, plain);
  const lenses = [
    await logitLens(context, plain, whole),
    await logitLens(context, patched, whole), // as many rows: the same graph again
    await logitLens(context, normed, { ...whole, normalise: false }),
  ];
  const { points, cut, scored } = await measurePoints(model, prompt);
  await model.dispose();
  const rows = (results) => results.map((result) => Array.from(result.logits.data));
  return {
    nEmbd: value.length,
    nVocab: model.info.nVocab,
    states: [plain, patched].map((result) => Array.from(result.states.data)),
    logits: rows([plain, patched]),
    deltas: patched.interventions.map((report) => report.delta),
    normed: Array.from(normed.data),
    lenses: lenses.map(({ cells }) => cells.flat().map((cell) => cell.tokens.map(({ logit }) => logit))),
    shared: rows(shared),
    naive: rows(naive),
    tokens: generated[0].tokens,
    points,
    cut,
    scored,
    identical: Buffer.from(same.logits.data.buffer).equals(Buffer.from(read.logits.data.buffer)),
  };
}

/** Every point of one block, logits when two edges are cut by the mask, and by scores. */
async function measurePoints(model, prompt) {
  const off = await model.createContext({ nCtx: 256, nUbatch: 64, flashAttention: 'off' });
  const on = await model.createContext({ nCtx: 256, nUbatch: 64, flashAttention: 'on' });
  const hooks = off.hooks.filter(({ layers }) => layers.length > 0);
  const captures = hooks.map(({ hook, layers }) => ({ hook, layers: [layers.at(-1)], positions: [2, -1] }));
  const { captured } = await off.run({ prompt, captures });
  const finite = (data) => Array.from(data, (x) => (Number.isFinite(x) ? x : 0));
  const points = Object.fromEntries(captured.map(({ hook, data }) => [hook, finite(data)]));
  const edges = [{ layers: 'all', from: [0, 3], to: 'last' }];
  const [cut, scored] = [
    await on.run({ prompt, edges, logits: 'last' }),
    await off.run({ prompt, edges, logits: 'last' }),
  ];
  return { points, cut: Array.from(cut.logits.data), scored: Array.from(scored.logits.data) };
}

const [device] = process.argv.slice(2);
const answer = { devices: listDevices(), families: {} };
if (answer.devices.some(({ name }) => name === device)) {
  for (const [name, image] of [
    ['llama'],
    ['llava-siglip', 'square-a.png'],
    ['mantis-fuyu', 'grid-a.png'],
    ['idefics2', 'grid-a.png'],
  ]) {
    answer.families[name] = { device: await measure(name, device, image), cpu: await measure(name, 'cpu', image) };
  }
}
process.send(answer, () => process.disconnect());
