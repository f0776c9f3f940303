// Files with one lie each (hostile.ts): those that end, or hang, a process end that of their trial, and never the one that loads
// what passed it. Trials are made by one process after the other here, as each takes half a second to start; trial.test.ts
// goes the product's own way. All of it: XPATCH_HOSTILE=7000 npm test -- --selectProjects faults --testPathPatterns hostile
import { appendFileSync, mkdirSync, readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { env } from 'node:process';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { type Attempt, Attempts, put } from '../native/damage.js';
import { fixture, picture } from '../native/helpers.js';
import { towers, writeTower } from '../native/towers.js';
import { faultFolder } from './helpers.js';
import { lie } from './hostile.js';

/** Five of seven are models, two are picture encoders. */
const FILES = Number(env.XPATCH_HOSTILE ?? 105);
/** Seeds count from here. */
const FIRST = Number(env.XPATCH_HOSTILE_FIRST ?? 0);
/** A trial that takes longer hangs. */
const LIMIT_MS = 60_000;
const TRIALS = fileURLToPath(new URL('./trial-pool.mjs', import.meta.url));
const DEAD = /^SIG|^exit|^hang$|^uncoded$/;
const folder = faultFolder();
const tokens = [10, 88, 147];
const lanes = Array.from({ length: FILES > 500 ? availableParallelism() : 1 }, (_, i) => ({
  trials: new Attempts({ XPATCH_TRUST: '1', GGML_NO_BACKTRACE: '1' }, TRIALS),
  attempts: new Attempts({ XPATCH_TRUST: '1', GGML_NO_BACKTRACE: '1' }),
  folder: join(folder, `${i}`),
}));

interface Base {
  name: string;
  path: string;
  attempt: (path: string) => Attempt;
}
const models: Base[] = [
  'llama',
  'qwen2',
  'qwen3',
  'gemma2',
  'gemma3',
  'gpt-neox',
  'phi3',
  'mistral',
  'persimmon',
  'pixtral',
  'qwen2-vl',
  'smolvlm',
].map((name) => ({ name, path: fixture(`${name}.gguf`), attempt: (model) => ({ model, tokens }) }));
const ENCODERS = [
  'llava',
  'llava-siglip',
  'gemma3',
  'pixtral',
  'qwen2-vl',
  'qwen2.5-vl',
  'smolvlm',
  'internvl',
  'idefics2',
  'mantis-fuyu',
];
const encoders: Base[] = ENCODERS.map((name) => ({
  name: `${name}.mmproj`,
  path: fixture(`${name}.mmproj.gguf`),
  attempt: (mmproj) => ({ model: fixture(`${name}.gguf`), mmproj, picture: picture('wide.png'), tokens }),
}));

beforeAll(() => {
  for (const lane of lanes) mkdirSync(lane.folder);
  const own = join(folder, 'towers');
  mkdirSync(own);
  // Those that are good at this size.
  const names = Object.keys(towers(64)).filter((name) => !['resampler', 'step3vl'].includes(name));
  for (const name of names) {
    const path = join(own, `${name}.mmproj.gguf`);
    writeTower(path, name, 64);
    const turns = /qwen|mimovl|exaone|paddleocr|glm4v|youtuvl/.test(name);
    const model = fixture(turns ? 'qwen2-vl.gguf' : 'llava.gguf');
    encoders.push({ name, path, attempt: (mmproj) => ({ model, mmproj, picture: picture('grid-a.png'), tokens }) });
  }
});
afterAll(() => {
  for (const { attempts, trials } of lanes) {
    trials.close();
    attempts.close();
  }
});

test(`${FILES} files with a lie never end the process`, async () => {
  const counts = new Map<string, number>();
  const fatal: unknown[] = [];
  const whole = new Map<string, Buffer>();
  let next = FIRST;
  const work = async ({ trials, attempts, folder }: (typeof lanes)[number]) => {
    while (next < FIRST + FILES) {
      const seed = next++;
      const bases = seed % 7 < 5 ? models : encoders;
      const base = bases[Math.floor(seed / 7) % bases.length] as Base;
      const good = whole.get(base.path) ?? readFileSync(base.path);
      whole.set(base.path, good);
      const made = lie(good, seed, base.name);
      const path = put(folder, seed % 7 < 5 ? 'model.gguf' : 'mmproj.gguf', made.file);
      const trial = await trials.run(base.attempt(path), LIMIT_MS);
      const died = DEAD.test(trial.outcome);
      const answer = died ? trial : await attempts.run(base.attempt(path), 2 * LIMIT_MS);
      const outcome = died ? `trial: ${trial.outcome}` : answer.outcome;
      counts.set(outcome, (counts.get(outcome) ?? 0) + 1);
      const told = { seed, base: base.name, lie: made.lie, ...answer, outcome };
      if (env.XPATCH_HOSTILE_LOG) appendFileSync(env.XPATCH_HOSTILE_LOG, `${JSON.stringify(told)}\n`);
      if (!died && DEAD.test(answer.outcome)) fatal.push(told);
    }
  };
  await Promise.all(lanes.map(work));
  console.log(Object.fromEntries([...counts].sort((a, b) => b[1] - a[1])));
  expect(fatal).toEqual([]);
  // The lies are lies, and not all of them deadly.
  expect(counts.get('loaded') ?? 0).toBeGreaterThan(FILES / 20);
  expect(counts.get('loaded') ?? 0).toBeLessThan(FILES * 0.8);
}, 36_000_000);
