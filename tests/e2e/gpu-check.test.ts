// The folder that checks a GPU, on the CPU: it needs nothing outside of it, and its checks can fail.
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { platform, tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { PACKAGE_ROOT } from '../../install/layout.mjs';

const work = mkdtempSync(join(tmpdir(), 'xpatch-gpu-check-'));
const folder = join(work, 'packed');
afterAll(() => rmSync(work, { recursive: true, force: true }));

function check(...args: string[]) {
  const env = { PATH: '/usr/bin:/bin' };
  const { status, stdout } = spawnSync(join(folder, 'gpu-check'), args, { cwd: work, env, encoding: 'utf8' });
  return { status, stdout, result: JSON.parse(readFileSync(join(work, 'gpu-check.json'), 'utf8')) };
}
const failed = ({ result }: ReturnType<typeof check>) =>
  result.checks.filter(({ ok }: { ok: boolean }) => !ok).map(({ name }: { name: string }) => name);

if (platform() !== 'linux') {
  test.skip('the folder is for Linux', () => undefined);
} else {
  beforeAll(() => {
    execFileSync(process.execPath, [join(PACKAGE_ROOT, 'scripts/gpu-check/pack.mjs'), folder]);
  });

  test('passes where everything is right, and says what it found', () => {
    const run = check('--device', 'cpu', '--quick', '--only', 'devices,llama,leaks');
    expect([run.status, failed(run)]).toEqual([0, []]);
    expect(run.result.checks.length).toBeGreaterThan(8);
    expect(run.stdout).toMatch(/^ok +llama: states and patched logits are those of transformers: \d+ comparisons$/m);
  });

  test('fails on a device that is not there, and on numbers that are not those of the reference', () => {
    expect(failed(check('--device', 'Vulkan9', '--only', 'devices'))).toEqual(['the device is there']);
    const reference = join(folder, 'xpatch/fixtures/models/llama.safetensors');
    const bytes = readFileSync(reference);
    // The sign of every number after the header.
    for (let at = 8 + Number(bytes.readBigUInt64LE()) + 3; at < bytes.length; at += 4)
      bytes[at] = (bytes[at] ?? 0) ^ 128;
    writeFileSync(reference, bytes);
    const run = check('--device', 'cpu', '--only', 'llama');
    expect([run.status, failed(run)]).toEqual([1, ['llama: states and patched logits are those of transformers']]);
  });

  test('a part whose process ends early is a failed check', () => {
    rmSync(join(folder, 'xpatch/fixtures/models/idefics2.gguf'));
    const run = check('--device', 'cpu', '--only', 'idefics2');
    expect([run.status, failed(run)]).toEqual([1, ['idefics2']]);
  });
}
