// Ends in one of several ways while native work is under way; started by lifecycle.test.ts.
import { fileURLToPath } from 'node:url';
import { isMainThread, parentPort, Worker } from 'node:worker_threads';
import { loadModel } from '../../dist/index.js';

const fixtures = fileURLToPath(new URL('../fixtures/models/', import.meta.url));
const path = `${fixtures}llava-siglip.gguf`;
const load = () => loadModel(path, { mmproj: `${fixtures}llava-siglip.mmproj.gguf`, device: 'cpu', threads: 1 });

/** A pass that takes seconds; gives its promise once it runs. */
async function longPass(nUbatch = 2048) {
  const model = await load();
  const context = await model.createContext({ nCtx: 2048, nUbatch });
  const prompt = await model.prompt({ tokens: Array.from({ length: 2000 }, (_, i) => 5 + (i % 200)) });
  return { model, context, prompt, pass: context.pass([{ prompt, topK: 1 }]) };
}

async function tops() {
  const model = await load();
  const context = await model.createContext({ nCtx: 256 });
  const prompt = await model.prompt([{ tokens: [10, 88, 147] }, { image: `${fixtures}pictures/square-a.png` }, 'A:']);
  const [row] = await context.pass([{ prompt, topK: 5 }]);
  await model.dispose();
  return JSON.stringify(row.top);
}

const modes = {
  async exit() {
    const { pass } = await longPass();
    pass.catch(() => {});
    setTimeout(() => process.exit(7), 10);
  },
  async throw() {
    const { pass } = await longPass();
    pass.catch(() => {});
    setTimeout(() => {
      throw new Error('uncaught');
    }, 10);
  },
  async leave() {
    const { pass } = await longPass(64);
    await pass;
  },
  async load() {
    load().catch(() => {});
    setTimeout(() => process.exit(7), 1);
  },
  async encode() {
    const model = await load();
    for (const name of ['square-a', 'square-b']) {
      model.prompt([{ image: `${fixtures}pictures/${name}.png` }]).catch(() => {});
    }
    setTimeout(() => process.exit(7), 2);
  },
  async workers() {
    const start = (mode) => new Worker(new URL(import.meta.url), { argv: [mode] });
    const answer = (worker) => new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject));
    const [first, second, own] = await Promise.all([answer(start('tops')), answer(start('tops')), tops()]);
    if (first !== own || second !== own) process.exit(3);
    const busy = start('busy');
    await answer(busy);
    await busy.terminate();
    if ((await tops()) !== own) process.exit(4);
  },
  async tops() {
    parentPort.postMessage(await tops());
  },
  async busy() {
    const { pass } = await longPass();
    pass.catch(() => {});
    parentPort.postMessage('running');
  },
};

await modes[isMainThread ? process.argv[2] : process.argv.at(-1)]();
