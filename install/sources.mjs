// llama.cpp's sources, out of the git bundle that node-llama-cpp ships. node-llama-cpp's own folder stays untouched:
// a clone inside it would change what that package takes itself for.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { CORRECTIONS, correct } from './corrections.mjs';
import { BuildError } from './errors.mjs';

// What a build reads: 40 of 209 MB.
const PATHS = ['ggml', 'src', 'include', 'vendor', 'tools/mtmd', 'cmake', 'common', 'CMakeLists.txt', 'LICENSE'];

function git(args, cwd) {
  // A hook or an outer git command exports GIT_DIR and the like, which would send these commands to another repository.
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('GIT_')));
  const result = spawnSync('git', args, { cwd, env, encoding: 'utf8', windowsHide: true });
  if (result.status !== 0) {
    const reason = (result.stderr || result.error?.message || '').trim();
    throw new BuildError('sources', `git ${args[0]} failed while unpacking llama.cpp: ${reason}`, {
      hint: 'Check the free disk space (80 MB are needed) and that node_modules is complete (`npm ci`).',
    });
  }
}

/** Unpacks the sources once and returns their folder. */
export function unpackSources(llama, cache) {
  const corrections = createHash('sha256').update(JSON.stringify(CORRECTIONS)).digest('hex').slice(0, 8);
  const name = `llama.cpp-${llama.tag}-${llama.version}-${corrections}`;
  const folder = join(cache, name);
  const stamp = join(folder, '.complete');
  if (existsSync(stamp)) return folder;
  if (!existsSync(llama.bundle)) {
    throw new BuildError('sources', `The bundle with llama.cpp's sources is missing: ${llama.bundle}`, {
      hint: 'Reinstall the packages with `npm ci`.',
    });
  }
  mkdirSync(cache, { recursive: true });
  for (const old of readdirSync(cache)) {
    if (old.startsWith('llama.cpp-')) rmSync(join(cache, old), { recursive: true, force: true });
  }
  const partial = join(cache, 'llama.cpp-partial');
  mkdirSync(partial);
  git(['init', '--quiet'], partial);
  git(['fetch', '--quiet', llama.bundle, 'HEAD'], partial);
  git(['-c', 'core.autocrlf=false', 'checkout', '--quiet', 'FETCH_HEAD', '--', ...PATHS], partial);
  // The history is not needed, and without it no tool takes the folder for a repository.
  rmSync(join(partial, '.git'), { recursive: true, force: true });
  correct(partial);
  writeFileSync(join(partial, '.complete'), `${llama.tag}\n`);
  renameSync(partial, folder);
  return folder;
}
