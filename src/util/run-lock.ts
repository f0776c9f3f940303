import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync, unlinkSync } from 'node:fs';
import { readdir, readFile, rename, unlink, writeFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { XpatchError } from './errors.js';
import { writeError } from './files.js';
import { readWhole } from './read-file.js';

/** Who is writing a run. Its start time tells a process from a later one with the same number. */
interface Owner {
  readonly pid: number;
  readonly host: string;
  /** When the system and the process started; empty if unknown. */
  readonly boot: string;
  readonly start: string;
  /** ISO 8601. */
  readonly since: string;
}

export const LOCK_PREFIX = '.lock-';
/** How long an ending process may take to leave. */
const PATIENCE_MS = 2000;
/** Rivals that came at the same moment have given up by then. */
const CONTEST_MS = 300;

const held = new Set<string>();
let listening = false;

/**
 * At most one process writes a folder, such as a run. Every process that wants to makes a lock file of its own and then looks at the others:
 * whichever was made last sees the earlier one, so two never hold at once; of two that see each other the one whose name sorts
 * first continues. A name is never used twice, so the locks of dead processes are simply deleted.
 */
export class RunLock {
  private constructor(private readonly file: string) {}

  /**
   * @param what comes before the folder's name in the error. Defaults to `The run`
   * @throws {XpatchError} RUN_BUSY, naming the other process; FILE_WRITE
   */
  static async acquire(folder: string, what = 'The run'): Promise<RunLock> {
    const owner = await ownerOfThis();
    for (const deadline = Date.now() + PATIENCE_MS; ; ) {
      const name = `${LOCK_PREFIX}${randomBytes(8).toString('hex')}`;
      const lock = new RunLock(join(folder, name));
      await lock.make(owner);
      for (const contest = Date.now() + CONTEST_MS; ; await delay(20)) {
        const rivals = await liveRivals(folder, name);
        if (rivals.length === 0) return lock;
        if (Date.now() < contest && rivals.every((rival) => name < rival.name)) continue;
        lock.release();
        if (Date.now() > deadline) throw busy(`${what} ${folder}`, folder, rivals[0] as Rival);
        break;
      }
      await delay(50 + Math.random() * 100);
    }
  }

  /** Also done when the process ends by itself; after a kill the next process finds the lock to be dead. */
  release(): void {
    if (held.delete(this.file)) removeFile(this.file);
  }

  [Symbol.dispose](): void {
    this.release();
  }

  private async make(owner: Owner): Promise<void> {
    const temporary = `${this.file}.tmp`;
    const text = `${JSON.stringify({ ...owner, since: new Date().toISOString() })}\n`;
    for (let attempt = 1; ; attempt++) {
      try {
        // Renamed, so that nobody reads half of it.
        await writeFile(temporary, text, { flag: 'wx' });
        await rename(temporary, this.file);
        break;
      } catch (cause) {
        await unlink(temporary).catch(() => undefined);
        // Who has just got the lock sweeps the folder, this file too.
        const swept = (cause as NodeJS.ErrnoException).code === 'ENOENT' && attempt < 3;
        if (!swept) throw writeError(this.file, cause);
      }
    }
    if (!listening) process.once('exit', releaseAll);
    listening = true;
    held.add(this.file);
  }
}

function releaseAll(): void {
  held.forEach(removeFile);
}

function removeFile(file: string): void {
  try {
    unlinkSync(file);
  } catch {
    // Gone with its folder.
  }
}

interface Rival extends Partial<Owner> {
  readonly name: string;
}

async function liveRivals(folder: string, own: string): Promise<Rival[]> {
  const names = (await readdir(folder)).filter(
    (name) => name.startsWith(LOCK_PREFIX) && !name.endsWith('.tmp') && name !== own,
  );
  const live: Rival[] = [];
  for (const name of names.sort()) {
    const file = join(folder, name);
    if (!existsSync(file)) continue; // released meanwhile
    const text = await readWhole(file, { what: 'the lock', maxBytes: 4096 }).catch(() => undefined);
    if (text === undefined && !existsSync(file)) continue;
    const owner = text && parseOwner(text.toString('utf8'));
    // What cannot be read was not made here: it counts as held, and the message says what to delete.
    if (owner === undefined || (await isLive(owner))) live.push({ name, ...owner });
    else await unlink(file).catch(() => undefined);
  }
  return live;
}

function parseOwner(text: string): Owner | undefined {
  try {
    const { pid, host, boot, start, since } = JSON.parse(text) as Owner;
    const texts = [host, boot, start, since].every((value) => typeof value === 'string');
    return texts && Number.isSafeInteger(pid) && pid > 0 ? { pid, host, boot, start, since } : undefined;
  } catch {
    return undefined;
  }
}

async function isLive({ pid, host, boot, start }: Owner): Promise<boolean> {
  if (host !== hostname()) return true; // nobody can ask another machine
  if (boot !== (await bootOfSystem())) return false;
  const found = await startOfProcess(pid);
  return found !== undefined && (found === start || found === '' || start === '');
}

async function ownerOfThis(): Promise<Owner> {
  const start = (await startOfProcess(process.pid)) ?? '';
  return { pid: process.pid, host: hostname(), boot: await bootOfSystem(), start, since: '' };
}

async function bootOfSystem(): Promise<string> {
  return (await readFile('/proc/sys/kernel/random/boot_id', 'utf8').catch(() => '')).trim();
}

/** When a process was started, in whatever form the system tells it; '' when it does not, undefined for no such process. */
async function startOfProcess(pid: number): Promise<string | undefined> {
  try {
    process.kill(pid, 0);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ESRCH') return undefined;
  }
  if (process.platform === 'linux') {
    const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => undefined);
    // After the name in brackets, which may hold anything: the state, and as the 20th the start in ticks since boot.
    const fields = stat?.slice(stat.lastIndexOf(')') + 2).split(' ');
    if (fields === undefined) return '';
    return fields[0] === 'Z' || fields[0] === 'X' ? undefined : fields[19];
  }
  if (process.platform === 'win32') return '';
  return new Promise((resolve) => {
    const env = { ...process.env, LC_ALL: 'C', TZ: 'UTC' };
    execFile('ps', ['-o', 'lstart=', '-p', String(pid)], { env }, (error, stdout) =>
      resolve(error ? '' : stdout.trim()),
    );
  });
}

function busy(what: string, folder: string, { name, pid, host, since }: Rival): XpatchError {
  const who = pid === undefined ? 'another process' : `process ${pid} on ${host}, since ${since},`;
  const elsewhere = host === hostname() ? '' : ` If it is gone, delete ${join(folder, name)}.`;
  return new XpatchError(
    'RUN_BUSY',
    `${what} is being written: ${who} has it. Wait for it, stop it, or name another folder.${elsewhere}`,
  );
}
