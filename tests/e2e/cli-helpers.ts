import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, jest } from '@jest/globals';
import { PACKAGE_ROOT } from '../../install/layout.mjs';
import type { main as Main } from '../../src/cli/cli.js';
import { SafetensorsFile } from '../../src/util/safetensors.js';
import { runMain } from '../command.js';
import { readFamily } from '../parity/families.js';

export const MAIN = join(PACKAGE_ROOT, 'dist', 'cli', 'main.js');
export const FIXTURES = join(PACKAGE_ROOT, 'tests', 'fixtures', 'models');

export interface Outcome {
  code: number | null;
  stdout: string;
  stderr: string;
}

/** A folder that every command of a test file runs in, removed afterwards. */
export function commandLine() {
  const folder = mkdtempSync(join(tmpdir(), 'xpatch-cli-'));
  // A command loads Node, the addon and a model; on a busy machine that takes seconds.
  jest.setTimeout(300_000);
  const before = process.cwd();
  beforeAll(() => {
    process.chdir(folder);
    if (!existsSync(MAIN)) throw new Error(`${MAIN} is not there: run \`npm run build\` first.`);
  });
  afterAll(() => {
    process.chdir(before);
    rmSync(folder, { recursive: true, force: true });
  });

  const start = (args: readonly string[], env: NodeJS.ProcessEnv = {}): ChildProcess =>
    spawn(process.execPath, ['--no-warnings', MAIN, ...args], { cwd: folder, env: { ...process.env, ...env } });
  /** The command in a process of its own, which takes half a second more. */
  const spawned = (args: readonly string[], env?: NodeJS.ProcessEnv) => finish(start(args, env));
  /** The command in this process, with a pipe for its input. */
  const piped = async (stdin: string | undefined, args: readonly string[]): Promise<Outcome> => {
    const { main } = (await import(join(PACKAGE_ROOT, 'dist', 'cli', 'cli.js'))) as { main: typeof Main };
    return runMain(main, args, { env: process.env, stdin });
  };
  /** The command in this process, where it needs no environment of its own. */
  const run = (args: readonly string[], env?: NodeJS.ProcessEnv): Promise<Outcome> =>
    env === undefined ? piped(undefined, args) : spawned(args, env);
  return {
    folder,
    start,
    spawned,
    piped,
    run,
    /** Runs a command that must succeed with --json. */
    async json(...args: string[]) {
      const outcome = await run([...args, '--json']);
      expect(outcome).toMatchObject({ code: 0, stderr: '' });
      return parseJson(outcome);
    },
    /** Runs a command that must fail with --json, and gives its error. */
    async error(...args: string[]): Promise<{ code: string; message: string; exit: number | null }> {
      const { code, stdout, stderr } = await run([...args, '--json']);
      expect(stderr).toBe('');
      return { ...parseJson({ code, stdout, stderr }).error, exit: code };
    },
    /** One tensor of a file that a command wrote. */
    async tensor(file: string, name: string) {
      await using opened = await SafetensorsFile.open(join(folder, file));
      const info = opened.tensors.get(name);
      return {
        data: await opened.readFloat32(name),
        shape: info?.shape,
        dtype: info?.dtype,
        metadata: opened.metadata,
      };
    },
  };
}

/** What a command with --json printed, or an error that shows what it did instead. */
export function parseJson(outcome: Outcome) {
  try {
    return JSON.parse(outcome.stdout);
  } catch {
    throw new Error(`Not JSON: ${JSON.stringify(outcome)}`);
  }
}

export async function finish(child: ChildProcess): Promise<Outcome> {
  let stdout = '';
  let stderr = '';
  child.stdout?.on('data', (chunk) => {
    stdout += chunk;
  });
  child.stderr?.on('data', (chunk) => {
    stderr += chunk;
  });
  const code = await new Promise<number | null>((resolve) => child.on('close', resolve));
  return { code, stdout, stderr };
}

/** The values that transformers computed for a tiny model (see tests/reference). */
export function reference(family: string, prompt: string) {
  const found = readFamily(family).prompts.find(({ name }) => name === prompt);
  if (!found) throw new Error(`There is no reference for ${family} ${prompt}.`);
  const read = async (name: string) => {
    await using file = await SafetensorsFile.open(join(FIXTURES, `${family}.safetensors`));
    return file.readFloat32(name);
  };
  return { ...found, read };
}

/** Equal but for rounding: cosine at least 0.9999, normalised mean squared error below 1e-5. */
export function expectClose(actual: ArrayLike<number>, expected: ArrayLike<number>): void {
  expect(actual.length).toBe(expected.length);
  const { cosine, nmse } = compare(actual, expected);
  expect(cosine).toBeGreaterThanOrEqual(0.9999);
  expect(nmse).toBeLessThan(1e-5);
}

export function compare(actual: ArrayLike<number>, expected: ArrayLike<number>): { cosine: number; nmse: number } {
  let [dot, a2, b2, d2] = [0, 0, 0, 0];
  for (let i = 0; i < expected.length; i++) {
    const [a, b] = [actual[i] as number, expected[i] as number];
    dot += a * b;
    a2 += a * a;
    b2 += b * b;
    d2 += (a - b) ** 2;
  }
  return { cosine: dot / Math.sqrt(a2 * b2), nmse: d2 / b2 };
}

export function argmax(values: ArrayLike<number>): number {
  let best = 0;
  for (let i = 1; i < values.length; i++) if ((values[i] as number) > (values[best] as number)) best = i;
  return best;
}
