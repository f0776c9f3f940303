import { spawn } from 'node:child_process';
import { copyFileSync, cpSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { PACKAGE_ROOT } from '../../install/layout.mjs';
import { commandLine, FIXTURES, finish, parseJson } from './cli-helpers.js';

const cli = commandLine();
interface Check {
  name: string;
  ok: boolean;
  detail: string;
}

test('reports versions, addon and devices, and fails a model that does not follow the task', async () => {
  // Random weights: everything works but the task vector.
  const outcome = await cli.run(['doctor', '-m', join(FIXTURES, 'llama.gguf'), '--json']);
  const { code, stderr } = outcome;
  const report = parseJson(outcome);
  expect({ code, stderr, ok: report.ok }).toEqual({ code: 1, stderr: '', ok: false });
  expect(report.versions).toMatchObject({
    node: process.version,
    xpatch: expect.any(String),
    llamaCpp: expect.any(String),
  });
  expect(report.addon.build.mode).toMatch(/hybrid|source/);
  expect(
    report.devices.some(
      ({ type, memoryTotal }: { type: string; memoryTotal: number }) => type === 'cpu' && memoryTotal > 0,
    ),
  ).toBe(true);
  for (const { wayOut } of report.failedBackends) expect(wayOut).not.toBe('');
  expect(report.checks.map(({ name, ok }: Check) => [name, ok])).toEqual([
    ['the addon loads', true],
    ['the model loads', true],
    ['a patched state is what later layers see', true],
    ['a task vector changes the answers', false],
  ]);
  expect(report.checks.at(-1).detail).toMatch(/too weak/);
});

test('survives a crash in native code and says where it was', async () => {
  writeFileSync(
    join(cli.folder, 'crash.cjs'),
    "if (process.argv[1].endsWith('doctor-child.js')) setTimeout(() => process.kill(process.pid, 'SIGSEGV'), 50);",
  );
  const outcome = await cli.run(['doctor', '--json'], {
    NODE_OPTIONS: `--require ${join(cli.folder, 'crash.cjs')}`,
  });
  const { ok, checks } = parseJson(outcome);
  expect({ code: outcome.code, ok }).toEqual({ code: 1, ok: false });
  expect(checks.at(-1).detail).toMatch(/SIGSEGV[\s\S]*--device cpu/);
});

test('explains a missing addon', async () => {
  const root = join(cli.folder, 'package');
  mkdirSync(root);
  for (const file of ['package.json', 'CMakeLists.txt']) copyFileSync(join(PACKAGE_ROOT, file), join(root, file));
  for (const folder of ['dist', 'install']) cpSync(join(PACKAGE_ROOT, folder), join(root, folder), { recursive: true });
  symlinkSync(join(PACKAGE_ROOT, 'node_modules'), join(root, 'node_modules'), 'junction');
  const { code, stdout } = await finish(spawn(process.execPath, [join(root, 'dist/cli/main.js'), 'doctor']));
  expect(code).toBe(1);
  expect(stdout).toMatch(/FAILED the addon loads[\s\S]*xpatch\.node: not there[\s\S]*npx xpatch build/);
});

test('starts, and says what is wrong, where sharp does not load', async () => {
  writeFileSync(
    join(cli.folder, 'no-sharp.cjs'),
    `const { dlopen } = process;
    process.dlopen = (module, file, ...rest) => {
      if (file.includes('sharp')) throw new Error('no sharp here');
      return dlopen(module, file, ...rest);
    };`,
  );
  const env = { NODE_OPTIONS: `--require ${join(cli.folder, 'no-sharp.cjs')}` };
  expect((await cli.run(['--help'], env)).code).toBe(0);
  const outcome = await cli.run(['doctor', '--json'], env);
  expect(outcome.code).toBe(1);
  const { checks } = parseJson(outcome);
  expect(checks[0]).toMatchObject({ name: 'the addon loads', ok: true });
  // What needs no picture is tested all the same.
  expect(checks.filter((check: { ok: boolean }) => !check.ok)).toMatchObject([
    { name: 'the self-test runs', detail: expect.stringMatching(/no sharp here/) },
  ]);
});
