// The shipped model by its name, as a new user meets it.
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { PACKAGE_ROOT } from '../../install/layout.mjs';
import { commandLine, parseJson } from './cli-helpers.js';

const cli = commandLine();
const PICTURE = join(PACKAGE_ROOT, 'data', 'images', 'twemoji', 'tomato.png');

test('doctor finds nothing wrong', async () => {
  const outcome = await cli.run(['doctor', '--json']);
  const { ok, checks } = parseJson(outcome);
  expect({ code: outcome.code, ok, checks }).toEqual({
    code: 0,
    ok: true,
    checks: Array(4).fill({ name: expect.any(String), ok: true, detail: expect.any(String) }),
  });
});

test('a text vector, of the model or of its base, makes it answer a picture query with the task', async () => {
  const query = ['-m', 'demo', '--prompt', 'Q:<image>\\nA:', '--image', PICTURE];
  const plain = await cli.json('run', ...query, '--stop', '\\n');
  for (const [source, relation] of [
    ['demo', 'same'],
    ['demo-base', 'foreign'],
  ]) {
    const file = `${source}.safetensors`;
    await cli.json('extract', '-m', source as string, '--tasks', 'food-color', '--specs', 'text', '-o', file);
    const sweep = await cli.json('sweep', ...query, '--vector', file);
    expect(sweep.patch.vectorModel).toBe(relation);
    const red = sweep.layers.find(
      ({ top }: { top: { text: string }[] }) => top[0]?.text.trim().toLowerCase() === 'red',
    );
    expect(red).toBeDefined();
    const patch = ['--vector', file, '--layers', String(red.layer)];
    const patched = await cli.json('run', ...query, ...patch, '--stop', '\\n');
    expect(patched.text.trim().toLowerCase()).toBe('red');
    expect(plain.text.trim().toLowerCase()).not.toBe('red');
  }
});
