// The built command line on tiny models, in a folder of its own: what it writes equals what transformers computed.
import { copyFileSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { writeSafetensors } from '../../src/util/safetensors.js';
import { TaskVector } from '../../src/vectors/task-vector.js';
import { argmax, commandLine, compare, expectClose, FIXTURES, reference } from './cli-helpers.js';

const cli = commandLine();
const model = (name: string) => join(FIXTURES, `${name}.gguf`);
const picture = (name: string) => join(FIXTURES, 'pictures', name);
const LLAVA = ['-m', model('llava'), '--mmproj', model('llava.mmproj')];
const ONE_PICTURE = [...LLAVA, '--prompt', 'Q:<image>\\nA:', '--image', picture('square-a.png')];
const SHORT = ['-m', model('llama'), '--tokens', '1,2,3'];

/** A capture file of one position with one layer, as other software would write it. */
async function writeCapture(file: string, layer: number, value: Float32Array): Promise<void> {
  await writeSafetensors(
    join(cli.folder, file),
    { resid_post: { data: value, shape: [1, 1, value.length] } },
    { layers: JSON.stringify([layer]), positions: '[0]', tokens: '[1]' },
  );
}

describe('capture', () => {
  test.each(['llama', 'gemma2'])('writes the states that transformers computes (%s)', async (family) => {
    const { tokens, states, read } = reference(family, 'long');
    const args = ['-m', model(family), '--tokens', tokens.join(), '-o', `${family}.safetensors`];
    const report = await cli.json('capture', ...args);
    const { data, shape, dtype, metadata } = await cli.tensor(`${family}.safetensors`, 'resid_post');
    const expected = await read(states);
    expectClose(data, expected);
    expect(dtype).toBe('F32');
    expect(shape).toEqual([expected.length / tokens.length / report.model.nEmbd, tokens.length, report.model.nEmbd]);
    expect(JSON.parse(metadata.tokens as string)).toEqual(tokens);
    expect(JSON.parse(metadata.positions as string)).toEqual(tokens.map((_, i) => i));
    expect(report).toMatchObject({ hook: 'resid_post', shape, tokens });
  });

  test('reads chosen layers and positions, also from the end', async () => {
    const { tokens, states, read } = reference('llama', 'long');
    const base = ['capture', '-m', model('llama'), '--tokens', tokens.join()];
    await cli.json(...base, '--layers', '0,2', '--positions', '-1,5', '-o', 'some.safetensors');
    const { data, shape, metadata } = await cli.tensor('some.safetensors', 'resid_post');
    expect(shape).toEqual([2, 2, 64]);
    expect(metadata).toMatchObject({ layers: '[0,2]', positions: '[23,5]', tokens: `[${tokens[23]},${tokens[5]}]` });
    const all = await read(states);
    const at = (layer: number, position: number) => all.subarray((layer * 24 + position) * 64).subarray(0, 64);
    expectClose(data, [...at(0, 23), ...at(0, 5), ...at(2, 23), ...at(2, 5)]);
  });

  test('puts pictures where the prompt marks them', async () => {
    const { tokens, states, read } = reference('llava', 'two-pictures');
    const prompt = ['--prompt', 'Q:<image>\\nA:Sweden\\n\\nQ:<image>\\nA:'];
    const images = ['--image', picture('square-a.png'), '--image', picture('square-b.png')];
    const report = await cli.json('capture', ...LLAVA, ...prompt, ...images, '-o', 'pictures.safetensors');
    expect(report.tokens).toEqual(tokens);
    expectClose((await cli.tensor('pictures.safetensors', 'resid_post')).data, await read(states));
  });

  test('reads escapes in the prompt unless told not to', async () => {
    const base = ['capture', '-m', model('llama'), '-o', 'escapes.safetensors'];
    const written = await cli.json(...base, '--prompt', 'Q:\\tA\\\\n\\n');
    expect(written.prompt.text).toBe('Q:\tA\\n\n');
    const raw = await cli.json(...base, '--prompt', 'Q:\\n\n', '--no-escape');
    expect(raw.prompt.text).toBe('Q:\\n\n');
  });
});

describe('run', () => {
  test('writes the logits that transformers computes', async () => {
    const { tokens, logits, read } = reference('llama', 'long');
    const args = ['-m', model('llama'), '--tokens', tokens.join(), '--save-logits', 'logits.safetensors'];
    const { text } = await cli.json('run', ...args, '-n', '0', '--n-ctx', String(tokens.length));
    expect(text).toBe('');
    const { data, shape } = await cli.tensor('logits.safetensors', 'logits');
    expect(shape).toEqual([1, 288]);
    expectClose(data, (await read(logits)).subarray(-288));
  });

  test('patches any capture file in, with the outcome that transformers computes', async () => {
    const { tokens, cases, read } = reference('llama', 'long');
    const { interventions, logits } = cases.find(
      ({ name }) => name === 'replace-middle-layer-last-token',
    ) as (typeof cases)[0];
    const [{ layer, value }] = interventions as [(typeof interventions)[0]];
    await writeCapture('value.safetensors', layer, await read(value as string));
    const args = ['-m', model('llama'), '--tokens', tokens.join(), '-n', '2', '--save-logits', 'patched.safetensors'];
    const report = await cli.json('run', ...args, '--vector', 'value.safetensors', '--layers', String(layer));
    expect(report.patch).toMatchObject({ layer, position: 23, op: 'replace', vectorModel: 'foreign' });
    expect(report.patch.delta).toBeGreaterThan(0);
    expectClose((await cli.tensor('patched.safetensors', 'logits')).data, await read(logits));
  });

  test('replace with its own state changes no bit, add does', async () => {
    await cli.json('capture', ...SHORT, '--positions', 'last', '-o', 'own.safetensors');
    const base = ['run', ...SHORT, '-n', '1', '--save-logits'];
    const patch = ['--vector', 'own.safetensors', '--layers', '1'];
    await cli.json(...base, 'plain.safetensors');
    await cli.json(...base, 'replaced.safetensors', ...patch);
    await cli.json(...base, 'added.safetensors', ...patch, '--op', 'add');
    const plain = (await cli.tensor('plain.safetensors', 'logits')).data;
    expect((await cli.tensor('replaced.safetensors', 'logits')).data).toEqual(plain);
    expect((await cli.tensor('added.safetensors', 'logits')).data).not.toEqual(plain);
  });

  test('prints text, and token ids where a model has no tokenizer', async () => {
    const prompt = ['--prompt', 'Q:Sweden\\nA:', '-n', '6'];
    const json = await cli.json('run', '-m', model('llama'), ...prompt);
    const text = await cli.run(['run', '-m', model('llama'), ...prompt, '--quiet']);
    expect(text).toEqual({ code: 0, stdout: json.text.endsWith('\n') ? json.text : `${json.text}\n`, stderr: '' });
    const tokens = await cli.run(['run', '-m', model('qwen2'), '--tokens', '1,2,3', '-n', '4', '--quiet']);
    expect(tokens.stdout).toMatch(/^\d+,\d+,\d+,\d+\n$/);
  });

  test('samples the same text for the same seed only', async () => {
    const args = ['run', '-m', model('llama'), '--prompt', 'Q:Sweden', '-n', '12', '--temperature', '2', '--seed'];
    const [first, again, other] = [
      await cli.json(...args, '7'),
      await cli.json(...args, '7'),
      await cli.json(...args, '8'),
    ];
    expect(again.tokens).toEqual(first.tokens);
    expect(other.tokens).not.toEqual(first.tokens);
  });

  test('says on stderr when a vector is of another model', async () => {
    await cli.json('capture', ...SHORT, '--positions', 'last', '-o', 'llama-vector.safetensors');
    const patch = ['--vector', 'llama-vector.safetensors', '--layers', '1', '-n', '1'];
    const { code, stderr } = await cli.run(['run', '-m', model('qwen2'), '--tokens', '1,2', ...patch]);
    expect(code).toBe(0);
    expect(stderr).toMatch(/the vector is from another model \(tiny-llama\)/);
  });
});

describe('sweep', () => {
  test.each([
    ['a text query', ['-m', model('llama'), '--prompt', 'Q:Sweden\\nA:']],
    ['a picture query', ONE_PICTURE],
  ])('gives what patching layer by layer gives, on %s', async (_, query) => {
    await cli.json('capture', '-m', model('llama'), '--tokens', '5,6,7,8', '-o', 'vector.safetensors');
    const args = ['sweep', ...query, '--vector', 'vector.safetensors', '--vector-position', '2', '--save-logits'];
    const report = await cli.json(...args, 'sweep.safetensors');
    await cli.json(...args, 'naive.safetensors', '--naive');
    const swept = await cli.tensor('sweep.safetensors', 'logits');
    const naive = await cli.tensor('naive.safetensors', 'logits');
    expect(swept.shape).toEqual([3, 288]);
    expect(report.layers.map(({ layer }: { layer: number }) => layer)).toEqual([0, 1, 2]);
    for (let layer = 0; layer < 3; layer++) {
      const row = swept.data.subarray(layer * 288, (layer + 1) * 288);
      const expected = naive.data.subarray(layer * 288, (layer + 1) * 288);
      expect(compare(row, expected).cosine).toBeGreaterThanOrEqual(1 - 1e-5);
      expect(argmax(row)).toBe(argmax(expected));
      expect(report.layers[layer].top[0].token).toBe(argmax(row));
      // One layer alone, by `run`.
      const patch = ['--vector', 'vector.safetensors', '--vector-position', '2', '--layers', String(layer), '-n', '1'];
      await cli.json('run', ...query, ...patch, '--save-logits', 'one.safetensors');
      expect(compare((await cli.tensor('one.safetensors', 'logits')).data, row).cosine).toBeGreaterThanOrEqual(
        1 - 1e-5,
      );
    }
  });

  test('prints one aligned line a layer', async () => {
    await cli.json('capture', ...SHORT, '--positions', 'last', '-o', 'table.safetensors');
    const args = ['sweep', ...SHORT, '--vector', 'table.safetensors', '--layers', '1-2', '--top', '2', '--quiet'];
    const { stdout } = await cli.run(args);
    const lines = stdout.trimEnd().split('\n');
    expect(lines.map((line) => line.split(/\s/, 1)[0])).toEqual(['layer', 'none', '1', '2']);
    const starts = lines.slice(1).map((line) => line.indexOf('"'));
    expect(new Set(starts).size).toBe(1);
  });
});

describe('extract', () => {
  test('an instruction vector is the state at its last token', async () => {
    const args = ['-m', model('llama'), '--tasks', 'country-capital', '--specs', 'instruction'];
    const report = await cli.json('extract', ...args, '-o', 'instruction.safetensors');
    expect(report).toMatchObject({ shape: [3, 64], prompts: 1, readPosition: 'instruction' });
    const prompt = ['--prompt', 'The capital city of the country:', '--positions', 'last'];
    await cli.json('capture', '-m', model('llama'), ...prompt, '-o', 'by-hand.safetensors');
    const { data, shape } = await cli.tensor('instruction.safetensors', 'task_vector');
    expect(shape).toEqual([3, 64]);
    expect(data).toEqual((await cli.tensor('by-hand.safetensors', 'resid_post')).data);
  });

  test('a text vector is the mean over its prompts, and equal seeds give equal bytes', async () => {
    const args = [
      'extract',
      '-m',
      model('llama'),
      '--tasks',
      'animal-young',
      '--specs',
      'text',
      '--shots',
      '2',
      '--prompts',
      '3',
    ];
    await cli.json(...args, '-o', 'text.safetensors');
    const { data, metadata } = await cli.tensor('text.safetensors', 'task_vector');
    const { prompts } = JSON.parse(metadata.origin as string) as { prompts: { tokens: number[] }[] };
    expect(prompts).toHaveLength(3);
    const mean = new Float64Array(data.length);
    for (const { tokens } of prompts) {
      const states = ['--tokens', tokens.join(), '--positions', 'last', '-o', 'prompt.safetensors'];
      await cli.json('capture', '-m', model('llama'), ...states);
      (await cli.tensor('prompt.safetensors', 'resid_post')).data.forEach((x, i) => {
        mean[i] = (mean[i] as number) + x / 3;
      });
    }
    expectClose(data, mean);
    await cli.json(...args, '-o', 'again.safetensors');
    expect(readFileSync(join(cli.folder, 'again.safetensors'))).toEqual(
      readFileSync(join(cli.folder, 'text.safetensors')),
    );
    await cli.json(...args, '--seed', '2', '-o', 'other.safetensors');
    expect((await cli.tensor('other.safetensors', 'task_vector')).data).not.toEqual(data);
  });

  test('an image vector of a task file of your own, with its pictures beside it', async () => {
    for (const name of ['square-a.png', 'square-b.png']) copyFileSync(picture(name), join(cli.folder, name));
    const items = [
      { input: 'a', output: 'one', image: 'square-a.png' },
      { input: 'b', output: 'two', image: 'square-b.png' },
    ];
    writeFileSync(join(cli.folder, 'squares.json'), JSON.stringify(items));
    const args = ['--tasks', 'squares.json', '--specs', 'image', '--shots', '1', '--prompts', '2'];
    const report = await cli.json(
      'extract',
      ...LLAVA,
      ...args,
      '--read-position',
      'dummy-query',
      '-o',
      'image.safetensors',
    );
    expect(report).toMatchObject({ shape: [3, 64], prompts: 2, shots: 1, readPosition: 'dummy-query' });
    const vector = await TaskVector.load(join(cli.folder, 'image.safetensors'));
    expect(vector.info.origin).toMatchObject({ op: 'prompts', task: 'squares', spec: 'image', seed: 1 });
  });
});

test('leaves nothing but the files that were asked for', () => {
  expect(readdirSync(cli.folder).filter((name) => !/^[a-z0-9-]+\.(safetensors|png|json)$/.test(name))).toEqual([]);
});
