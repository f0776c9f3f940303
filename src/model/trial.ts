import { existsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { GgufHeader } from '../gguf/gguf.js';
import { modelParts } from '../gguf/gguf-check.js';
import { headerHash } from '../gguf/header-hash.js';
import { trialFolder } from '../hub/cache.js';
import { isShipped } from '../hub/catalogue.js';
import type { ModelFiles } from '../hub/resolve.js';
import { native } from '../native/index.js';
import { runChild } from '../util/child.js';
import { XpatchError } from '../util/errors.js';
import { makeFolder, writeFileAtomic } from '../util/files.js';
import { printable } from '../util/printable.js';

export interface TrialOptions {
  device: string;
  gpuLayers: number;
  threads: number;
  /** No trial. Defaults to what XPATCH_TRUST says. */
  trust?: boolean;
  signal?: AbortSignal;
  /** Called when a trial begins. */
  onTrial?: () => void;
}

/** What the process tries. */
export interface TrialJob extends ModelFiles {
  device: string;
  gpuLayers: number;
  /** Of the picture encoder. */
  threads: number;
}

/** Resident memory beside what the process has, and seconds of the processor's time, at which it ends itself. */
export interface TrialLimits {
  bytes: number;
  seconds: number;
}

/** What it says. `complete`: nothing failed that may have kept the rest from being tried. */
export type TrialMessage =
  | { type: 'stage'; stage: string }
  | { type: 'memory' | 'time' }
  | { type: 'done'; complete: boolean };

/** To be raised when a trial tries more than before. */
const FORMAT = 1;
/** Of the processor's time: a trial takes a second, more for large models, and one picture of a large encoder takes many. */
const LIMIT_S = 15;
const LIMIT_S_PER_GB = { model: 10, mmproj: 200 };
/** Of a GPU's driver, which compiles what it runs for the first time. */
const COMPILE_S = 240;
/** On the clock: other work may leave the trial a small share of the machine. */
const waitFor = (seconds: number) => 60 + 4 * seconds;
/** Beside the files themselves. */
const LIMIT_BYTES = 2 * 2 ** 30;
/** Tells a program that is its own Node.js, and starts itself here, not to try again. */
const INSIDE = 'XPATCH_TRIAL';

/** Keys that were found good, or are being tried, by this process. */
const known = new Map<string, Promise<void>>();

/**
 * llama.cpp ends the process, or never returns, on files that it does not expect: no list of checks is complete. So files that were
 * never loaded on this machine are first loaded by another process, without the weights, which also runs a few tokens and
 * a picture; that it came to an end is remembered for the header of these files.
 *
 * @param header of the model, as `checkModelFile` gave it
 * @throws {XpatchError} MODEL_UNUSABLE; NATIVE_FAILURE when no process can be started; ABORTED
 */
export async function tryFiles(files: ModelFiles, header: GgufHeader, options: TrialOptions): Promise<void> {
  const trust = options.trust ?? /^(1|true|on|yes)$/i.test(process.env.XPATCH_TRUST ?? '');
  const paths = [files.model, ...(files.mmproj === undefined ? [] : [files.mmproj])];
  if (trust || process.env[INSIDE] || paths.every(isShipped)) return;
  const { device, gpuLayers } = options;
  const settings = `${FORMAT} ${native().build.sha256} ${device} ${gpuLayers}`;
  const model = await headerHash(settings, modelParts(files.model), header);
  const keys = files.mmproj === undefined ? [model] : [await headerHash(model, [files.mmproj]), model];
  const [key] = keys as [string];
  const found = known.get(key);
  if (found) return found;
  const trial = existsSync(verdict(key)) ? Promise.resolve() : startTrial(files, options, keys);
  for (const one of keys) if (!known.has(one)) known.set(one, trial);
  try {
    await trial;
  } catch (error) {
    for (const one of keys) if (known.get(one) === trial) known.delete(one);
    throw error;
  }
}

const verdict = (key: string) => join(trialFolder(), key);

async function startTrial(
  files: ModelFiles,
  { device, gpuLayers, threads, signal, onTrial }: TrialOptions,
  keys: readonly string[],
): Promise<void> {
  onTrial?.();
  const model = bytesOf(modelParts(files.model));
  const mmproj = files.mmproj === undefined ? 0 : bytesOf([files.mmproj]);
  const limitBytes = LIMIT_BYTES + 2 * (model + mmproj);
  const gpu =
    device !== 'cpu' &&
    native()
      .addon.listDevices()
      .some(({ type }) => type !== 'cpu');
  const perSize = (LIMIT_S_PER_GB.model * model + LIMIT_S_PER_GB.mmproj * mmproj) / 1e9;
  const seconds = Math.ceil(LIMIT_S + (gpu ? COMPILE_S : 0) + perSize);
  const task: [TrialJob, TrialLimits] = [
    { ...files, device, gpuLayers, threads },
    { bytes: limitBytes, seconds },
  ];
  const { NODE_OPTIONS: _, ...env } = process.env; // of this process: a debugger, a loader
  const { how, stdout, log, late } = await runChild([CHILD, JSON.stringify(task)], {
    env: {
      ...env,
      [INSIDE]: '1',
      GGML_NO_BACKTRACE: '1', // it would start a debugger
      ...(process.versions.electron !== undefined && { ELECTRON_RUN_AS_NODE: '1' }),
    },
    signal,
    maxSeconds: waitFor(seconds),
  });
  if (signal?.aborted) throw new XpatchError('ABORTED', 'Loading the model was aborted.', { cause: signal.reason });

  const messages = stdout
    .toString()
    .split('\n')
    .flatMap((line): TrialMessage[] => (/^\{"type":.*\}$/.test(line) ? [JSON.parse(line)] : []));
  const end = messages.at(-1);
  if (end?.type === 'done') {
    if (end.complete) await remember(keys);
    return;
  }
  const stage = messages.findLast((message) => message.type === 'stage')?.stage;
  const trust = `To load it all the same, at the risk of ending this process: XPATCH_TRUST=1, or the option trust of loadModel.`;
  if (stage === undefined) {
    const message = `'${files.model}' was never loaded here, and the process that was to try it ${how}${said(log)}. ${trust}`;
    throw new XpatchError('NATIVE_FAILURE', message);
  }
  const gigabytes = (limitBytes / 2 ** 30).toFixed(1);
  const what =
    end?.type === 'memory'
      ? `took more than ${gigabytes} GiB of memory while ${stage}`
      : end?.type === 'time' || late
        ? `did not return within ${late ? `${waitFor(seconds)} s` : `${seconds} s of the processor's time`} while ${stage}`
        : `${how} while ${stage}${said(log)}`;
  const pair = files.mmproj === undefined ? `'${files.model}'` : `'${files.model}' with '${files.mmproj}'`;
  throw new XpatchError(
    'MODEL_UNUSABLE',
    `${pair} cannot be used: the process that tried it first ${what}. The file is damaged, or not what this llama.cpp can run: download or convert it again, or take another. ${trust}`,
  );
}

const bytesOf = (paths: readonly string[]) => paths.reduce((sum, path) => sum + statSync(path).size, 0);

const CHILD = fileURLToPath(new URL('./trial-child.js', import.meta.url));

/** The last words of a process, on one line: an assertion of ggml names what is wrong. */
function said(log: string): string {
  const lines = log.split('\n').filter((line) => line.trim() !== '');
  const words = printable(lines.slice(-2).join(' ')).replace(/\S*[/\\](?=[^/\\\s]+:\d+:)/g, '');
  return words && ` (${words.slice(0, 400)})`;
}

/** A folder that cannot be written to makes the next process try again. */
async function remember(keys: readonly string[]): Promise<void> {
  try {
    await makeFolder(trialFolder());
    for (const key of keys) await writeFileAtomic(verdict(key), '');
  } catch (error) {
    if (!(error instanceof XpatchError)) throw error;
  }
}
