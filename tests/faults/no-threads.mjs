// Loads a model, takes away the right to start threads, and prints the code of what then fails, and of what works again
// once the right is back. As root the limit does not hold: `nobody` runs the rest.
import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { loadModel } from '../../dist/index.js';

const fixture = (name) => fileURLToPath(new URL(`../fixtures/models/${name}`, import.meta.url));
const limit = (range) => execFileSync('prlimit', ['--pid', String(process.pid), `--nproc=${range}`]);
const codeOf = (promise) =>
  promise.then(
    () => 'none',
    (error) => error.code ?? String(error),
  );

const path = fixture('llava.gguf');
const model = await loadModel(path, { mmproj: fixture('llava.mmproj.gguf'), device: 'cpu', threads: 2 });
const prompt = await model.prompt({ tokens: [5, 6, 7] });
const kept = await model.createContext({ nCtx: 64, threads: 1 });
const picture = (grey) => ({ image: { data: new Uint8Array(16 * 16 * 3).fill(grey), width: 16, height: 16 } });
const codes = {};
if (process.getuid() === 0) {
  limit('0:4096'); // nobody may raise it again up to here
  process.setgid(65534);
  process.setuid(65534);
} else {
  limit('0:');
}
codes.context = await codeOf(model.createContext({ nCtx: 64 }));
codes.picture = await codeOf(model.prompt(picture(1)));
codes.model = await codeOf(loadModel(path, { device: 'cpu', threads: 2 }));
codes.pass = await codeOf(kept.pass([{ prompt, topK: 1 }]));
await kept.dispose();
await model.dispose();
console.log(JSON.stringify(codes));
