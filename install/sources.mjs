// llama.cpp's sources, out of the git bundle in the package node-llama-cpp. That package is not a dependency: it brings 620 MB of GPU
// backends and a hundred packages, and is needed only where something is compiled.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { CORRECTIONS, correct } from './corrections.mjs';
import { BuildError } from './errors.mjs';
import { findPackage } from './layout.mjs';

// What a build reads: 40 of 209 MB.
const PATHS = ['ggml', 'src', 'include', 'vendor', 'tools/mtmd', 'cmake', 'common', 'CMakeLists.txt', 'LICENSE'];

function run(program, args, cwd, hint) {
  // A hook or an outer git command exports GIT_DIR and the like, which would send these commands to another repository.
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('GIT_')));
  const shell = program === 'npm' && process.platform === 'win32'; // a script there
  const result = spawnSync(program, args, { cwd, env, shell, encoding: 'utf8', windowsHide: true });
  if (result.status === 0) return;
  const reason = (result.stderr || result.error?.message || '').trim();
  throw new BuildError('sources', `${program} ${args[0]} failed while unpacking llama.cpp: ${reason}`, { hint });
}

const git = (args, cwd) => run('git', args, cwd, 'Check the free disk space (120 MB are needed).');

/** The bundle of an installed node-llama-cpp, or of its package, which npm fetches into `folder`. */
function findBundle({ version, integrity }, root, folder) {
  const path = join('llama', 'gitRelease.bundle');
  const installed = findPackage('node-llama-cpp', version, root);
  if (installed !== undefined && existsSync(join(installed, path))) return join(installed, path);
  const file = `node-llama-cpp-${version}.tgz`;
  run(
    'npm',
    ['pack', `node-llama-cpp@${version}`, '--prefer-offline', '--no-dry-run'],
    folder,
    'llama.cpp is compiled from the sources in this package of npm (36 MB): check the network, or npm config get registry.',
  );
  const [kind, expected] = integrity.split('-');
  const found = createHash(kind)
    .update(readFileSync(join(folder, file)))
    .digest('base64');
  if (found !== expected) {
    throw new BuildError('sources', `${file} is not what it should be: its ${kind} is ${found}, not ${expected}.`, {
      hint: 'Ask another registry: npm config get registry says which one it was.',
    });
  }
  run('tar', ['-xzf', file, 'package/llama/gitRelease.bundle'], folder, 'Install tar.');
  return join(folder, 'package', path);
}

/** Unpacks the sources once and returns their folder. */
export function unpackSources(llama, { root, cache }) {
  const corrections = createHash('sha256').update(JSON.stringify(CORRECTIONS)).digest('hex').slice(0, 8);
  const name = `llama.cpp-${llama.tag}-${llama.version}-${corrections}`;
  const folder = join(cache, name);
  const stamp = join(folder, '.complete');
  if (existsSync(stamp)) return folder;
  mkdirSync(cache, { recursive: true });
  for (const old of readdirSync(cache)) {
    if (old.startsWith('llama.cpp-')) rmSync(join(cache, old), { recursive: true, force: true });
  }
  const [partial, fetched] = ['partial', 'package'].map((end) => join(cache, `llama.cpp-${end}`));
  mkdirSync(partial);
  mkdirSync(fetched);
  git(['init', '--quiet'], partial);
  git(['fetch', '--quiet', findBundle(llama, root, fetched), 'HEAD'], partial);
  rmSync(fetched, { recursive: true });
  git(['-c', 'core.autocrlf=false', 'checkout', '--quiet', 'FETCH_HEAD', '--', ...PATHS], partial);
  // The history is not needed, and without it no tool takes the folder for a repository.
  rmSync(join(partial, '.git'), { recursive: true, force: true });
  correct(partial);
  writeFileSync(join(partial, '.complete'), `${llama.tag}\n`);
  renameSync(partial, folder);
  return folder;
}
