// The programs a build needs, and what to say when one is missing.
import { spawnSync } from 'node:child_process';
import { BuildError } from './errors.mjs';

const INSTALL = {
  linux:
    'Debian, Ubuntu: apt-get install g++ cmake git. Fedora: dnf install gcc-c++ cmake git. Alpine: apk add g++ make cmake git.',
  darwin: 'Run `xcode-select --install`, then `brew install cmake`.',
  win32:
    'Install Visual Studio Build Tools with "Desktop development with C++", CMake and Git (winget install Kitware.CMake Git.Git).',
};

function firstLine(command) {
  const result = spawnSync(command, ['--version'], { encoding: 'utf8', windowsHide: true });
  return result.status === 0 ? result.stdout.split('\n')[0].trim() : undefined;
}

/** Versions of cmake, git and the compiler; throws BuildError naming everything that is missing at once. */
export function checkTools({ platform = process.platform, env = process.env, probe = firstLine } = {}) {
  const missing = [];
  const cmake = probe('cmake');
  if (cmake === undefined) missing.push('CMake 3.18 or newer (`cmake`)');
  else {
    const [, major, minor] = /(\d+)\.(\d+)/.exec(cmake) ?? [];
    if (Number(major) < 3 || (Number(major) === 3 && Number(minor) < 18))
      missing.push(`CMake 3.18 or newer (found: ${cmake})`);
  }
  const git = probe('git');
  if (git === undefined) missing.push('git');
  let compiler;
  // Visual Studio is not on the PATH; cmake-js looks for it and says so when there is none
  if (platform !== 'win32') {
    const names = env.CXX ? [env.CXX] : ['c++', 'g++', 'clang++'];
    compiler = names.map((name) => probe(name)).find((line) => line !== undefined);
    if (compiler === undefined) missing.push(`a C++ compiler (tried: ${names.join(', ')})`);
    if (probe('ninja') === undefined && probe('make') === undefined) missing.push('make or ninja');
  }
  if (missing.length > 0) {
    throw new BuildError('tools', `Missing: ${missing.join('; ')}.`, { hint: INSTALL[platform] ?? INSTALL.linux });
  }
  return { cmake, git, compiler };
}
