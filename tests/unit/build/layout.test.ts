import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { findLlama, hashSources } from '../../../install/layout.mjs';

let root: string;

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'xpatch-layout-'));
});

afterEach(() => {
  rmSync(root, { recursive: true });
});

function put(path: string, text = '') {
  mkdirSync(dirname(join(root, path)), { recursive: true });
  writeFileSync(join(root, path), text);
}

function putLlama() {
  put('node_modules/node-llama-cpp/package.json', '{"version":"3.21.1"}');
  put('node_modules/node-llama-cpp/llama/binariesGithubRelease.json', '{"release":"v0.4.0"}');
}

function putPackage(name: string, platform: string, files: string[]) {
  put(`node_modules/@node-llama-cpp/${name}/package.json`, '{}');
  for (const file of files) put(`node_modules/@node-llama-cpp/${name}/bins/${platform}/${file}`);
}

test('the libraries to link are told apart from those beside them', () => {
  putLlama();
  putPackage('linux-x64', 'linux-x64', [
    'libggml-base.so',
    'libggml-cpu-x64.so',
    'libggml.v0.4.0.so',
    'libllama-common.so',
    'libllama.v0.4.0.so',
    'llama-addon.node',
  ]);
  const llama = findLlama(root, 'linux', 'x64');
  const folder = join(root, 'node_modules/@node-llama-cpp/linux-x64/bins/linux-x64');
  expect(llama).toMatchObject({ version: '3.21.1', tag: 'v0.4.0', platformPackage: '@node-llama-cpp/linux-x64' });
  expect(llama?.libraries).toEqual({
    folder,
    llama: join(folder, 'libllama.v0.4.0.so'),
    ggml: join(folder, 'libggml.v0.4.0.so'),
    ggmlBase: join(folder, 'libggml-base.so'),
  });
  expect(llama?.gpuBackends).toEqual([]);
});

test('a variant suffix and the macOS extension make no difference', () => {
  putLlama();
  const files = [
    'libggml-base.dylib',
    'libggml.metal.v0.4.0.dylib',
    'libllama-common.dylib',
    'libllama.metal.v0.4.0.dylib',
  ];
  putPackage('mac-arm64-metal', 'mac-arm64-metal', [...files, 'libggml-metal.so']);
  const libraries = findLlama(root, 'darwin', 'arm64')?.libraries;
  expect(libraries?.llama).toMatch(/libllama\.metal\.v0\.4\.0\.dylib$/);
  expect(libraries?.ggml).toMatch(/libggml\.metal\.v0\.4\.0\.dylib$/);
});

test('GPU backends of sibling packages are found, the newest CUDA first', () => {
  putLlama();
  putPackage('linux-x64-vulkan', 'linux-x64-vulkan', ['libggml-vulkan.so', 'libggml-cpu-x64.so']);
  putPackage('linux-x64-cuda-ext', 'linux-x64-cuda/fallback', ['libggml-cuda.so']);
  putPackage('linux-x64-cuda', 'linux-x64-cuda', ['libggml-cuda.so', 'libggml.cuda.v0.4.0.so']);
  const found = findLlama(root, 'linux', 'x64')?.gpuBackends.map((backend) => [backend.gpu, backend.package]);
  expect(found).toEqual([
    ['cuda', '@node-llama-cpp/linux-x64-cuda'],
    ['cuda', '@node-llama-cpp/linux-x64-cuda-ext'],
    ['vulkan', '@node-llama-cpp/linux-x64-vulkan'],
  ]);
});

test('packages are found in a node_modules further up, as when xpatch is a dependency', () => {
  putLlama();
  put('node_modules/xpatch/package.json', '{}');
  expect(findLlama(join(root, 'node_modules/xpatch'), 'linux', 'x64')?.version).toBe('3.21.1');
});

test('without node-llama-cpp there is no llama.cpp', () => {
  expect(findLlama(root)).toBeUndefined();
});

test('the hash of the sources changes with their text and names, not with line endings', () => {
  expect(hashSources(root)).toBeUndefined();
  put('CMakeLists.txt', 'project(x)\n');
  put('install/corrections.mjs');
  put('native/a.cpp', 'int a;\nint b;\n');
  const first = hashSources(root);
  put('native/a.cpp', 'int a;\r\nint b;\r\n');
  expect(hashSources(root)).toBe(first);
  put('native/bin/linux-x64/build.json', '{}');
  expect(hashSources(root)).toBe(first);
  put('native/a.cpp', 'int a;\nint c;\n');
  expect(hashSources(root)).not.toBe(first);
  put('native/a.cpp', 'int a;\nint b;\n');
  put('native/b.h', '');
  expect(hashSources(root)).not.toBe(first);
  rmSync(join(root, 'native/b.h'));
  expect(hashSources(root)).toBe(first);
  put('install/corrections.mjs', '// another');
  expect(hashSources(root)).not.toBe(first);
});
