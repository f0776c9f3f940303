import type { Manifest } from '../../src/experiment/manifest.js';
import type { Experiment, Plan, QueryKey, ResultLine } from '../../src/experiment/types.js';
import { Random } from '../../src/util/random.js';
import { TaskVector } from '../../src/vectors/task-vector.js';

export const EXPERIMENT: Experiment = {
  name: 'sample',
  title: 'A sample',
  tasks: ['country-capital', 'food-color'],
  seeds: [1, 2],
  query: 'text',
  style: 'twemoji',
  template: 'paper',
  shots: 5,
  validation: 4,
  test: 6,
  prompts: 4,
  readPosition: 'last-example',
  layers: 'validation',
  op: 'replace',
  strength: 1,
  maxTokens: 4,
  ignoreCase: false,
  scores: ['probability'],
  conditions: [
    { name: 'No Context', kind: 'bare' },
    { name: 'Text Patch', kind: 'patch', spec: 'text' },
  ],
};

const model = { hash: 'ab'.repeat(32), architecture: 'llama', name: 'tiny', nEmbd: 2, nLayers: 3 };

/** Everything the sample experiment would answer, the answers drawn by hash; hostile strings among the items. */
export function sampleLines(experiment = EXPERIMENT): ResultLine[] {
  const lines: ResultLine[] = [];
  const answer = (key: QueryKey, layer: number | undefined) => {
    const random = new Random(1, JSON.stringify(key), layer ?? -1);
    const lenient = random.uniform() < 0.5;
    const expected = `Grün ${key.item.split('\n', 1)[0]}`;
    const said = lenient ? expected : 'no\u2028\u202e"\\';
    lines.push({
      ...key,
      ...(layer === undefined ? {} : { layer, vector: `${key.task}.text.seed${key.seed}`, delta: random.uniform() }),
      domain: key.task.split('-')[0] as string,
      expected,
      answer: said,
      firstToken: said,
      lenient,
      ...(key.stage === 'test' ? { strict: lenient } : {}),
      probability: random.uniform(),
      rank: random.integer(9),
    });
  };
  for (const seed of experiment.seeds) {
    for (const task of experiment.tasks) {
      for (const stage of ['validation', 'test'] as const) {
        for (let i = 0; i < experiment[stage]; i++) {
          const item = `${stage} ${i}\n\u0000שלום 😀`;
          for (const { name, kind } of experiment.conditions) {
            if (stage === 'validation' && kind !== 'patch') continue;
            const layers = kind !== 'patch' ? [undefined] : stage === 'test' ? [1] : [0, 1, 2];
            for (const layer of layers) answer({ stage, condition: name, task, seed, item }, layer);
          }
        }
      }
    }
  }
  return lines;
}

export function sampleVector(value: number): TaskVector {
  const origin = { op: 'capture', position: 0, token: 1 } as const;
  const info = { model, hook: 'resid_post', layers: [0, 1, 2], readPosition: 'position', origin } as const;
  return new TaskVector(info, [value, 1, 2, 3, 4, 5]);
}

export function sampleManifest(more: Partial<Manifest> = {}): Manifest & { readonly plan: Plan['queries'] } {
  const counts = new Map<string, number>();
  for (const { stage, condition } of sampleLines(more.options)) {
    const key = JSON.stringify({ stage, condition });
    counts.set(key, (counts.get(key) ?? 0) + 1);
  }
  return {
    status: 'running',
    experiment: 'sample',
    title: 'A sample',
    command: 'xpatch eval sample',
    started: '2026-11-23T00:00:00.000Z',
    xpatch: '0.1.0',
    llamaCpp: 'b1',
    model: { ...model, files: { model: '/nowhere/tiny.gguf' } },
    options: EXPERIMENT,
    notes: ['A note.'],
    tasks: Object.fromEntries(EXPERIMENT.tasks.map((name) => [name, { sha256: 'cd'.repeat(32), items: 10 }])),
    plan: [...counts].map(([key, count]) => ({ ...JSON.parse(key), count })),
    ...more,
  };
}
