// An experiment from end to end on tiny models of the families that mtmd does not know, on the CPU and on a Vulkan driver in
// software. What it answers means nothing; that every kind of prompt and patch gets there is the point.
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { platform } from 'node:os';
import { join } from 'node:path';
import { beforeAll, expect, jest, test } from '@jest/globals';
import { FULL } from '../full.js';
import { commandLine, FIXTURES } from './cli-helpers.js';

const cli = commandLine();
jest.setTimeout(600_000);

const SHOTS = 2;
const CONFIG = {
  tasks: ['country-capital'],
  seeds: [1],
  shots: SHOTS,
  validation: 4,
  test: 4,
  maxTokens: 2,
  scores: ['probability'],
  conditions: [
    { name: 'No Context', kind: 'bare' },
    { name: 'Image Prompt', kind: 'prompt', spec: 'image' },
    { name: 'Image Patch', kind: 'patch', spec: 'image' },
    { name: 'Text Patch', kind: 'patch', spec: 'text' },
    { name: 'Image Patch, text query', kind: 'patch', spec: 'image', query: 'text' },
    { name: 'LLM Text Patch', kind: 'patch', spec: 'text', foreign: true },
  ],
};
beforeAll(() => writeFileSync(join(cli.folder, 'vlm.yaml'), JSON.stringify(CONFIG)));

/** With the language model whose vectors are patched into it. */
const FAMILIES = [
  ['idefics2', 'idefics2'],
  ['mantis-fuyu', 'persimmon'],
] as const;
/** In CI on Vulkan only the one whose kernels compile in seconds; what is particular to the other is in tests/native/vulkan.test.ts. */
const RUNS = FAMILIES.flatMap(([family, llm]) => {
  const onVulkan = platform() === 'linux' && (FULL || family === 'mantis-fuyu');
  return (onVulkan ? ['cpu', 'Vulkan0'] : ['cpu']).map((device) => [family, device, llm] as const);
});

test.each(RUNS)('%s on %s, with vectors of %s', async (family, device, llm) => {
  const fixture = (file: string) => join(FIXTURES, `${file}.gguf`);
  const files = ['-m', fixture(family), '--mmproj', fixture(`${family}.mmproj`), '--device', device];
  const name = `${family}-${device}`;
  const more = ['--threads', '1', '--image-cache', `${name}-pictures`, '--set', `vectorModel=${fixture(llm)}`];
  const run = (output: string) =>
    cli.run(['eval', 'vlm.yaml', ...files, ...more, '--quiet', '-o', output], { GGML_VK_VISIBLE_DEVICES: '0' });
  expect(await run(name)).toMatchObject({ code: 0, stderr: '' });

  const lines = readFileSync(join(cli.folder, name, 'results.jsonl'), 'utf8')
    .trim()
    .split('\n');
  const answered = new Set(lines.map((line) => JSON.parse(line).condition));
  expect([...answered].sort()).toEqual(CONFIG.conditions.map((condition) => condition.name).sort());

  // A second run encodes nothing: it leaves the cache as it is.
  const cached = () => readdirSync(join(cli.folder, `${name}-pictures`)).sort();
  const before = cached();
  expect(before.length).toBeGreaterThan(SHOTS);
  expect(await run(`${name}-again`)).toMatchObject({ code: 0 });
  expect(cached()).toEqual(before);
});
