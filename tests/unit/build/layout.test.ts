import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { findLlama, hashSources, PACKAGE_ROOT } from '../../../install/layout.mjs';

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

/** The version that package.json asks for. */
const { optionalDependencies } = JSON.parse(readFileSync(join(PACKAGE_ROOT, 'package.json'), 'utf8'));
const VERSION = optionalDependencies['@node-llama-cpp/linux-x64'] as string;

function putPackage(name: string, platform: string, files: string[], version = VERSION) {
  put(`node_modules/@node-llama-cpp/${name}/package.json`, JSON.stringify({ version }));
  for (const file of files) put(`node_modules/@node-llama-cpp/${name}/bins/${platform}/${file}`);
}

test('the libraries to link are told apart from those beside them', () => {
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
  expect(llama).toMatchObject({ version: VERSION, tag: 'v0.4.0', platformPackage: '@node-llama-cpp/linux-x64' });
  expect(llama.libraries).toEqual({
    folder,
    llama: join(folder, 'libllama.v0.4.0.so'),
    ggml: join(folder, 'libggml.v0.4.0.so'),
    ggmlBase: join(folder, 'libggml-base.so'),
  });
  expect(llama.gpuBackends).toEqual([]);
});

test('a variant suffix and the macOS extension make no difference', () => {
  const files = [
    'libggml-base.dylib',
    'libggml.metal.v0.4.0.dylib',
    'libllama-common.dylib',
    'libllama.metal.v0.4.0.dylib',
  ];
  putPackage('mac-arm64-metal', 'mac-arm64-metal', [...files, 'libggml-metal.so']);
  const libraries = findLlama(root, 'darwin', 'arm64').libraries;
  expect(libraries?.llama).toMatch(/libllama\.metal\.v0\.4\.0\.dylib$/);
  expect(libraries?.ggml).toMatch(/libggml\.metal\.v0\.4\.0\.dylib$/);
});

test('GPU backends of sibling packages are found, the newest CUDA first', () => {
  putPackage('linux-x64-vulkan', 'linux-x64-vulkan', ['libggml-vulkan.so', 'libggml-cpu-x64.so']);
  putPackage('linux-x64-cuda-ext', 'linux-x64-cuda/fallback', ['libggml-cuda.so']);
  putPackage('linux-x64-cuda', 'linux-x64-cuda', ['libggml-cuda.so', 'libggml.cuda.v0.4.0.so']);
  const found = findLlama(root, 'linux', 'x64').gpuBackends.map((backend) => [backend.gpu, backend.package]);
  expect(found).toEqual([
    ['cuda', '@node-llama-cpp/linux-x64-cuda'],
    ['cuda', '@node-llama-cpp/linux-x64-cuda-ext'],
    ['vulkan', '@node-llama-cpp/linux-x64-vulkan'],
  ]);
});

test('packages are found in a node_modules further up, as when xpatch is a dependency', () => {
  put('node_modules/xpatch/package.json', '{}');
  putPackage('linux-x64', 'linux-x64', ['libggml-base.so', 'libggml.so', 'libllama.so']);
  expect(findLlama(join(root, 'node_modules/xpatch'), 'linux', 'x64').libraries).toBeDefined();
});

test('packages of another version are as good as none', () => {
  putPackage('linux-x64', 'linux-x64', ['libggml-base.so', 'libggml.so', 'libllama.so'], '3.0.0');
  putPackage('linux-x64-cuda', 'linux-x64-cuda', ['libggml-cuda.so'], '3.99.0');
  const { libraries, gpuBackends, gpuPackages } = findLlama(root, 'linux', 'x64');
  expect({ libraries, gpuBackends, first: gpuPackages[0] }).toEqual({
    libraries: undefined,
    gpuBackends: [],
    first: '@node-llama-cpp/linux-x64-cuda',
  });
});

test('all packages that are asked for are of the version that the sources are of', () => {
  const names = Object.keys(optionalDependencies).filter((name) => name.startsWith('@node-llama-cpp/'));
  expect(new Set(names.map((name) => optionalDependencies[name]))).toEqual(new Set([VERSION]));
  expect(findLlama(root).version).toBe(VERSION);
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
