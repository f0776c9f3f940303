import type { Context } from '../model/context.js';
import type { Model } from '../model/model.js';
import type { ModelIdentity, Progress } from '../model/types.js';
import { XpatchError } from '../util/errors.js';
import { printable } from '../util/printable.js';
import { type FetchEvents, fetchModel } from './fetch-model.js';
import type { ModelArguments, OutputArguments } from './options.js';
import type { ProgressLine } from './progress.js';
import type { Terminal } from './terminal.js';
import { meterTraffic } from './traffic.js';

/** A loaded model with a context, for the duration of one command. */
export interface Session {
  model: Model;
  context: Context;
  terminal: Terminal;
  signal: AbortSignal;
  progress: ProgressLine;
  /** An `onProgress` that shows its fraction under a label. */
  track(label: string): (progress: Progress) => void;
}

/** Loads the model that the options name; downloads it first if it is not on this machine. */
export async function openModel(args: ModelArguments, events: FetchEvents, what = 'loading the model'): Promise<Model> {
  const { signal, onDoing } = events;
  const files = await fetchModel(args.model, args.mmproj, events);
  onDoing(what);
  // Not imported at the top: --help and doctor must work where the addon or sharp does not.
  const { loadModel } = await import('../model/load-model.js');
  const { device, gpuLayers, threads, imageWidth, imageCache: imageCacheFolder } = args;
  const onProgress = (fraction: number) => onDoing(what, fraction);
  const model = await loadModel(files.model, {
    mmproj: files.mmproj,
    device,
    rpc: args.rpc,
    gpuLayers,
    threads,
    imageWidth,
    imageCacheFolder,
    signal,
    onProgress,
    onTrial: () => onDoing('checking the model file'),
  });
  for (const note of model.notes) events.onNote(note);
  return model;
}

/** Shows a download and the loading of a model on a progress line. */
export function fetchEvents(terminal: Terminal, progress: ProgressLine): FetchEvents {
  return {
    signal: terminal.signal,
    onKept: (wayOn) => terminal.explainInterrupt(wayOn),
    onDoing: (what, fraction, detail) => progress.update(what, fraction, detail),
    onNote: (text) => progress.note(text),
  };
}

/** Arguments where flash attention, which computes no scores and has one mask for all heads, is off unless asked for. */
export function withoutFlash<Args extends ModelArguments>(args: Args, needed: boolean): Args {
  return needed ? { ...args, flashAttention: args.flashAttention ?? 'off' } : args;
}

/** Loads the model, makes a context, does the work, and frees both, whatever happens. */
export async function withSession<T>(
  args: ModelArguments & OutputArguments,
  terminal: Terminal,
  work: (session: Session) => Promise<T>,
): Promise<T> {
  const { signal } = terminal;
  using progress = terminal.progress(args);
  const track = (label: string) => (p: Progress) => progress.update(label, p.total > 0 ? p.done / p.total : undefined);
  await using model = await openModel(args, fetchEvents(terminal, progress));
  const { nCtx, nUbatch, flashAttention } = args;
  const context = await model.createContext({ nCtx, nUbatch, flashAttention });
  const traffic = await meterTraffic(args.rpc);
  const result = await work({ model, context, terminal, signal, progress, track });
  const used = traffic();
  if (used !== undefined) progress.note(used);
  return result;
}

/** Stops before a result is written if the user has given up in the meantime. */
export function requireNotAborted(signal: AbortSignal): void {
  if (signal.aborted) throw new XpatchError('ABORTED', 'Interrupted. Nothing was written.', { cause: signal.reason });
}

/** How a model is named in output. */
export function describeModel({ name, architecture }: Pick<ModelIdentity, 'name' | 'architecture'>): string {
  return printable(name) || `a model of architecture ${printable(architecture)}`;
}
