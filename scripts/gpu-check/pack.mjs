#!/usr/bin/env node
// Makes the folder that checks xpatch on the GPU of a bare Linux machine, with everything in it but glibc and the driver.
//
//   node scripts/gpu-check/pack.mjs FOLDER [--archive FILE.tar.xz]
//
// Needs the built addon and dist/. Then, there: ./gpu-check. docs/performance.md says what it does.
import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readFileSync,
  realpathSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, join, relative, resolve } from 'node:path';
import { execPath, platform, stdout } from 'node:process';
import { parseArgs } from 'node:util';
import { build } from 'esbuild';
import { findFolders, findLlama, PACKAGE_ROOT } from '../../install/layout.mjs';

const { values, positionals } = parseArgs({ allowPositionals: true, options: { archive: { type: 'string' } } });
const [folder] = positionals;
if (folder === undefined || platform !== 'linux')
  throw new Error('usage, on Linux: pack.mjs FOLDER [--archive FILE.tar.xz]');
const app = join(folder, 'xpatch');
/** Headers, and libraries that are chosen below. */
const LEFT_OUT = /node-addon-api|node-api-headers|@node-llama-cpp/;
const FAMILIES = ['llama', 'llava-siglip', 'mantis-fuyu', 'idefics2', 'gemma3'];

const copy = (from, to = join(app, relative(PACKAGE_ROOT, from)), filter = () => true) =>
  cpSync(from, to, { recursive: true, dereference: true, filter });

for (const name of [
  'package.json',
  'dist',
  'install',
  'models/catalogue.json',
  'models/demo',
  'data',
  'schemas',
  'bench/make-model.mjs',
]) {
  copy(join(PACKAGE_ROOT, name), undefined, (file) => !/\.(map|d\.ts)$/.test(file));
}
const { packages } = JSON.parse(readFileSync(join(PACKAGE_ROOT, 'package-lock.json'), 'utf8'));
for (const [path, { dev }] of Object.entries(packages)) {
  if (path && !dev && !LEFT_OUT.test(path) && existsSync(join(PACKAGE_ROOT, path))) copy(join(PACKAGE_ROOT, path));
}
const { binary, prebuilt } = findFolders(PACKAGE_ROOT);
copy(existsSync(join(binary, 'xpatch.node')) ? binary : prebuilt);
// What the addon is linked to, and of the packages of GPU backends the backend alone.
const { libraries, gpuBackends } = findLlama(PACKAGE_ROOT);
const unused = /libllama-common|\.node$/;
copy(join(libraries.folder, '..', '..'), undefined, (file) => !unused.test(file));
for (const { path, package: name } of gpuBackends) {
  copy(path);
  copy(join(PACKAGE_ROOT, 'node_modules', name, 'package.json'));
}
for (const name of FAMILIES) {
  for (const end of ['gguf', 'mmproj.gguf', 'json', 'safetensors']) {
    const file = join(PACKAGE_ROOT, 'tests/fixtures/models', `${name}.${end}`);
    if (existsSync(file)) copy(file, join(app, 'fixtures/models', basename(file)));
  }
}
copy(join(PACKAGE_ROOT, 'tests/fixtures/models/pictures'), join(app, 'fixtures/models/pictures'));

// The checks are the tests' own, on the compiled library.
await build({
  absWorkingDir: PACKAGE_ROOT,
  entryPoints: ['scripts/gpu-check/check.ts'],
  outfile: join(app, 'gpu-check/check.mjs'),
  bundle: true,
  platform: 'node',
  format: 'esm',
  target: 'node20',
  logLevel: 'warning',
  plugins: [
    {
      name: 'library',
      setup: ({ onResolve }) => {
        const outside = (filter, to) =>
          onResolve({ filter }, ({ path }) => ({ path: path.replace(/^(\.\.\/)+(src\/)?/, to), external: true }));
        outside(/\/src\//, '../dist/');
        outside(/\/(install|bench)\//, '../');
      },
    },
  ],
});

// Node.js itself, and the libraries that a bare system may lack: of C++, and the Vulkan loader (the driver brings the rest).
const [bin, cxx] = ['bin', 'cxx'].map((name) => join(folder, name));
for (const one of [bin, cxx]) mkdirSync(one, { recursive: true });
copyFileSync(realpathSync(execPath), join(bin, 'node'));
execFileSync('strip', [join(bin, 'node')]);
const linked = [execPath, ...gpuBackends.map(({ path }) => path)].map((file) =>
  execFileSync('ldd', [file], { encoding: 'utf8' }),
);
for (const [, name, path] of linked.join('\n').matchAll(/(lib(?:stdc\+\+|gcc_s|vulkan)\.so\.\d) => (\S+)/g)) {
  copyFileSync(realpathSync(path), join(name.startsWith('libvulkan') ? bin : cxx, name));
}
const [, , cxxPath] = /(libstdc\+\+\.so\.6) => (\S+)/.exec(linked.join('\n')) ?? [];
const cxxVersion = /\d+$/.exec(realpathSync(cxxPath))[0]; // of libstdc++.so.6.0.30
const script = `#!/bin/sh
# xpatch on the GPU of this machine: ./gpu-check --help
here=$(cd "$(dirname "$0")" && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
libraries="$here/bin:$here/cxx"
# A driver may need the newer libstdc++ of its system.
for file in /usr/lib/x86_64-linux-gnu/libstdc++.so.6.* /usr/lib64/libstdc++.so.6.* /usr/lib/libstdc++.so.6.*; do
  if [ -e "$file" ] && [ "\${file##*.}" -gt ${cxxVersion} ] 2>/dev/null; then libraries="$here/bin"; fi
done
# No trial of files that are known, in a process of its own: each part has one.
export XPATCH_TRUST=1 LD_LIBRARY_PATH="$libraries" HOME="$folder" XPATCH_CHECK_FOLDER="$folder"
"$here/bin/node" --no-warnings "$here/xpatch/gpu-check/check.mjs" "$@"
`;
writeFileSync(join(folder, 'gpu-check'), script);
chmodSync(join(folder, 'gpu-check'), 0o755);
if (values.archive) {
  execFileSync('tar', ['-cJf', values.archive, '-C', dirname(resolve(folder)), basename(folder)], {
    env: { ...process.env, XZ_OPT: '-T2' },
  });
  stdout.write(`${values.archive}: ${(statSync(values.archive).size / 1e6).toFixed(1)} MB\n`);
}
