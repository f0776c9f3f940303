// Starts what is compared with: a process that does the work named on its standard input, and the weights that both sides load.

import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { cpuUsage, env, stderr } from 'node:process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const here = (name) => fileURLToPath(new URL(name, import.meta.url));

/** @returns the process, and the next answer of it */
function start(python, args) {
  const child = spawn(python, args, { stdio: ['pipe', 'pipe', 'inherit'], env: { ...env, TQDM_DISABLE: '1' } });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const answer = async () => {
    for (;;) {
      const { value, done } = await lines.next();
      if (done) throw new Error(`${python} ${args.join(' ')} ended early`);
      if (value.startsWith('{')) return JSON.parse(value); // libraries talk too
    }
  };
  return { child, answer };
}

/** Writes the weights to a folder, once. */
export async function weights(python, folder) {
  if (existsSync(join(folder, 'hf', 'config.json'))) return;
  stderr.write(`writing the weights to ${folder}\n`);
  const { child } = start(python, [here('weights.py'), folder]);
  const code = await new Promise((resolve) => child.on('close', resolve));
  if (code !== 0) throw new Error('the weights could not be written: install bench/peers/requirements.txt');
}

/** A peer that is ready: `ask` gives the seconds that it takes for one piece of work. */
export async function peerOf(python, kind, folder, specFile, threads) {
  const { child, answer } = start(python, [here('peer.py'), kind, join(folder, 'hf'), specFile, String(threads)]);
  const { versions } = await answer();
  return {
    versions,
    ask(order) {
      child.stdin.write(`${JSON.stringify(order)}\n`);
      return answer();
    },
    end: () => child.stdin.end(),
  };
}

/** Seconds of this process for one piece of work. */
export async function timed(work) {
  const [clock, before] = [performance.now(), cpuUsage()];
  await work();
  const { user, system } = cpuUsage(before);
  return { clock: (performance.now() - clock) / 1000, processor: (user + system) / 1e6 };
}

export const median = (list) => [...list].sort((a, b) => a - b)[list.length >> 1];
