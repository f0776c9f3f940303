import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { clearCache, parseCmakeArgs, refuseHybrid } from '../../../install/build.mjs';
import { failureExcerpt, parseProgress } from '../../../install/cmake.mjs';
import { progressPrinter, terminalOf } from '../../../install/print.mjs';
import { checkTools } from '../../../install/tools.mjs';

describe('progress of a compilation', () => {
  test.each([
    ['[ 42%] Building CXX object a.o', 42],
    ['[100%] Built target xpatch', 100],
    ['[12/80] Building CXX object a.o', 15],
    ['[58/58] Linking CXX shared module out/xpatch.node', 100],
  ])('%s', (line, percent) => {
    expect(parseProgress(line)).toBe(percent);
  });

  test('other lines carry none', () => {
    expect(parseProgress('-- Found Threads: TRUE')).toBeUndefined();
    expect(parseProgress('foo.cpp:12: warning: [1/2]')).toBeUndefined();
  });

  test('nothing is shown in the first two seconds', () => {
    const written: string[] = [];
    const stream = { isTTY: false, write: (text: string) => written.push(text) } as unknown as NodeJS.WriteStream;
    const progress = progressPrinter(stream);
    progress.update({ step: 'compile', percent: 50 });
    progress.done();
    expect(written).toEqual([]);
  });
});

describe('where progress is shown', () => {
  const stream = { isTTY: false, write: () => true };

  test('npm keeps the output of dependencies to itself: the terminal, line by line', () => {
    const folder = mkdtempSync(join(tmpdir(), 'xpatch-terminal-'));
    const path = join(folder, 'terminal');
    const terminal = terminalOf(stream, { env: { npm_command: 'install' }, path });
    terminal.write('compile 10 %\n');
    expect(terminal.isTTY).toBe(false);
    expect(readFileSync(path, 'utf8')).toBe('\r\x1b[Kcompile 10 %\n');
    rmSync(folder, { recursive: true });
  });

  test.each([
    ['it is a terminal already', { ...stream, isTTY: true }, { npm_command: 'install' }],
    ['npm is told to be silent', stream, { npm_command: 'install', npm_config_loglevel: 'silent' }],
    ['nobody watches', stream, { npm_command: 'ci', CI: 'true' }],
    ['npm has no part in it', stream, {}],
    ['there is no terminal', stream, { npm_command: 'install' }],
  ])('its own stream when %s', (_, own, env) => {
    expect(terminalOf(own, { env, path: join(tmpdir(), 'no-such-folder', 'terminal') })).toBe(own);
  });
});

test('what a build leaves is cleared away, but for the lock that another may wait for', () => {
  const cache = mkdtempSync(join(tmpdir(), 'xpatch-cache-'));
  mkdirSync(join(cache, 'hybrid'));
  for (const file of ['lock', join('hybrid', 'build.log')]) writeFileSync(join(cache, file), '');
  clearCache(cache);
  expect(readdirSync(cache)).toEqual(['lock']);
  rmSync(cache, { recursive: true });
});

describe('what is shown of a failed build', () => {
  test('the first error and what follows it', () => {
    const log = ['[1/3] Building', 'noise', 'a.cpp:3:1: error: expected }', '  int x', '[2/3] Building'].join('\n');
    expect(failureExcerpt(log, 2)).toBe('a.cpp:3:1: error: expected }\n  int x');
  });

  test('the end when no line looks like an error', () => {
    expect(failureExcerpt('one\ntwo\n\nthree\n', 2)).toBe('two\nthree');
  });
});

describe('the tools a build needs', () => {
  const versions: Record<string, string> = {
    cmake: 'cmake version 3.25.1',
    git: 'git version 2.39.5',
    'c++': 'c++ (Debian 12.2.0) 12.2.0',
    make: 'GNU Make 4.3',
  };
  const check = (found: Record<string, string>, env = {}) =>
    checkTools({ platform: 'linux', env, probe: (name: string) => found[name] });

  test('are reported with their versions', () => {
    expect(check(versions)).toEqual({ cmake: versions.cmake, git: versions.git, compiler: versions['c++'] });
  });

  test('are named all at once when they are missing, with the command that installs them', () => {
    const attempt = () => check({});
    expect(attempt).toThrow(/CMake.*git.*C\+\+ compiler \(tried: c\+\+, g\+\+, clang\+\+\).*make or ninja/);
    expect(attempt).toThrow(
      expect.objectContaining({ step: 'tools', hint: expect.stringContaining('apt-get install') }),
    );
  });

  test('a CMake that is too old is as good as none', () => {
    expect(() => check({ ...versions, cmake: 'cmake version 3.16.3' })).toThrow(
      /3\.18 or newer \(found: cmake version 3\.16\.3\)/,
    );
    expect(check({ ...versions, cmake: 'cmake version 4.0.1' }).cmake).toBe('cmake version 4.0.1');
  });

  test('the compiler that CXX names is the only one asked', () => {
    expect(() => check(versions, { CXX: 'clang++-99' })).toThrow(/tried: clang\+\+-99/);
  });
});

describe('settings', () => {
  test('XPATCH_CMAKE_ARGS becomes definitions', () => {
    expect(parseCmakeArgs(' -DGGML_CUDA=OFF -DA:STRING=x=y ')).toEqual({ GGML_CUDA: 'OFF', A: 'x=y' });
    expect(parseCmakeArgs(undefined)).toEqual({});
    expect(() => parseCmakeArgs('--fresh')).toThrow(/"--fresh" is not of the form -DNAME=VALUE/);
  });

  test('hybrid is refused with the reason', () => {
    const llama = { platformPackage: '@node-llama-cpp/linux-x64', version: '3.21.1', libraries: {} };
    expect(refuseHybrid(llama, 'linux')).toBeUndefined();
    expect(refuseHybrid(llama, 'win32')).toMatch(/import libraries/);
    expect(refuseHybrid({ ...llama, libraries: undefined }, 'linux')).toMatch(
      /@node-llama-cpp\/linux-x64 3\.21\.1 is not installed/,
    );
    expect(refuseHybrid({ ...llama, platformPackage: undefined, libraries: undefined }, 'sunos')).toMatch(
      /no package for sunos/,
    );
  });
});
