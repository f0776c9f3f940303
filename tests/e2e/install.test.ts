// The install step and the loader in a copy of the package: whatever goes wrong, the installation goes on and the loader explains.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterAll, beforeEach, describe, expect, test } from '@jest/globals';
import { findFolders, findLlama, PACKAGE_ROOT } from '../../install/layout.mjs';
import { unpackSources } from '../../install/sources.mjs';

const built = findFolders(PACKAGE_ROOT).binary;
const roots: string[] = [];
let root: string;
let binary: string;

/** A package like the installed one, sharing its node_modules; without an addon. */
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'xpatch-install-'));
  roots.push(root);
  for (const file of ['package.json', 'CMakeLists.txt']) copyFileSync(join(PACKAGE_ROOT, file), join(root, file));
  for (const folder of ['install', 'dist']) cpSync(join(PACKAGE_ROOT, folder), join(root, folder), { recursive: true });
  cpSync(join(PACKAGE_ROOT, 'native'), join(root, 'native'), {
    recursive: true,
    filter: (source) => source !== join(PACKAGE_ROOT, 'native', 'bin'),
  });
  symlinkSync(join(PACKAGE_ROOT, 'node_modules'), join(root, 'node_modules'), 'junction');
  binary = findFolders(root).binary;
  // llama.cpp's sources, where this clone has unpacked them
  const [ours, theirs] = [PACKAGE_ROOT, root].map((folder) => findFolders(folder).cache) as [string, string];
  mkdirSync(theirs, { recursive: true });
  for (const name of existsSync(ours) ? readdirSync(ours) : []) {
    if (name.startsWith('llama.cpp-v')) symlinkSync(join(ours, name), join(theirs, name), 'junction');
  }
});

afterAll(() => {
  for (const folder of roots) rmSync(folder, { recursive: true, force: true });
});

function putAddon(change: (info: Record<string, unknown>) => Record<string, unknown> = (info) => info, addon?: Buffer) {
  mkdirSync(binary, { recursive: true });
  const bytes = addon ?? readFileSync(join(built, 'xpatch.node'));
  const info = JSON.parse(readFileSync(join(built, 'build.json'), 'utf8'));
  writeFileSync(join(binary, 'xpatch.node'), bytes);
  const sha256 = createHash('sha256').update(bytes).digest('hex');
  writeFileSync(join(binary, 'build.json'), JSON.stringify(change({ ...info, sha256 })));
}

/** Loads the addon of `root` in a process of its own. */
function load(): { code?: string; message?: string; loaded?: boolean; stale?: string; stderr: string } {
  const script = `
    import { loadAddonFrom } from ${JSON.stringify(pathToFileURL(join(PACKAGE_ROOT, 'dist/native/load.js')).href)};
    try {
      const { addon, stale } = loadAddonFrom(${JSON.stringify(root)});
      console.log(JSON.stringify({ loaded: Object.keys(addon).length > 0, stale }));
    } catch (error) {
      console.log(JSON.stringify({ code: error.code, message: error.message }));
    }`;
  const result = spawnSync(process.execPath, ['--input-type=module', '-e', script], { encoding: 'utf8' });
  expect(result.status).toBe(0);
  return { ...JSON.parse(result.stdout), stderr: result.stderr };
}

/** A package with no node_modules above it. */
function alone(): { root: string; cache: string } {
  const folder = mkdtempSync(join(tmpdir(), 'xpatch-install-'));
  roots.push(folder);
  return { root: folder, cache: join(folder, 'sources') };
}

function runBuild(script: 'install' | 'main', env: NodeJS.ProcessEnv, args: string[] = [], from = root) {
  const result = spawnSync(process.execPath, [join(from, 'install', `${script}.mjs`), ...args], {
    encoding: 'utf8',
    env: { ...process.env, ...env },
  });
  return { status: result.status, stdout: result.stdout, stderr: result.stderr };
}

describe('the loader', () => {
  test('loads the addon that the install step made', () => {
    putAddon();
    expect(load()).toMatchObject({ loaded: true, stderr: '' });
  });

  test('says where it looked and what to run when there is no addon', () => {
    const { code, message } = load();
    expect(code).toBe('ADDON_LOAD');
    expect(message).toContain(join(binary, 'xpatch.node'));
    expect(message).toContain(join(findFolders(root).prebuilt, 'xpatch.node'));
    expect(message).toContain('the install step did not run');
    expect(message).toContain('npx xpatch build');
  });

  test('refuses a truncated addon before the system opens it', () => {
    putAddon();
    writeFileSync(join(binary, 'xpatch.node'), readFileSync(join(built, 'xpatch.node')).subarray(0, 100_000));
    expect(load().message).toMatch(/xpatch\.node: damaged: its SHA-256/);
  });

  test("passes on the system's words about a file that is not an addon", () => {
    putAddon(undefined, Buffer.from('no addon at all '.repeat(100)));
    expect(load().message).toMatch(/\(not an addon for this system\)/);
  });

  test('refuses an addon without its record', () => {
    putAddon();
    rmSync(join(binary, 'build.json'));
    expect(load().message).toMatch(/build\.json next to it is missing/);
  });

  test('refuses an addon of another platform', () => {
    putAddon((info) => ({ ...info, arch: 'arm64', platform: 'darwin' }));
    expect(load().message).toMatch(/built for darwin-arm64/);
  });

  test('refuses an addon linked to other llama.cpp libraries than those installed', () => {
    putAddon((info) => ({ ...info, mode: 'hybrid', nodeLlamaCpp: '3.0.0', llamaTag: 'b4000' }));
    expect(load().message).toMatch(/stale: built against node-llama-cpp 3\.0\.0 \(llama\.cpp b4000\), but 3\.21\.1/);
  });

  test('says when the platform package is not installed', () => {
    putAddon((info) => ({ ...info, mode: 'hybrid' }));
    rmSync(join(root, 'node_modules'));
    expect(load().message).toMatch(/needs the libraries of @node-llama-cpp\/\S+ 3\.21\.1, which is not installed/);
  });

  test('warns of an addon built from other sources, and loads it', () => {
    putAddon();
    writeFileSync(join(root, 'native', 'addon.cpp'), '// changed\n');
    const result = load();
    expect(result).toMatchObject({ loaded: true, stale: expect.stringContaining('C++ sources that differ') });
    expect(result.stderr).toMatch(/XPATCH_STALE_ADDON.*npx xpatch build/);
  });

  test('takes a prebuilt addon when this machine built none', () => {
    putAddon();
    const { prebuilt } = findFolders(root);
    mkdirSync(dirname(prebuilt), { recursive: true });
    renameSync(binary, prebuilt);
    expect(load()).toMatchObject({ loaded: true, stderr: '' });
  });

  test('says that node_modules was moved when the libraries are elsewhere', () => {
    const { mode } = JSON.parse(readFileSync(join(built, 'build.json'), 'utf8'));
    putAddon();
    const elsewhere = mkdtempSync(join(tmpdir(), 'xpatch-install-'));
    roots.push(elsewhere);
    const moved = join(elsewhere, 'node_modules', 'xpatch');
    mkdirSync(dirname(moved));
    symlinkSync(
      join(PACKAGE_ROOT, 'node_modules', '@node-llama-cpp'),
      join(elsewhere, 'node_modules', '@node-llama-cpp'),
    );
    rmSync(join(root, 'node_modules'));
    renameSync(root, moved);
    root = moved;
    const result = load();
    if (mode === 'source') expect(result.loaded).toBe(true);
    else expect(result.message).toMatch(/libllama\S*: cannot open shared object.*node_modules was moved/);
  });
});

describe('the install step', () => {
  test('never fails the installation; the loader repeats what was missing', () => {
    const { status, stderr } = runBuild('install', { PATH: join(root, 'empty') });
    expect(status).toBe(0);
    expect(stderr).toMatch(/the addon was not built\. Missing: CMake.*git.*C\+\+ compiler/);
    expect(stderr).toContain('npx xpatch build');
    const { code, message } = load();
    expect(code).toBe('ADDON_LOAD');
    expect(message).toMatch(/The last build \(.*, mode auto\) failed at step "tools": Missing: CMake/);
  });

  test('reports a compiler error with its first lines and the log', () => {
    writeFileSync(join(root, 'native', 'broken.cpp'), '#error "broken on purpose"\n');
    // only the broken file: the rest of the addon would take a minute
    for (const file of ['addon.cpp', 'runtime.cpp', 'vision.cpp']) rmSync(join(root, 'native', file), { force: true });
    const cmake = readFileSync(join(root, 'CMakeLists.txt'), 'utf8');
    writeFileSync(join(root, 'CMakeLists.txt'), cmake.replace('PRIVATE mtmd llama ggml', 'PRIVATE llama ggml'));
    const { status, stderr } = runBuild('main', { XPATCH_LLAMA: 'hybrid' });
    expect(status).toBe(1);
    expect(stderr).toMatch(/CMake failed to compile the addon:\n(.*\n)*.*broken on purpose/);
    expect(stderr).toMatch(/The whole output is in .*build\.log/);
    expect(existsSync(join(binary, 'xpatch.node'))).toBe(false);
    expect(load().message).toMatch(/failed at step "compile"/);
  });

  test("fetches llama.cpp's sources by npm and refuses others than those meant", () => {
    const folders = alone();
    const other = { ...findLlama(), integrity: 'sha512-AAAA' };
    expect(() => unpackSources(other, folders)).toThrow(/node-llama-cpp-3\.21\.1\.tgz is not what it should be/);
    const folder = unpackSources(findLlama(), folders);
    expect(readFileSync(join(folder, 'tools', 'mtmd', 'mtmd.h'), 'utf8')).toContain('mtmd_init');
    expect(readdirSync(folders.cache)).toEqual([basename(folder)]);
  }, 300_000);

  test('says what to check when npm cannot bring them', () => {
    const env = { registry: process.env.npm_config_registry, cache: process.env.npm_config_cache };
    Object.assign(process.env, { npm_config_registry: 'http://127.0.0.1:1', npm_config_cache: join(root, 'npm') });
    process.env.npm_config_fetch_retries = '0';
    const folders = alone();
    try {
      expect(() => unpackSources(findLlama(), folders)).toThrow(
        expect.objectContaining({ step: 'sources', hint: expect.stringMatching(/36 MB.*registry/) }),
      );
    } finally {
      for (const [name, value] of Object.entries({ ...env, fetch_retries: undefined })) {
        if (value === undefined) delete process.env[`npm_config_${name}`];
        else process.env[`npm_config_${name}`] = value;
      }
    }
  });

  test('refuses an unknown mode by name', () => {
    const { status, stderr } = runBuild('main', { XPATCH_LLAMA: 'fast' });
    expect(status).toBe(1);
    expect(stderr).toContain('"fast"; it must be one of auto, hybrid, source');
  });

  test('has nothing to do when nothing changed', () => {
    const mode = JSON.parse(readFileSync(join(built, 'build.json'), 'utf8')).mode;
    runBuild('main', { XPATCH_LLAMA: mode }, [], PACKAGE_ROOT);
    const started = Date.now();
    const { status, stdout } = runBuild('main', { XPATCH_LLAMA: mode }, ['--json'], PACKAGE_ROOT);
    expect(status).toBe(0);
    expect(JSON.parse(stdout).info.upToDate).toBe(true);
    expect(Date.now() - started).toBeLessThan(5000);
  }, 600_000);
});
