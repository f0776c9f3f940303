// `xpatch verify-model` on what scripts/verify-model/dump.py wrote for tiny models (tests/reference/verify_model.py).
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { PACKAGE_ROOT } from '../../install/layout.mjs';
import { commandLine, FIXTURES } from './cli-helpers.js';

const cli = commandLine();
const model = (name: string) => ['-m', join(FIXTURES, `${name}.gguf`), '--device', 'cpu'];
const mmproj = (name: string) => ['--mmproj', join(FIXTURES, `${name}.mmproj.gguf`)];
const reference = (name: string) => ['--reference', join(PACKAGE_ROOT, 'tests/fixtures/verify', `${name}.safetensors`)];

describe('a model that agrees', () => {
  test('text, and token ids', async () => {
    const report = await cli.json('verify-model', ...model('llama'), ...reference('llama'));
    expect(report).toMatchObject({ ok: true, weights: 'F32', bits: 32, prompts: [{ length: 10 }, { length: 5 }] });
    for (const { layers, logits, embeddings } of report.prompts) {
      expect(layers).toHaveLength(3);
      for (const { cosine, magnitude, nmse } of [...layers, logits]) {
        expect(cosine).toBeGreaterThan(1 - 1e-9);
        expect(magnitude).toBeCloseTo(1, 5);
        expect(nmse).toBeLessThan(1e-9);
      }
      expect(logits.sameBest).toBe(true);
      expect(embeddings).toBeUndefined();
    }
  });

  test('a picture, as a table', async () => {
    const args = ['verify-model', ...model('llava'), ...mmproj('llava'), ...reference('llava'), '--quiet'];
    const { code, stdout, stderr } = await cli.run(args);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout).toMatch(/weights: F32 \(32\.00 bits per weight\)/);
    expect(stdout).toMatch(/prompt 0, 22 positions\n.*cosine.*magnitude.*NMSE\n {2}pictures +(1\.000000|0\.9999\d+) +/);
    expect(stdout).toMatch(/layer 2 .*\n {2}logits .*\n {2}next token: the same\n\nThe model agrees/);
  });
});

describe('a model that does not', () => {
  test('other weights: out of bounds, exit code 1', async () => {
    const args = ['verify-model', ...model('llava'), ...mmproj('llava'), ...reference('llama'), '--quiet'];
    const { code, stdout } = await cli.run(args);
    expect(code).toBe(1);
    // The vocabularies of the two differ in special tokens, so that only the ids mean the same positions.
    expect(stdout).toMatch(
      /other tokens: \d+ positions, the reference has 10; at position \d+ token \d+, in the reference token \d+/,
    );
    expect(stdout).toMatch(/prompt 1, 5 positions\n.*\n {2}layer 0 .* out of bounds\n/);
    expect(stdout).toMatch(/The model does not agree/);
  });

  test('pictures of another encoder', async () => {
    const args = ['verify-model', ...model('llava'), ...mmproj('llava-siglip'), ...reference('llava')];
    const { code, stdout } = await cli.run([...args, '--json']);
    const [prompt] = JSON.parse(stdout).prompts;
    expect(code).toBe(1);
    expect(prompt.embeddings.cosine).toBeLessThan(0.9);
  });

  test.each([
    [
      'other layers',
      ['verify-model', ...model('gemma2'), ...reference('llama')],
      'REFERENCE_MISMATCH',
      /3 layers of width 64, the model 4 of 48/,
    ],
    [
      'a picture without an encoder',
      ['verify-model', ...model('llava'), ...reference('llava')],
      'IMAGE_UNSUPPORTED',
      /mmproj/,
    ],
    [
      'no reference',
      ['verify-model', ...model('llama'), '--reference', join(FIXTURES, 'llama.safetensors')],
      'REFERENCE_INVALID',
      /dump\.py/,
    ],
  ])('%s', async (_, args, code, message) => {
    const error = await cli.error(...args);
    expect(error).toMatchObject({ code, exit: 1, message: expect.stringMatching(message) });
  });
});
