// An experiment from end to end on a tiny Idefics2, on the CPU and on a Vulkan driver in software. What it answers means nothing;
// that every kind of prompt and patch gets there is the point.
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { platform } from 'node:os';
import { join } from 'node:path';
import { beforeAll, expect, jest, test } from '@jest/globals';
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

const DEVICES = platform() === 'linux' ? ['cpu', 'Vulkan0'] : ['cpu'];

test.each(DEVICES)('idefics2 on %s', async (device) => {
  const model = join(FIXTURES, 'idefics2.gguf');
  const files = ['-m', model, '--mmproj', join(FIXTURES, 'idefics2.mmproj.gguf'), '--device', device];
  const name = `run-${device}`;
  const more = ['--threads', '1', '--image-cache', `${name}-pictures`, '--set', `vectorModel=${model}`];
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
