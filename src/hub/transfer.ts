import { createHash } from 'node:crypto';
import { existsSync, renameSync, rmSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { XpatchError } from '../util/errors.js';
import { hashInto, makeFolder, syncFolder, writeError } from '../util/files.js';
import { type FileLocation, patienceMs, statusError, unreachable } from './hub.js';
import type { HubFile, HubSource } from './hub-source.js';

export interface TransferEvents {
  /** Bytes of this file that are there. */
  onBytes(done: number): void;
  /** The file is compared with its hash. */
  onVerify(): void;
  onNote(text: string): void;
}

/** Addresses run out while a large file is on its way: so often a new one is asked for without a byte between. */
const VAIN_ATTEMPTS = 3;
const EXPIRED = [401, 403, 404, 410, 416];

/** What a file is called until it is complete. */
export function partialName({ hash }: HubFile): string {
  return `${hash.replace(/^\w+:/, '').slice(0, 24)}.part`;
}

/** What runs now, so that it can be ended with its progress kept. */
let running: { cancel(options: { deleteTempFile: boolean }): Promise<void> } | undefined;

/** Ends the transfer, if one runs; what has arrived stays. */
export async function stopTransfer(): Promise<void> {
  await running?.cancel({ deleteTempFile: false });
}

/**
 * Downloads a file, or the rest of it, into `partial`, compares it with its hash and moves it to `target`.
 *
 * @param locate asks the hub for its address
 * @throws {XpatchError} DOWNLOAD_MISMATCH, DOWNLOAD_FAILED, FILE_WRITE and what `locate` throws
 */
export async function fetchFile(
  file: HubFile,
  paths: { readonly partial: string; readonly target: string },
  source: HubSource,
  locate: () => Promise<FileLocation>,
  events: TransferEvents,
): Promise<void> {
  const name = partialName(file);
  const whole = join(paths.partial, name);
  await makeFolder(paths.partial);
  for (;;) {
    // ipull, which node-llama-cpp downloads with, keeps the unfinished file under this name.
    const resumed = existsSync(whole) || existsSync(`${whole}.ipull`);
    if (file.size === 0 && !resumed) throw mismatch(file, 'it is empty');
    if (!existsSync(whole)) await transfer(file, paths.partial, name, source, locate, events);
    events.onVerify();
    const problem = await compare(whole, file);
    if (problem === undefined) break;
    rmSync(whole);
    if (!resumed) throw mismatch(file, problem);
    events.onNote(`${file.path} was continued and does not match its hash: it is downloaded again from the start`);
  }
  try {
    await makeFolder(dirname(paths.target));
    renameSync(whole, paths.target);
    await syncFolder(dirname(paths.target));
  } catch (cause) {
    throw cause instanceof XpatchError ? cause : writeError(paths.target, cause);
  }
}

async function transfer(
  file: HubFile,
  folder: string,
  name: string,
  source: HubSource,
  locate: () => Promise<FileLocation>,
  { onBytes }: TransferEvents,
): Promise<void> {
  // Only here: it takes a second to load, and its native part is not loaded at all.
  const { createModelDownloader } = await import('node-llama-cpp');
  let best = -1;
  for (let vain = 0; ; ) {
    const location = await locate();
    if (location.size !== undefined && location.size !== file.size) {
      throw mismatch(file, `the hub sends ${location.size} bytes and lists ${file.size}`);
    }
    let done = 0;
    const alive = new Watch();
    const work = async () => {
      const downloader = await createModelDownloader({
        modelUri: withoutParts(location.url),
        dirPath: folder,
        fileName: name,
        headers: { ...location.headers },
        // The address is the file's already: node-llama-cpp is not to take it for a repository, nor to send a token there.
        endpoints: { huggingFace: 'https://hub.invalid/' },
        tokens: { huggingFace: null as unknown as string },
        showCliProgress: false,
        deleteTempFileOnCancel: false,
        skipExisting: true,
        onProgress: ({ downloadedSize }) => {
          if (downloadedSize === done) return;
          done = downloadedSize;
          alive.seen();
          onBytes(done);
        },
      });
      running = downloader;
      await downloader.download();
    };
    try {
      await Promise.race([work(), alive.lost]);
      if (existsSync(join(folder, name))) return;
      throw new XpatchError('DOWNLOAD_FAILED', `${file.path} did not arrive whole. Run the same again to go on.`);
    } catch (error) {
      await stopTransfer();
      const status = (error as { statusCode?: number }).statusCode;
      if (status === undefined) throw failure(error, new URL(location.url).host, join(folder, name));
      vain = done > best ? 0 : vain + 1;
      best = Math.max(best, done);
      if (!EXPIRED.includes(status) || vain >= VAIN_ATTEMPTS) throw statusError(status, source);
    } finally {
      alive.end();
      running = undefined;
    }
  }
}

/** Fails when nothing has arrived for long: ipull itself tries again for a quarter of an hour. */
class Watch {
  private at = Date.now();
  private timer: NodeJS.Timeout | undefined;
  readonly lost = new Promise<never>((_, reject) => {
    const patience = patienceMs();
    this.timer = setInterval(
      () => {
        if (Date.now() - this.at < patience) return;
        const seconds = Math.round(patience / 1000);
        const message = `Nothing has arrived for ${seconds} s. What is there is kept: run the same again to go on.`;
        reject(new XpatchError('DOWNLOAD_FAILED', message));
      },
      Math.min(1000, patience / 4),
    );
  });

  seen(): void {
    this.at = Date.now();
  }

  end(): void {
    clearInterval(this.timer);
  }
}

/** The parts of a split file have addresses of their own; node-llama-cpp would guess all of them from a name like -00001-of-00002.gguf. */
function withoutParts(url: string): string {
  return url.replace(/\.gguf(?=$|[?#])/, '.ggu%66');
}

function failure(error: unknown, host: string, path: string): XpatchError {
  if (error instanceof XpatchError) return error;
  return isDiskError(error) ? writeError(path, error) : unreachable(host, error);
}

export function isDiskError(error: unknown): boolean {
  return /^E(NOSPC|DQUOT|FBIG|ROFS|ACCES|PERM|IO)$/.test((error as NodeJS.ErrnoException | undefined)?.code ?? '');
}

function mismatch(file: HubFile, problem: string): XpatchError {
  const message = `${file.path} is not what the hub lists: ${problem}. Nothing of it was kept. Try again; if it stays so, the server or a proxy changes files.`;
  return new XpatchError('DOWNLOAD_MISMATCH', message);
}

/** What is wrong with a file; undefined if nothing is. */
async function compare(path: string, { size, hash }: HubFile): Promise<string | undefined> {
  const actual = statSync(path).size;
  if (actual !== size) return `it has ${actual} bytes instead of ${size}`;
  const [kind, expected] = hash.split(':');
  const digest = createHash(kind === 'git' ? 'sha1' : 'sha256');
  if (kind === 'git') digest.update(`blob ${size}\0`);
  await hashInto(digest, path);
  const found = digest.digest('hex');
  return found === expected ? undefined : `its hash is ${found} instead of ${expected}`;
}
