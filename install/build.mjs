// Makes the addon: prebuilt, hybrid or source. See CMakeLists.txt for what the modes mean.
import { createHash } from 'node:crypto';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join, relative, sep } from 'node:path';
import { runCmake } from './cmake.mjs';
import { BuildError } from './errors.mjs';
import { findFolders, findLlama, hashFile, hashSources, PACKAGE_ROOT, packageVersion } from './layout.mjs';
import { withLock } from './lock.mjs';
import { unpackSources } from './sources.mjs';
import { checkTools } from './tools.mjs';
import { verifyAddon } from './verify.mjs';

export const MODES = ['auto', 'hybrid', 'source'];

function writeJson(path, value) {
  const temporary = `${path}.${process.pid}.tmp`;
  writeFileSync(temporary, `${JSON.stringify(value, null, 2)}\n`);
  renameSync(temporary, path);
}

function readBuildInfo(folder) {
  const path = join(folder, 'build.json');
  return existsSync(path) ? JSON.parse(readFileSync(path, 'utf8')) : undefined;
}

/** XPATCH_CMAKE_ARGS, e.g. "-DGGML_CUDA=OFF -DGGML_NATIVE=OFF". */
export function parseCmakeArgs(text = '') {
  const definitions = {};
  for (const word of text.split(/\s+/).filter(Boolean)) {
    const match = /^-D([A-Za-z_]\w*)(?::\w+)?=(.*)$/.exec(word);
    if (!match) throw new BuildError('tools', `XPATCH_CMAKE_ARGS: "${word}" is not of the form -DNAME=VALUE.`);
    definitions[match[1]] = match[2];
  }
  return definitions;
}

/** Why hybrid is impossible here, or undefined. */
export function refuseHybrid(llama, platform = process.platform) {
  if (platform === 'win32') return 'the Windows packages of node-llama-cpp hold no import libraries to link against';
  if (llama.platformPackage === undefined) return `node-llama-cpp has no package for ${platform}-${process.arch}`;
  if (llama.libraries === undefined) return `${llama.platformPackage} ${llama.version} is not installed`;
  return undefined;
}

/** A prebuilt addon is used when it belongs to these sources and this llama.cpp, and loads. */
function tryPrebuilt(folders, llama, sourceHash) {
  const info = readBuildInfo(folders.prebuilt);
  const path = join(folders.prebuilt, 'xpatch.node');
  if (info === undefined || !existsSync(path)) return { reason: `no prebuilt addon in ${folders.prebuilt}` };
  if (sourceHash !== undefined && info.sourceHash !== sourceHash)
    return { reason: 'the prebuilt addon belongs to other sources' };
  if (info.mode === 'hybrid' && info.nodeLlamaCpp !== llama.version) {
    return {
      reason: `the prebuilt addon was linked to node-llama-cpp ${info.nodeLlamaCpp}, ${llama.version} is installed`,
    };
  }
  try {
    verifyAddon(path);
    return { info };
  } catch (error) {
    return { reason: error.message };
  }
}

/**
 * Where the addon finds the libraries, relative to itself so that a moved project still works: from native/bin/, and from
 * prebuilds/ in a clone and as an installed dependency.
 */
function libraryPaths(folders, llama) {
  const inModules = llama.libraries.folder.replaceAll(sep, '/').replace(/^.*\/node_modules\//, '');
  const own = relative(folders.binary, llama.libraries.folder).replaceAll(sep, '/');
  return [own, `../../node_modules/${inModules}`, `../../../${inModules}`];
}

/** Compiles in one mode, or returns at once when nothing changed. */
async function compile(mode, { folders, llama, sourceHash, clean, onProgress }) {
  const { root } = folders;
  const extra = parseCmakeArgs(process.env.XPATCH_CMAKE_ARGS);
  const definitions = {
    XPATCH_MODE: mode,
    XPATCH_LLAMA_TAG: llama.tag,
    XPATCH_VERSION: packageVersion(root),
    ...(mode === 'hybrid' && {
      XPATCH_LIB_LLAMA: llama.libraries.llama,
      XPATCH_LIB_GGML: llama.libraries.ggml,
      XPATCH_LIB_GGML_BASE: llama.libraries.ggmlBase,
      XPATCH_RPATH: libraryPaths(folders, llama).join(';'),
    }),
    ...extra,
  };
  const environment = ['CC', 'CXX', 'CFLAGS', 'CXXFLAGS', 'LDFLAGS'].map((name) => process.env[name] ?? '');
  const fingerprint = createHash('sha256')
    .update(JSON.stringify([definitions, environment, sourceHash, llama.version]))
    .digest('hex');
  const binary = join(folders.binary, 'xpatch.node');
  const last = readBuildInfo(folders.binary);
  if (!clean && last?.fingerprint === fingerprint && existsSync(binary) && hashFile(binary) === last.sha256) {
    return { ...last, upToDate: true };
  }

  const tools = checkTools();
  const started = Date.now();
  const folder = join(folders.cache, mode);
  if (clean) rmSync(folder, { recursive: true, force: true });
  onProgress?.({ step: 'unpack llama.cpp', percent: 0 });
  const sources = unpackSources(llama, folders);
  onProgress?.({ step: 'configure', percent: 0 });
  const found = await runCmake({
    root,
    folder,
    definitions: { ...definitions, XPATCH_LLAMA_DIR: sources },
    onProgress: (percent) => onProgress?.({ step: 'compile', percent }),
  });

  // Tested where the loader will look (the search path for libraries is relative), and renamed over the old one last:
  // processes that have it loaded keep theirs, and a failed build leaves it in place.
  mkdirSync(folders.binary, { recursive: true });
  const candidate = join(folders.binary, `xpatch-${process.pid}.node`);
  copyFileSync(join(folder, 'out', 'xpatch.node'), candidate);
  try {
    verifyAddon(candidate);
    renameSync(candidate, binary);
  } finally {
    rmSync(candidate, { force: true });
  }
  const info = {
    mode,
    platform: process.platform,
    arch: process.arch,
    xpatch: packageVersion(root),
    llamaTag: llama.tag,
    nodeLlamaCpp: llama.version,
    compiler: found.compiler,
    flags: found.flags,
    cmake: tools.cmake,
    cmakeArgs: extra,
    backends: found.backends,
    node: process.version,
    date: new Date().toISOString(),
    seconds: Math.round((Date.now() - started) / 100) / 10,
    sourceHash,
    fingerprint,
    sha256: hashFile(binary),
  };
  writeJson(join(folders.binary, 'build.json'), info);
  return { ...info, upToDate: false };
}

/** Frees the 50 to 90 MB that a build leaves. */
export function clearCache(cache) {
  for (const name of readdirSync(cache)) {
    if (name !== 'lock') rmSync(join(cache, name), { recursive: true, force: true });
  }
}

/**
 * Builds the addon and returns { mode, path, info, attempts }. `mode`: auto (prebuilt, then hybrid, then source), hybrid or source.
 * Throws BuildError. Either way, native/bin/<platform>/build-report.json says what was tried; the loader quotes it.
 */
export async function buildAddon({
  mode = process.env.XPATCH_LLAMA || 'auto',
  clean = false,
  keep = false,
  root = PACKAGE_ROOT,
  onProgress,
} = {}) {
  if (!MODES.includes(mode)) {
    throw new BuildError('tools', `XPATCH_LLAMA or --mode is "${mode}"; it must be one of ${MODES.join(', ')}.`);
  }
  const folders = findFolders(root);
  const attempts = [];
  let error;
  let result;
  try {
    result = await withLock(join(folders.cache, 'lock'), async () => {
      const made = await attempt(mode, { folders, clean, onProgress, attempts });
      if (!keep) clearCache(folders.cache);
      return made;
    });
  } catch (caught) {
    error = caught;
  }
  mkdirSync(folders.binary, { recursive: true });
  writeJson(join(folders.binary, 'build-report.json'), {
    ok: error === undefined,
    requested: mode,
    date: new Date().toISOString(),
    platform: folders.key,
    node: process.version,
    attempts,
    ...(error && { step: error.step ?? 'unexpected', message: error.message, hint: error.hint }),
  });
  if (error) throw error;
  return { ...result, attempts };
}

async function attempt(mode, { folders, clean, onProgress, attempts }) {
  const llama = findLlama(folders.root);
  const sourceHash = hashSources(folders.root);
  if (mode === 'auto') {
    const { info, reason } = tryPrebuilt(folders, llama, sourceHash);
    attempts.push({ mode: 'prebuilt', ok: info !== undefined, reason });
    if (info) {
      // an older addon of this machine would be found before the prebuilt one
      for (const name of ['xpatch.node', 'build.json']) rmSync(join(folders.binary, name), { force: true });
      return { mode: 'prebuilt', path: join(folders.prebuilt, 'xpatch.node'), info };
    }
  }
  if (mode !== 'source') {
    const refusal = refuseHybrid(llama);
    try {
      if (refusal) {
        throw new BuildError('hybrid', `Hybrid is impossible: ${refusal}.`, {
          hint: 'Compile llama.cpp too, with `XPATCH_LLAMA=source npx xpatch build`.',
          sourceMayHelp: true,
        });
      }
      const info = await compile('hybrid', { folders, llama, sourceHash, clean, onProgress });
      attempts.push({ mode: 'hybrid', ok: true });
      return { mode: 'hybrid', path: join(folders.binary, 'xpatch.node'), info };
    } catch (error) {
      attempts.push({ mode: 'hybrid', ok: false, reason: error.message });
      // errors in our own files or missing tools would only come again, five minutes later
      if (mode === 'hybrid' || !error.sourceMayHelp) throw error;
    }
  }
  try {
    const info = await compile('source', { folders, llama, sourceHash, clean, onProgress });
    attempts.push({ mode: 'source', ok: true });
    return { mode: 'source', path: join(folders.binary, 'xpatch.node'), info };
  } catch (error) {
    attempts.push({ mode: 'source', ok: false, reason: error.message });
    throw error;
  }
}
