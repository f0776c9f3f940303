// Runs cmake-js and turns its output into percentages and a log file.
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { createWriteStream, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism, totalmem } from 'node:os';
import { join } from 'node:path';
import { BuildError } from './errors.mjs';

const CMAKE_JS = createRequire(import.meta.url).resolve('cmake-js/bin/cmake-js');

// One compiler process of llama.cpp takes up to 1.5 GB.
const JOBS = Math.max(1, Math.min(availableParallelism(), Math.floor(totalmem() / 1.5e9)));

/** Percentage in a line of make ("[ 42%]"), ninja ("[12/80]") or undefined. */
export function parseProgress(line) {
  const make = /^\[\s*(\d+)%\]/.exec(line);
  if (make) return Number(make[1]);
  const ninja = /^\[(\d+)\/(\d+)\]/.exec(line);
  if (ninja) return Math.floor((100 * Number(ninja[1])) / Number(ninja[2]));
  return undefined;
}

/** The lines of a failed build worth showing: the errors with what follows them, or else the end. */
export function failureExcerpt(log, count = 25) {
  const lines = log.split('\n').filter((line) => line.trim() !== '');
  const first = lines.findIndex((line) =>
    /\b(error|Error|ERROR)\b[ :]|FAILED:|undefined reference|cannot find/.test(line),
  );
  return (first === -1 ? lines.slice(-count) : lines.slice(first, first + count)).join('\n');
}

function runCmakeJs(args, { log, onLine }) {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [CMAKE_JS, ...args], {
      stdio: ['ignore', 'pipe', 'pipe'],
      windowsHide: true,
    });
    let text = '';
    let rest = '';
    const take = (chunk) => {
      text += chunk;
      log.write(chunk);
      const lines = (rest + chunk).split(/\r?\n/);
      rest = lines.pop();
      for (const line of lines) onLine?.(line);
    };
    child.stdout.setEncoding('utf8').on('data', take);
    child.stderr.setEncoding('utf8').on('data', take);
    child.on('error', reject);
    child.on('close', (code) => resolve({ code, text }));
  });
}

/**
 * Configures when the definitions changed, then builds. `onProgress(percent)` is called as compilation goes on.
 * Returns what CMake found: { compiler, flags, backends, cmake }.
 */
export async function runCmake({ root, folder, definitions, onProgress }) {
  const environment = ['CC', 'CXX', 'CFLAGS', 'CXXFLAGS', 'LDFLAGS', 'CUDACXX', 'CMAKE_GENERATOR'].map(
    (name) => process.env[name] ?? '',
  );
  const key = createHash('sha256')
    .update(JSON.stringify([root, definitions, environment]))
    .digest('hex');
  const stamp = join(folder, 'xpatch-configured.txt');
  const configured = existsSync(stamp) && readFileSync(stamp, 'utf8') === key;
  if (!configured) rmSync(folder, { recursive: true, force: true }); // a cache made with other settings misleads CMake
  mkdirSync(folder, { recursive: true });

  const logPath = join(folder, 'build.log');
  const log = createWriteStream(logPath);
  const fail = (step, text) => {
    throw new BuildError(step, `CMake failed to ${step} the addon:\n${failureExcerpt(text)}`, {
      hint: `The whole output is in ${logPath}`,
    });
  };
  try {
    const common = ['--directory', root, '--out', folder];
    if (!configured) {
      const defined = Object.entries(definitions).map(([name, value]) => `--CD${name}=${value}`);
      const { code, text } = await runCmakeJs(['configure', ...common, ...defined], { log });
      if (code !== 0) fail('configure', text);
      writeFileSync(stamp, key);
    }
    const onLine = (line) => {
      const percent = parseProgress(line);
      if (percent !== undefined) onProgress?.(percent);
    };
    const { code, text } = await runCmakeJs(['build', ...common, '--target', 'xpatch', '--parallel', String(JOBS)], {
      log,
      onLine,
    });
    if (code !== 0) fail('compile', text);
  } finally {
    await new Promise((resolve) => log.end(resolve));
  }
  const lines = readFileSync(join(folder, 'xpatch-config.txt'), 'utf8').trim().split('\n');
  const found = Object.fromEntries(
    lines.map((line) => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)]),
  );
  return { ...found, backends: found.backends.split(';') };
}
