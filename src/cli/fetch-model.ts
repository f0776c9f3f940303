import { type CatalogueEntry, catalogueNames, findEntry } from '../hub/catalogue.js';
import { type DownloadEvents, type DownloadPlan, downloadModel } from '../hub/download.js';
import type { ModelFiles } from '../hub/resolve.js';
import { didYouMean } from '../util/nearest.js';
import { usageError } from './errors.js';
import { duration, RunRate } from './run-rate.js';

export interface FetchEvents {
  readonly signal: AbortSignal;
  /** What is being done, and how far. */
  readonly onDoing: (what: string, fraction?: number, detail?: string) => void;
  readonly onNote: (text: string) => void;
  /** What an interruption leaves, and how to continue from there. */
  readonly onKept?: (wayOn: string) => void;
}

/** The files of a model; what is missing is downloaded. Its licence is shown before the first byte. */
export function fetchModel(source: string, mmproj: string | undefined, events: FetchEvents): Promise<ModelFiles> {
  return downloadModel(source, { mmproj, ...downloadEvents(findEntry(source), events) });
}

/** How a command shows a download. */
export function downloadEvents(
  entry: CatalogueEntry | undefined,
  { signal, onDoing, onNote, onKept }: FetchEvents,
): DownloadEvents {
  const rate = new RunRate();
  return {
    signal,
    onNote,
    onPlan: (plan) => {
      rate.reset();
      if (plan.files.length === 0) return;
      onKept?.('What has arrived is kept: the same command resumes from there.');
      onNote(describePlan(plan, entry));
    },
    onProgress: ({ stage, file, done, total }) => {
      if (stage === 'checking') {
        onDoing(`checking ${file}`);
        return;
      }
      const { perSecond, left } = rate.at(done, total);
      const speed = perSecond === undefined ? '' : `, ${bytesText(perSecond)}/s`;
      const rest = left === undefined ? '' : `, ${duration(left)} left`;
      onDoing(`downloading ${file}`, done / total, `${bytesText(done)} of ${bytesText(total)}${speed}${rest}`);
    },
  };
}

/** `USER/REPO: 4.37 GB, licence apache-2.0` and what to know about it. */
function describePlan({ source, licence, gated, bytes }: DownloadPlan, entry: CatalogueEntry | undefined): string {
  const conditions = gated ? ', gated: its owner grants access' : '';
  const declared = licence === undefined ? 'no licence is declared' : `licence ${licence}`;
  const known = entry ? ` (${entry.title}: ${licenceText(entry)})` : '';
  return `downloading ${bytesText(bytes)} from ${source}, ${declared}${known}${conditions}`;
}

/** `CC-BY-NC-4.0, research only. No commercial use.` */
export function licenceText({ licence: { name, use, note } }: CatalogueEntry): string {
  const kind = { any: '', conditions: ', with conditions', research: ', RESEARCH ONLY' }[use];
  return `${name}${kind}${note === undefined ? '' : `. ${note}`}`;
}

/** `4.37 GB`, `105 MB`, `2 KB` */
export function bytesText(bytes: number): string {
  if (bytes < 1e6) return `${Math.ceil(bytes / 1e3)} KB`;
  return bytes < 1e9 ? `${(bytes / 1e6).toPrecision(3)} MB` : `${(bytes / 1e9).toFixed(2)} GB`;
}

/** A model of the catalogue. @throws {XpatchError} INVALID_ARGUMENT */
export function requireEntry(name: string): CatalogueEntry {
  const entry = findEntry(name);
  if (entry) return entry;
  const names = catalogueNames();
  const problem = `The catalogue has no ${JSON.stringify(name)}.${didYouMean(name, names)}`;
  throw usageError(`${problem} Names: ${names.join(', ')}; or hf:USER/REPO.`);
}
