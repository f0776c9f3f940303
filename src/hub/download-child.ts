// Downloads, in a process of its own: download.ts forks this file. What ipull and a proxy do to a process stays in here, and
// ending it at any moment loses nothing but the last seconds.
import { existsSync, readdirSync, rmdirSync, rmSync, statfsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { XpatchError } from '../util/errors.js';
import { makeFolder, writeError } from '../util/files.js';
import { RunLock } from '../util/run-lock.js';
import { type CacheRecord, cachedFile, cacheFolder, PARTIAL, readRecord, repoFolder, writeRecord } from './cache.js';
import type { DownloadJob, DownloadMessage } from './download.js';
import { listRepo, locateFile } from './hub.js';
import { chooseCheckpoint, chooseFiles, type HubFile, type HubSource, parseHubSource } from './hub-source.js';
import { useProxies } from './proxy.js';
import type { Wanted } from './resolve.js';
import { fetchFile, isDiskError, partialName, stopTransfer } from './transfer.js';

const REPORT_MS = 100;

/** Resolves once the message is on its way. */
function tell(message: DownloadMessage): Promise<void> {
  return new Promise((resolve) => {
    process.send?.(message, () => resolve());
  });
}

/** The commands that show the progress end this process; a Ctrl-C in a terminal goes to all of them. */
for (const name of ['SIGINT', 'SIGTERM'] as const) process.on(name, () => undefined);
process.on('disconnect', () => void stop());
// ipull leaves rejections alone that its download fails with later; not those of the disk, which would be late.
process.on('unhandledRejection', (error) => {
  if (isDiskError(error)) void fail(writeError(cacheFolder(), error));
});

async function stop(): Promise<void> {
  await stopTransfer().catch(() => undefined);
  process.exit();
}

async function fail(error: unknown): Promise<void> {
  const known = error instanceof XpatchError;
  const { message, stack } = error as Error;
  await tell({ type: 'error', message, stack, ...(known && { code: error.code }) });
  await stop();
}

process.on('message', (message: DownloadJob | 'stop') => {
  if (message === 'stop') void stop();
  else void work(message).then(() => process.exit(), fail);
});

async function work(job: DownloadJob): Promise<void> {
  await useProxies();
  if (job.kind === 'list') {
    await tell({ type: 'listing', listing: await listRepo(parseHubSource(job.uri)) });
  } else if (job.kind === 'checkpoint') {
    const source = parseHubSource(job.uri);
    await download(source, (files) => chooseCheckpoint(files, source));
  } else {
    for (const wanted of job.wanted) {
      const source = parseHubSource(wanted.uri);
      await download(source, (files) => {
        const { model, mmproj } = chooseFiles(files, source, wanted.encoder);
        checkPinned(model, wanted);
        return mmproj ? [...model, mmproj] : [...model];
      });
    }
  }
  await tell({ type: 'done' });
}

/** The catalogue knew the content of some files when it was made. */
function checkPinned([file]: readonly HubFile[], { sha256, uri }: Wanted): void {
  if (sha256 === undefined || file?.hash === `sha256:${sha256}`) return;
  const message = `${uri} is not the file that the catalogue of this version of xpatch knows: its hash is ${file?.hash}, not ${sha256}. Somebody changed it since. To take it all the same, give the URI instead of the name: -m ${uri}`;
  throw new XpatchError('DOWNLOAD_MISMATCH', message);
}

async function download(source: HubSource, choose: (files: readonly HubFile[]) => HubFile[]): Promise<void> {
  const folder = repoFolder(source);
  await makeFolder(folder);
  const lock = await acquire(folder);
  try {
    const listing = await listRepo(source);
    const before = readRecord(source);
    const files = choose(listing.files);
    // Files of an earlier commit that were not changed since are as good as new.
    const kept = (before?.files ?? []).filter((file) => before && cachedFile(before, file) !== undefined);
    let record: CacheRecord = { ...listing, verified: Object.fromEntries(kept.map(({ path, hash }) => [path, hash])) };
    const missing = files.filter((file) => cachedFile(record, file) === undefined);
    const { licence, gated } = listing;
    const all = missing.reduce((sum, { size }) => sum + size, 0);
    await tell({
      type: 'plan',
      plan: { source: `${source.user}/${source.repo}`, licence, gated, files: missing, bytes: all },
    });
    sweep(join(folder, PARTIAL), listing.files);
    requireRoom(folder, all);
    await writeRecord(record);

    let arrived = 0;
    let told = 0;
    for (const file of missing) {
      const report = (done: number, stage: 'downloading' | 'checking') => {
        const now = Date.now();
        if (now - told < REPORT_MS && done < file.size && stage === 'downloading') return;
        told = now;
        void tell({ type: 'progress', progress: { stage, file: file.path, done: arrived + done, total: all } });
      };
      const paths = { partial: join(folder, PARTIAL), target: join(folder, ...file.path.split('/')) };
      await fetchFile(file, paths, source, () => locateFile(source, listing.commit, file.path), {
        onBytes: (done) => report(done, 'downloading'),
        onVerify: () => report(file.size, 'checking'),
        onNote: (text) => void tell({ type: 'note', text }),
      });
      record = { ...record, verified: { ...record.verified, [file.path]: file.hash } };
      await writeRecord(record);
      arrived += file.size;
    }
    const partial = join(folder, PARTIAL);
    if (existsSync(partial) && readdirSync(partial).length === 0) rmdirSync(partial);
  } finally {
    lock.release();
  }
}

/** At most one process writes a folder of the cache; others wait, and then find the files. */
async function acquire(folder: string): Promise<RunLock> {
  for (let told = false; ; told = true) {
    try {
      return await RunLock.acquire(folder, 'The download');
    } catch (error) {
      if (!(error instanceof XpatchError && error.code === 'RUN_BUSY')) throw error;
      if (!told)
        await tell({ type: 'note', text: `${error.message.split(':')[0]} by another process: waiting for it` });
      await delay(1000);
    }
  }
}

/** Beginnings of files that the repository has no more can never be continued. */
function sweep(partial: string, files: readonly HubFile[]): void {
  if (!existsSync(partial)) return;
  const live = files.map(partialName);
  for (const name of readdirSync(partial)) {
    if (!live.some((one) => name.startsWith(one))) rmSync(join(partial, name));
  }
}

function requireRoom(folder: string, bytes: number): void {
  const partial = join(folder, PARTIAL);
  const begun = existsSync(partial) ? readdirSync(partial) : [];
  const arrived = begun.reduce((sum, name) => sum + statSync(join(partial, name)).blocks * 512, 0);
  const { bavail, bsize } = statfsSync(folder);
  const free = bavail * bsize;
  if (free + arrived >= bytes) return;
  const gigabytes = (n: number) => `${(n / 1e9).toFixed(1)} GB`;
  const message = `${gigabytes(bytes - arrived)} do not fit: ${gigabytes(free)} are free in ${folder}. Free some space (\`xpatch models list\` and \`xpatch models rm\`), or name another folder with XPATCH_MODELS.`;
  throw new XpatchError('FILE_WRITE', message);
}
