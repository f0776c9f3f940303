import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, expect } from '@jest/globals';
import { PACKAGE_ROOT } from '../../install/layout.mjs';
import { keyOf, type ResultLine } from '../../src/experiment/types.js';
import type { Random } from '../../src/util/random.js';

export const WRITER = join(PACKAGE_ROOT, 'tests', 'faults', 'writer.mjs');
export const MAIN = join(PACKAGE_ROOT, 'dist', 'cli', 'main.js');

/** How often a run is killed; XPATCH_KILLS=50 for the long version. */
export const KILLS = Number(process.env.XPATCH_KILLS ?? 2);

export interface Ended {
  code: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
}

/** A folder that the file's runs lie in, removed afterwards. */
export function faultFolder(): string {
  if (!existsSync(MAIN)) throw new Error(`${MAIN} is not there: run \`npm run build\` first.`);
  const folder = mkdtempSync(join(tmpdir(), 'xpatch-faults-'));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** Starts a command in a process group of its own, so that it can be killed with its children. */
export function launch(command: string, args: readonly string[], cwd?: string): ChildProcess {
  return spawn(command, args, { cwd, detached: true, stdio: ['ignore', 'pipe', 'pipe'] });
}

export async function ending(child: ChildProcess): Promise<Ended> {
  let [stdout, stderr] = ['', ''];
  child.stdout?.on('data', (chunk) => {
    stdout += chunk;
  });
  child.stderr?.on('data', (chunk) => {
    stderr += chunk;
  });
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code, signal) => resolve({ code, signal, stdout, stderr }));
  });
}

/** SIGKILL for a process, or for it and its children; nothing when it is gone already. */
export function kill(child: ChildProcess, group: boolean): void {
  try {
    if (child.pid !== undefined) process.kill(group ? -child.pid : child.pid, 'SIGKILL');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

/**
 * Kills a run KILLS times, each at a random instant of the time that it takes undisturbed, goes on with it, and begins another one
 * when it ended first. No line that was whole may be lost.
 *
 * @param group whether the processes of the run are killed too
 */
export async function killRuns(
  { newRun, start, duration }: { newRun: () => string; start: (run: string) => ChildProcess; duration: number },
  random: Random,
  { group, whole }: { group: () => boolean; whole: (run: string) => Promise<void> },
): Promise<void> {
  let [run, before] = [newRun(), 0];
  for (let i = 0; i < KILLS; i++) {
    const child = start(run);
    const ended = ending(child);
    await delay(random.uniform() * duration);
    kill(child, group());
    const { signal } = await ended;
    const count = wholeLines(run).length;
    expect(count).toBeGreaterThanOrEqual(before);
    before = count;
    if (signal === 'SIGKILL') continue;
    await whole(run);
    [run, before] = [newRun(), 0];
  }
  await whole(run);
}

/** The whole lines of a run, in its order. A torn one may stand at the end, nowhere else, and no query twice. */
export function wholeLines(run: string): ResultLine[] {
  const file = join(run, 'results.jsonl');
  if (!existsSync(file)) return [];
  const texts = readFileSync(file, 'utf8').split('\n');
  texts.pop(); // what follows the last line break
  const lines = texts.map((text) => JSON.parse(text) as ResultLine);
  expect(new Set(lines.map(keyOf)).size).toBe(lines.length);
  return lines;
}

/** Lines as text, in an order of their own. */
export const sorted = (lines: readonly ResultLine[]): string[] => lines.map((line) => JSON.stringify(line)).sort();

/** Tables by their names. */
export function tablesOf(run: string): Record<string, string> {
  const folder = join(run, 'tables');
  return Object.fromEntries(readdirSync(folder).map((name) => [name, readFileSync(join(folder, name), 'utf8')]));
}

/** Files that a killed process left and that belong to no run. */
export function leftovers(folder: string): string[] {
  return readdirSync(folder, { recursive: true })
    .map(String)
    .filter((name) => /(^|[\\/])\./.test(name));
}

/** How a mount of its own can be had for one command: as root, in a user namespace, or (in most containers) not at all. */
const UNSHARE = [['-m'], ['-Urm']].find(
  (flags) => spawnSync('unshare', [...flags, 'sh', '-c', 'mount -t tmpfs -o size=64k tmpfs /mnt']).status === 0,
);

export interface SmallDisk {
  readonly name: string;
  /** What the system says. */
  readonly problem: RegExp;
  /** Runs a command that writes into `folder`, with room for about `kilobytes`; what it wrote stands there afterwards. */
  run(kilobytes: number, folder: string, command: readonly string[]): Promise<Ended>;
}

const SHELL_QUOTE = (text: string) => `'${text.replaceAll("'", `'\\''`)}'`;
const shell = (words: readonly string[]) => words.map(SHELL_QUOTE).join(' ');

/** Disks without room: a real one where it can be mounted, and everywhere a limit on the size of files, which also ends in half a write. */
export const SMALL_DISKS: readonly SmallDisk[] = [
  {
    name: 'a limit on the size of files',
    problem: /beyond what this system allows/,
    run: (kilobytes, _, command) =>
      // bash counts in kilobytes, others in half ones
      ending(launch('bash', ['-c', `ulimit -f ${kilobytes}; exec ${shell(command)}`])),
  },
  ...(UNSHARE
    ? [
        {
          name: 'a full disk',
          problem: /The disk is full/,
          run: (kilobytes: number, folder: string, command: readonly string[]) => {
            const saved = SHELL_QUOTE(`${folder}.saved`);
            const disk = SHELL_QUOTE(folder);
            const script = [
              `mkdir -p ${disk} ${saved}`,
              `mount -t tmpfs -o size=${kilobytes}k tmpfs ${disk}`,
              shell(command),
              'code=$?',
              `cp -a ${disk}/. ${saved}/`,
              `umount ${disk}`,
              `cp -a ${saved}/. ${disk}/`,
              'exit $code',
            ].join('\n');
            return ending(launch('unshare', [...UNSHARE, 'sh', '-c', script]));
          },
        },
      ]
    : []),
];

/** A command that permissions hold for: as root it is run without the right to overrule them. */
export const plainUser = (command: readonly string[]): readonly string[] =>
  process.getuid?.() === 0 ? ['setpriv', '--bounding-set', '-dac_override', ...command] : command;

/** Runs a command that finds `folder` not writable. */
export function withoutPermission(folder: string, command: readonly string[]): Promise<Ended> {
  const locked = SHELL_QUOTE(folder);
  const run = shell(plainUser(command));
  return ending(launch('sh', ['-c', `chmod -R a-w ${locked}; ${run}; code=$?; chmod -R u+w ${locked}; exit $code`]));
}
