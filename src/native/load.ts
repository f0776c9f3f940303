import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { findFolders, findLlama, hashFile, hashSources, type Llama, PACKAGE_ROOT } from '../../install/layout.mjs';
import { XpatchError } from '../util/errors.js';

/** How the loaded addon was made: the build.json next to it. */
export interface BuildInfo {
  /** hybrid: linked to the libraries of node-llama-cpp's platform package; source: llama.cpp compiled in. */
  mode: 'hybrid' | 'source';
  platform: string;
  arch: string;
  xpatch: string;
  llamaTag: string;
  nodeLlamaCpp: string;
  compiler: string;
  flags: string;
  cmake: string;
  cmakeArgs: Record<string, string>;
  /** Backends compiled in; `['dynamic']` when they are libraries loaded at run time. */
  backends: string[];
  node: string;
  /** ISO 8601. */
  date: string;
  /** Seconds the build took. */
  seconds: number;
  /** SHA-256 of the C++ sources it was built from. */
  sourceHash: string;
  /** SHA-256 of the addon itself. */
  sha256: string;
}

/** A folder to load every ggml backend from, or one GPU backend library. */
type BackendSource =
  | { kind: 'folder'; path: string }
  | { kind: 'library'; path: string; gpu: 'cuda' | 'vulkan'; package: string };

/** A loaded addon with what is needed to start its backends. */
export interface LoadedAddon {
  /** The addon's exports, not yet typed. */
  addon: unknown;
  /** File it was loaded from. */
  path: string;
  /** true when it came with the package instead of being built on this machine. */
  prebuilt: boolean;
  build: BuildInfo;
  /** Why the addon may not fit the sources next to it; undefined when it does. Also given out as a process warning. */
  stale: string | undefined;
  /**
   * Where this machine's compute backends are, in the order to load them. Empty when they are compiled in.
   * Libraries of the same `gpu` are alternatives: once one is loaded, the others would register its devices twice.
   */
  backends: BackendSource[];
}

const REBUILD = 'npx xpatch build';

let loaded: LoadedAddon | undefined;

/**
 * Loads the addon once a process.
 * Throws XpatchError `ADDON_LOAD`, whose message says what was looked for, why it failed and what to run.
 */
export function loadAddon(): LoadedAddon {
  loaded ??= loadAddonFrom(PACKAGE_ROOT);
  return loaded;
}

/** The same for the package in folder `root`, without keeping it. */
export function loadAddonFrom(root: string): LoadedAddon {
  const folders = findFolders(root);
  const llama = findLlama(root);
  const problems: string[] = [];
  let cause: unknown;
  for (const [folder, prebuilt] of [
    [folders.binary, false],
    [folders.prebuilt, true],
  ] as const) {
    const path = join(folder, 'xpatch.node');
    const problem = (text: string) => problems.push(`  ${path}: ${text}`);
    if (!existsSync(path)) {
      problem('not there');
      continue;
    }
    const build = readBuildInfo(folder);
    const refusal = build === undefined ? 'build.json next to it is missing or damaged' : refuse(build, path, llama);
    if (build === undefined || refusal !== undefined) {
      problem(refusal as string);
      continue;
    }
    try {
      const addon: unknown = createRequire(import.meta.url)(path);
      const stale = describeStale(build, root, llama);
      if (stale !== undefined) process.emitWarning(`${stale} Run \`${REBUILD}\`.`, { code: 'XPATCH_STALE_ADDON' });
      return { addon, path, prebuilt, build, stale, backends: findBackends(build, llama) };
    } catch (error) {
      cause = error;
      problem(explain(error instanceof Error ? error.message : String(error)));
    }
  }
  const message = [
    `The native addon of xpatch for ${folders.key} could not be loaded. Looked for:`,
    ...problems,
    ...quoteReport(join(folders.binary, 'build-report.json')),
    `Build it with \`${REBUILD}\` (needs a C++ compiler, CMake and git), or with \`XPATCH_LLAMA=source ${REBUILD}\` when the prebuilt llama.cpp libraries do not fit this machine. \`npx xpatch doctor\` checks the result.`,
  ].join('\n');
  throw new XpatchError('ADDON_LOAD', message, { cause });
}

function readBuildInfo(folder: string): BuildInfo | undefined {
  try {
    return JSON.parse(readFileSync(join(folder, 'build.json'), 'utf8'));
  } catch {
    return undefined;
  }
}

/** Why a binary must not even be opened: a damaged one, or one bound to other libraries, would take the process down. */
function refuse(build: BuildInfo, path: string, llama: Llama): string | undefined {
  if (build.platform !== process.platform || build.arch !== process.arch) {
    return `built for ${build.platform}-${build.arch}`;
  }
  if (hashFile(path) !== build.sha256) return 'damaged: its SHA-256 is not the one in build.json';
  if (build.mode !== 'hybrid') return undefined;
  if (llama.libraries === undefined) {
    return `it needs the libraries of ${llama.platformPackage} ${llama.version}, which is not installed (optional packages left out, or node_modules copied from another platform)`;
  }
  if (build.nodeLlamaCpp !== llama.version) {
    return `stale: built against node-llama-cpp ${build.nodeLlamaCpp} (llama.cpp ${build.llamaTag}), but ${llama.version} (${llama.tag}) is needed`;
  }
  return undefined;
}

function explain(message: string): string {
  const first = message.split('\n')[0] ?? message;
  if (/GLIBC|CXXABI/.test(first)) return `${first} (built on a newer system than this one)`;
  if (/cannot open shared object|Library not loaded|image not found/.test(first)) {
    return `${first} (the libraries of node-llama-cpp are not where they were when it was built: node_modules was moved)`;
  }
  if (
    /did not self-register|invalid ELF|wrong ELF|not a mach-o|incompatible architecture|not a valid Win32/.test(first)
  ) {
    return `${first} (not an addon for this system)`;
  }
  return first;
}

/** The addon works, but it was built from other sources than those next to it: a warning, because the interface may have changed. */
function describeStale(build: BuildInfo, root: string, llama: Llama): string | undefined {
  const hash = hashSources(root);
  if (hash !== undefined && hash !== build.sourceHash) {
    return `The native addon was built on ${build.date} from C++ sources that differ from ${join(root, 'native')}.`;
  }
  if (build.mode === 'source' && llama.tag !== build.llamaTag) {
    return `The native addon has llama.cpp ${build.llamaTag}, but this version of xpatch needs ${llama.tag}.`;
  }
  return undefined;
}

function findBackends(build: BuildInfo, llama: Llama): BackendSource[] {
  if (build.mode !== 'hybrid' || llama.libraries === undefined) return [];
  return [
    { kind: 'folder', path: llama.libraries.folder },
    ...llama.gpuBackends.map((backend) => ({ kind: 'library' as const, ...backend })),
  ];
}

/** The last build's own account, when it failed. */
function quoteReport(path: string): string[] {
  try {
    const report = JSON.parse(readFileSync(path, 'utf8'));
    if (report.ok) return [];
    const lines = [
      `The last build (${report.date}, mode ${report.requested}) failed at step "${report.step}": ${report.message}`,
    ];
    return report.hint ? [...lines, report.hint] : lines;
  } catch {
    return ['No build was recorded: the install step did not run (npm may be set to ignore scripts).'];
  }
}
