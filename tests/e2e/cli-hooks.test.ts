import { copyFileSync, existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { HOOKS } from '../../src/hooks/types.js';
import { commandLine, FIXTURES } from './cli-helpers.js';

const cli = commandLine();
const model = (name: string) => join(FIXTURES, `${name}.gguf`);
const LLAMA = ['-m', model('llama'), '--device', 'cpu', '--tokens', '5,6,7,8,9'];

describe('hooks', () => {
  const { XDG_CACHE_HOME } = process.env;
  const cache = join(cli.folder, 'cache');
  const records = join(cache, 'xpatch', 'points');
  beforeAll(() => {
    process.env.XDG_CACHE_HOME = cache;
  });
  afterAll(() => {
    if (XDG_CACHE_HOME === undefined) delete process.env.XDG_CACHE_HOME;
    else process.env.XDG_CACHE_HOME = XDG_CACHE_HOME;
  });

  test('what was found once is remembered by the header of the files, and found again where the record is damaged', async () => {
    copyFileSync(model('gemma2'), 'copy.gguf');
    const ask = (...more: string[]) => cli.json('hooks', '-m', 'copy.gguf', '--device', 'cpu', ...more);
    const found = await ask();
    const [name] = readdirSync(records) as [string];
    expect(readdirSync(records)).toHaveLength(1);
    const record = join(records, name);
    const kept = readFileSync(record, 'utf8');
    writeFileSync(record, kept.replace('"z"', '"zz"')); // so that it shows where an answer comes from
    expect(JSON.stringify(await ask())).toBe(JSON.stringify(found).replace('"z"', '"zz"'));
    copyFileSync('copy.gguf', 'other.gguf');
    expect(JSON.stringify(await cli.json('hooks', '-m', 'other.gguf', '--device', 'cpu'))).toContain('"zz"');

    for (const damaged of [kept.slice(0, 100), '{"format":"xpatch.points/0"}', '', 'null', '[]']) {
      writeFileSync(record, damaged);
      expect(await ask()).toEqual(found);
      expect(readFileSync(record, 'utf8')).toBe(kept);
    }
    expect(await ask('--flash-attention', 'on')).toMatchObject({ flashAttention: 'on' });
    expect(readdirSync(records)).toHaveLength(2);

    const bytes = readFileSync('copy.gguf');
    bytes.writeUInt8(bytes.readUInt8(bytes.indexOf('gemma2') + 6) ^ 1, bytes.indexOf('gemma2') + 6);
    writeFileSync('copy.gguf', bytes);
    expect(await cli.error('hooks', '-m', 'copy.gguf', '--device', 'cpu')).toMatchObject({ code: 'GGUF_INVALID' });
    expect(existsSync(record)).toBe(true);
  });

  test('lists every point, with the reasons for those that are not there', async () => {
    const { hooks, flashAttention, model: identity } = await cli.json('hooks', '-m', model('llama'), '--device', 'cpu');
    expect(hooks.map(({ hook }: { hook: string }) => hook)).toEqual(HOOKS);
    expect(flashAttention).toBe('off');
    expect(identity.nLayers).toBe(3);
    const by = Object.fromEntries(hooks.map((point: { hook: string }) => [point.hook, point]));
    expect(by.z).toEqual({ hook: 'z', layers: [0, 1, 2], width: 64, heads: 4, refusals: [] });
    expect(by.k).toMatchObject({ width: 32, heads: 2, rotated: true });
    expect(by.router).toMatchObject({
      layers: [],
      refusals: [{ layers: [0, 1, 2], reason: 'the block has no experts' }],
    });
    const { stdout } = await cli.run(['hooks', '-m', model('gpt-neox'), '--device', 'cpu', '--flash-attention', 'on']);
    expect(stdout).toMatch(/^resid_mid {4}layers 0-2: none, attention and MLP read the same state/m);
    expect(stdout).toMatch(
      /^pattern {6}layers 0-2: none, flash attention does not compute it \(--flash-attention off\)$/m,
    );
    expect(stdout).toMatch(/^z {12}layers 0-2: 4 heads x 16$/m);
  });

  test('takes no option that changes nothing there', async () => {
    expect(await cli.error('hooks', '-m', model('llama'), '--n-ctx', '64')).toMatchObject({ code: 'INVALID_ARGUMENT' });
  });
});

describe('capture and run at a point', () => {
  test('a tensor of the name of each hook, and metadata that know them', async () => {
    const report = await cli.json(
      'capture',
      ...LLAMA,
      '--hook',
      'z',
      '--hook',
      'embed',
      '--layers',
      '0,2',
      '-o',
      'z.safetensors',
    );
    expect(report).toMatchObject({ hook: 'z', shape: [2, 5, 64], layers: [0, 2], heads: [0, 1, 2, 3] });
    expect(report.hooks).toMatchObject([{ hook: 'z' }, { hook: 'embed', shape: [1, 5, 64], layers: [0] }]);
    const z = await cli.tensor('z.safetensors', 'z');
    expect(z).toMatchObject({
      shape: [2, 5, 64],
      dtype: 'F32',
      metadata: { hook: 'z', layers: '[0,2]', heads: '[0,1,2,3]' },
    });
    expect(JSON.parse(z.metadata.hooks ?? '')).toEqual({
      z: { layers: [0, 2], heads: [0, 1, 2, 3] },
      embed: { layers: [0] },
    });
    const heads = await cli.json(
      'capture',
      ...LLAMA,
      '--hook',
      'z',
      '--heads',
      '1,3',
      '--positions',
      'last',
      '-o',
      'h.safetensors',
    );
    expect(heads).toMatchObject({ shape: [3, 1, 32], heads: [1, 3] });
    const some = await cli.tensor('h.safetensors', 'z');
    expect(some.data.slice(0, 16)).toEqual(z.data.slice(4 * 64 + 16, 4 * 64 + 32));
  });

  test('a state of one prompt is written at the same point of another one', async () => {
    await cli.json(
      'capture',
      ...LLAMA,
      '--hook',
      'z',
      '--hook',
      'mlp_out',
      '--positions',
      'last',
      '-o',
      'from.safetensors',
    );
    const OTHER = ['-m', model('llama'), '--device', 'cpu', '--tokens', '20,21,22', '-n', '0', '--save-logits'];
    await cli.json('run', ...OTHER, 'plain.safetensors');
    const patch = ['--patch', 'from.safetensors', '--layer', '1', '--position', '-1'];
    const whole = await cli.json('run', ...OTHER, 'whole.safetensors', ...patch, '--hook', 'z');
    expect(whole.patch).toMatchObject({ hook: 'z', layer: 1, position: 2, op: 'replace', vector: { hook: 'z' } });
    expect(whole.patch.delta).toBeGreaterThan(0);
    const one = await cli.json('run', ...OTHER, 'one.safetensors', ...patch, '--hook', 'z', '--heads', '2');
    expect(one.patch.delta).toBeGreaterThan(0);
    expect(one.patch.delta).toBeLessThan(whole.patch.delta);
    await cli.json('run', ...OTHER, 'mlp.safetensors', ...patch, '--hook', 'mlp_out');
    const files = ['plain', 'whole', 'one', 'mlp'].map((name) => cli.tensor(`${name}.safetensors`, 'logits'));
    const logits = (await Promise.all(files)).map(({ data }) => data.join());
    expect(new Set(logits).size).toBe(4);
  });

  test('what does not fit is refused', async () => {
    await cli.json('capture', ...LLAMA, '--hook', 'z', '--positions', 'last', '-o', 'only-z.safetensors');
    const run = ['run', ...LLAMA, '--patch', 'only-z.safetensors', '--layer', '1'];
    expect(await cli.error(...run)).toMatchObject({
      code: 'VECTOR_INVALID',
      exit: 1,
      message: expect.stringMatching(/z, not resid_post/),
    });
    expect(await cli.error(...run, '--hook', 'q')).toMatchObject({ code: 'VECTOR_INVALID' });
    expect(await cli.error(...run, '--hook', 'z', '--heads', '7')).toMatchObject({ code: 'HEAD_OUT_OF_RANGE' });
    expect(await cli.error('run', ...LLAMA, '--hook', 'z')).toMatchObject({ code: 'INVALID_ARGUMENT', exit: 2 });
    const capture = ['capture', ...LLAMA, '-o', 'x.safetensors'];
    expect(await cli.error(...capture, '--hook', 'router')).toMatchObject({ code: 'HOOK_UNSUPPORTED' });
    expect(await cli.error(...capture, '--hook', 'pattern', '--flash-attention', 'on')).toMatchObject({
      code: 'HOOK_UNSUPPORTED',
      message: expect.stringMatching(/--flash-attention off/),
    });
    expect(await cli.error(...capture, '--hook', 'z', '--hook', 'z')).toMatchObject({ code: 'INVALID_ARGUMENT' });
    expect(await cli.error(...capture, '--hook', 'nothing')).toMatchObject({ code: 'INVALID_ARGUMENT' });
  });
});

test('attention is knocked out', async () => {
  const run = ['run', ...LLAMA, '-n', '0', '--save-logits'];
  await cli.json(...run, 'a.safetensors');
  const cut = await cli.json(...run, 'b.safetensors', '--knock-out', '0-1:0-2->last', '--knock-out', '2:1,3:0->3,4');
  expect(cut.knockOut).toMatchObject([
    { layer: 0, position: 4, delta: 12, op: 'knock-out' },
    { layer: 1, position: 4, delta: 12 },
    { layer: 2, position: 3, delta: 2 },
    { layer: 2, position: 4, delta: 2 },
  ]);
  const [a, b] = [await cli.tensor('a.safetensors', 'logits'), await cli.tensor('b.safetensors', 'logits')];
  expect(a.data).not.toEqual(b.data);
  for (const wrong of ['0', '0:1', '0:1->', '0:->1', '0:3-1->4', '0:0->1->2', 'x:0->1']) {
    expect(await cli.error(...run, 'c.safetensors', '--knock-out', wrong)).toMatchObject({ code: 'INVALID_ARGUMENT' });
  }
  const one = [...run, 'c.safetensors', '--knock-out', '1:2:0->last', '--flash-attention', 'on'];
  expect(await cli.error(...one)).toMatchObject({ code: 'HOOK_UNSUPPORTED' });
  const all = await cli.error(...run, 'c.safetensors', '--knock-out', '1:all->last');
  expect(all).toMatchObject({ code: 'INTERVENTION_INVALID', message: expect.stringMatching(/see nothing/) });
});
