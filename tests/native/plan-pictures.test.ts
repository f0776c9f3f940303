// A plan counts prompts with pictures as the model builds them, and encodes none.
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import sharp from 'sharp';
import { experimentOf } from '../../src/experiment/config.js';
import { memoryStore } from '../../src/experiment/memory-store.js';
import { planExperiment } from '../../src/experiment/plan.js';
import { runExperiment } from '../../src/experiment/run.js';
import { expectError, temporaryFolder } from '../unit/helpers.js';
import { load, picture } from './helpers.js';

const folder = await temporaryFolder();
const PICTURES = ['grid-a.png', 'grid-b.png', 'square-a.png', 'square-b.png'].map(picture);

test.each(['mantis-fuyu', 'idefics2', 'llava', 'qwen2-vl', 'gemma3', 'smolvlm', 'pixtral'])(
  '%s: prompts have the tokens and rows of those that are encoded',
  async (name) => {
    const [model, encoding] = [await load(name, { vision: true }), await load(name, { vision: true })];
    const [a, b, c, d] = PICTURES as [string, string, string, string];
    for (const parts of [
      ['Q:', { image: a }, '\nA:x\n\nQ:', { image: b }, '\nA:', { mark: 'delimiter' }],
      [{ image: c }, { image: d }, 'the country:', { mark: 'delimiter' }],
      [{ tokens: [] }, 'Q:', { image: b }, { mark: 'delimiter' }],
    ]) {
      const planned = await model.assemble(parts, (image) => model.layoutOf(image));
      expect(model.imageEncodes).toBe(0);
      const prompt = await encoding.prompt(parts);
      expect([...planned.tokens]).toEqual([...prompt.tokens]);
      expect(planned.marks).toEqual(prompt.marks);
      const shape = ({ segments }: typeof prompt) =>
        segments.map((one) => (one.kind === 'tokens' ? 'tokens' : [one.nRows, one.nPositions, one.nonCausal]));
      expect(shape(planned)).toEqual(shape(prompt));
    }
  },
);

test('what a plan calls fitting fits, with pictures of several sizes in the prompts of Mantis', async () => {
  const model = await load('mantis-fuyu', { vision: true });
  const file = join(folder, 'colours.json');
  const answers = ['red', 'the food', 'Oslo', 'a horse', 'Paris', 'sweet', 'small', 'animal'];
  const items = await Promise.all(
    answers.map(async (output, i) => {
      const image = join(folder, `${i}.png`);
      // The first ones are the smallest.
      await sharp({
        create: { width: 20 + 12 * i, height: 16 + 9 * i, channels: 3, background: { r: 30 * i, g: 9, b: 99 } },
      })
        .png()
        .toFile(image);
      return { input: `thing ${i}`, output, image };
    }),
  );
  await writeFile(file, JSON.stringify(items));
  const { experiment } = experimentOf(
    {
      tasks: [file],
      seeds: [1],
      query: 'image',
      shots: 3,
      validation: 4,
      prompts: 4,
      test: 4,
      layers: [1],
      maxTokens: 3,
      conditions: [
        { name: 'Image Prompt', kind: 'prompt', spec: 'image' },
        { name: 'Image Patch', kind: 'patch', spec: 'image' },
      ],
    },
    { name: 'mantis' },
  );
  const plan = await planExperiment(model, experiment);
  expect(model.imageEncodes).toBe(0);
  expect(plan.pictures).toBe(items.length);
  await expectError(() => planExperiment(model, experiment, { nCtx: plan.longest - 1 }), 'CONTEXT_OVERFLOW', /longest/);
  const context = await model.createContext({ nCtx: plan.longest });
  const store = memoryStore();
  await runExperiment(context, experiment, store);
  const lengths: number[] = [];
  for await (const { prompt } of store.lines())
    lengths.push((prompt?.tokens ?? []).reduce((n, token) => n + Math.max(1, -token), 0));
  expect(Math.max(...lengths) + experiment.maxTokens).toBe(plan.longest);
});
