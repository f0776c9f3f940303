// Where everything lives: our own folders, and node-llama-cpp's platform packages. Shared by the build and by src/native/load.ts.
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, realpathSync } from 'node:fs';
import { dirname, join, relative, sep } from 'node:path';
import { fileURLToPath } from 'node:url';

export const PACKAGE_ROOT = join(dirname(fileURLToPath(import.meta.url)), '..');

/** The llama.cpp that the sources here are written for, and the release of node-llama-cpp that brings it. */
const PINNED = readJson(join(PACKAGE_ROOT, 'install', 'llama.json'));

const LIBRARY = /\.(so|dylib|dll)$/;

/** node-llama-cpp's names of its platform packages: the CPU one (Metal on Apple silicon) and the ones that add a GPU backend. */
function packageNames(platform, arch) {
  const os = { linux: 'linux', darwin: 'mac', win32: 'win' }[platform];
  const cpu = arch === 'arm' ? 'armv7l' : arch;
  if (os === undefined) return { base: undefined, gpu: [] };
  if (os === 'mac') return { base: cpu === 'arm64' ? 'mac-arm64-metal' : `mac-${cpu}`, gpu: [] };
  // -cuda before -cuda-ext: the first that loads is used, and -ext holds the builds for older CUDA versions
  return { base: `${os}-${cpu}`, gpu: ['cuda', 'cuda-ext', 'vulkan'].map((name) => `${os}-${cpu}-${name}`) };
}

/** Folder of an installed package of one version, found as node finds it: in the node_modules of `from` and of every folder above. */
export function findPackage(name, version, from) {
  for (let folder = from; ; folder = dirname(folder)) {
    const manifest = join(folder, 'node_modules', name, 'package.json');
    if (existsSync(manifest))
      return readJson(manifest).version === version ? realpathSync(dirname(manifest)) : undefined;
    if (dirname(folder) === folder) return undefined;
  }
}

function readJson(path) {
  return JSON.parse(readFileSync(path, 'utf8'));
}

function filesBelow(folder) {
  return readdirSync(folder, { withFileTypes: true, recursive: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath ?? entry.path, entry.name))
    .sort();
}

/** The prebuilt llama and ggml libraries of one platform package, or undefined when the package holds none to link. */
function findLibraries(packageFolder) {
  const files = filesBelow(join(packageFolder, 'bins'));
  const named = (pattern) => files.find((file) => pattern.test(file.slice(file.lastIndexOf(sep) + 1)));
  const llama = named(/^(lib)?llama(\.[\w.]+)?\.(so|dylib|dll)$/);
  const ggml = named(/^(lib)?ggml(\.[\w.]+)?\.(so|dylib|dll)$/);
  const ggmlBase = named(/^(lib)?ggml-base\.(so|dylib|dll)$/);
  if (!llama || !ggml || !ggmlBase) return undefined;
  return { folder: dirname(llama), llama, ggml, ggmlBase };
}

/** What node-llama-cpp's packages bring: the prebuilt libraries to link, and the GPU backends that load at run time. */
export function findLlama(root = PACKAGE_ROOT, platform = process.platform, arch = process.arch) {
  const { tag, nodeLlamaCpp: version, integrity } = PINNED;
  const { base, gpu } = packageNames(platform, arch);
  const baseFolder = base && findPackage(`@node-llama-cpp/${base}`, version, root);
  const gpuPackages = gpu.map((name) => `@node-llama-cpp/${name}`);
  const gpuBackends = gpuPackages.flatMap((name) => {
    const found = findPackage(name, version, root);
    if (found === undefined) return [];
    const kind = name.includes('cuda') ? 'cuda' : 'vulkan';
    return filesBelow(join(found, 'bins'))
      .filter((file) => LIBRARY.test(file) && file.slice(file.lastIndexOf(sep) + 1).includes(`ggml-${kind}`))
      .map((path) => ({ gpu: kind, path, package: name }));
  });
  return {
    version,
    tag,
    integrity,
    platformPackage: base === undefined ? undefined : `@node-llama-cpp/${base}`,
    libraries: baseFolder && findLibraries(baseFolder),
    gpuPackages,
    gpuBackends,
  };
}

/** Our own folders below `root`, for one platform. */
export function findFolders(root = PACKAGE_ROOT, platform = process.platform, arch = process.arch) {
  const key = `${platform}-${arch}`;
  return {
    root,
    key,
    /** the addon that this machine built: xpatch.node, build.json, build-report.json */
    binary: join(root, 'native', 'bin', key),
    /** an addon that came with the package: xpatch.node, build.json */
    prebuilt: join(root, 'prebuilds', key),
    cache: join(root, '.cache', 'native'),
  };
}

/**
 * SHA-256 over the C++ sources, CMakeLists.txt and the corrections to llama.cpp: a binary built from other sources is noticed.
 * Undefined when they are not shipped.
 */
export function hashSources(root = PACKAGE_ROOT) {
  const folder = join(root, 'native');
  const list = join(root, 'CMakeLists.txt');
  const corrections = join(root, 'install', 'corrections.mjs');
  if (![folder, list, corrections].every((path) => existsSync(path))) return undefined;
  const sources = readdirSync(folder)
    .filter((name) => /\.(cc|cpp|h)$/.test(name))
    .sort()
    .map((name) => join(folder, name));
  const hash = createHash('sha256');
  for (const file of [list, corrections, ...sources]) {
    // line endings differ between checkouts, the program does not
    const text = readFileSync(file, 'utf8').replaceAll('\r\n', '\n');
    hash.update(`${relative(root, file).replaceAll(sep, '/')}\0${text}\0`);
  }
  return hash.digest('hex');
}

export function hashFile(path) {
  return createHash('sha256').update(readFileSync(path)).digest('hex');
}

export function packageVersion(root = PACKAGE_ROOT) {
  return readJson(join(root, 'package.json')).version;
}
