// Makes and disposes contexts, models and picture encoders `node cycles.mjs N` times and prints, as JSON lines, what the
// process holds: before the first cycle but after everything was made once, in the middle, and at the end.
import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { loadModel } from '../../dist/index.js';

const fixture = (name) => fileURLToPath(new URL(`../fixtures/models/${name}`, import.meta.url));
const picture = { data: new Uint8Array(16 * 16 * 3).fill(90), width: 16, height: 16 };
const cycles = Number(process.argv[2]);

async function useContext(model, threads) {
  const context = await model.createContext({ nCtx: 64, threads });
  try {
    await context.pass([{ prompt: await model.prompt({ tokens: [5, 6, 7] }), topK: 1 }]);
  } finally {
    await context.dispose();
  }
}

async function useModel() {
  const model = await loadModel(fixture('llava.gguf'), {
    mmproj: fixture('llava.mmproj.gguf'),
    device: 'cpu',
    threads: 2,
  });
  await model.prompt([{ image: picture }]);
  await useContext(model, 2);
  await model.dispose();
}

/** An encoder and a context that cannot be made leave nothing either. */
async function fail(model) {
  const wrong = loadModel(fixture('llava.gguf'), { device: 'none' });
  await wrong.then(
    () => process.exit(3),
    () => {},
  );
  await model.createContext({ nCtx: 0 }).then(
    () => process.exit(3),
    () => {},
  );
}

function report(done) {
  globalThis.gc();
  const status = readFileSync('/proc/self/status', 'utf8');
  const of = (key) => Number(new RegExp(`^${key}:\\s+(\\d+)`, 'm').exec(status)?.[1]);
  console.log(
    JSON.stringify({
      done,
      threads: of('Threads'),
      files: readdirSync('/proc/self/fd').length,
      megabytes: of('VmRSS') / 1024,
    }),
  );
}

const model = await loadModel(fixture('llava.gguf'), { device: 'cpu', threads: 1 });
for (let i = 0; i <= cycles; i++) {
  // The allocator's own arenas grow over the first few.
  if (i === 20 || i === Math.round(cycles / 2) || i === cycles) report(i);
  await useContext(model, i % 4 ? 1 : 2);
  if (i % 10 === 0) await useModel();
  if (i % 7 === 0) await fail(model);
}
await model.dispose();
