import { createHash } from 'node:crypto';
import { join, parse, win32 } from 'node:path';
import type { ModelIdentity } from '../model/types.js';
import { isTaskFile } from '../tasks/task.js';
import { XpatchError } from '../util/errors.js';
import { parseJson } from '../util/json.js';
import { readWhole } from '../util/read-file.js';
import { whatAre } from '../util/what-is.js';
import { schemaProblems } from './config.js';
import { MANIFEST_FILE, type Manifest } from './run-folder.js';
import type { Shard } from './shard.js';
import type { Experiment, Plan } from './types.js';

/** A model as a manifest names it. */
export interface ModelRecord extends ModelIdentity {
  /** Paths at the time of the run. */
  readonly files: { readonly model: string; readonly mmproj?: string };
  /** SHA-256 of the picture encoder. */
  readonly mmproj?: string;
  /** Width that pictures were scaled to before; their own without it. */
  readonly imageWidth?: number;
}

/** The manifest of a run of an experiment (`describeRun`, and what is named here); what else is in it is for people. */
export interface ExperimentManifest extends Manifest {
  readonly options: Experiment;
  readonly model: ModelRecord;
  /** Of `foreign` conditions. */
  readonly vectorModel?: ModelRecord;
  /** By name: SHA-256 of the file, number of items, and `hashPictures` where pictures take part. */
  readonly tasks: Readonly<
    Record<string, { readonly sha256: string; readonly items: number; readonly pictures?: string }>
  >;
  /** How many lines the finished run has. */
  readonly plan: Plan['queries'];
  /** Of a run that answers a part of the queries. */
  readonly shard?: Shard;
  /** What has to be said beside the results. */
  readonly notes: readonly string[];
}

/** What the folder adds to it. */
export interface StoredManifest extends ExperimentManifest {
  /** SHA-256 over everything that answers depend on: experiment, models, tasks and their pictures, shard. */
  readonly configHash: string;
  /** Every process that worked on the run, the first one first. */
  readonly sessions: readonly Readonly<Record<string, unknown>>[];
  /** Of a complete run: number of lines, SHA-256 of their file, and of every file of vectors/ by the name of the vector. */
  readonly lines?: number;
  readonly results?: string;
  readonly vectors?: Readonly<Record<string, string>>;
}

/** What two processes must agree in to work on the same run. */
export function identityOf({ options, model, vectorModel, tasks, shard }: ExperimentManifest) {
  const hashes = (record: ModelRecord) => ({
    sha256: record.hash,
    'picture encoder': record.mmproj,
    'image width': record.imageWidth,
  });
  return {
    experiment: {
      ...options,
      // By name: which content that is stands below, and another machine has it at another path.
      tasks: options.tasks.map((source) => (isTaskFile(source) ? parse(win32.basename(source)).name : source)),
      ...(options.vectorModel?.match(/[\\/]/) && { vectorModel: 'a file' }),
    },
    model: hashes(model),
    'vector model': vectorModel && hashes(vectorModel),
    tasks: Object.fromEntries(
      Object.entries(tasks).map(([name, { sha256, pictures }]) => [name, { sha256, pictures }]),
    ),
    shard: shard && `${shard.index}/${shard.of}`,
  };
}

export function configHash(manifest: ExperimentManifest): string {
  return createHash('sha256')
    .update(canonical(identityOf(manifest)))
    .digest('hex');
}

/** JSON that does not depend on the order of keys. */
function canonical(value: unknown): string {
  return JSON.stringify(value, (_, part: unknown) => {
    if (typeof part !== 'object' || part === null || Array.isArray(part)) return part;
    return Object.fromEntries(Object.entries(part).sort(([a], [b]) => (a < b ? -1 : 1)));
  });
}

/** Where two values differ, as `experiment.shots: 5 and 4`; the leaves in order. */
export function differences(a: unknown, b: unknown, path = ''): string[] {
  const isBranch = (value: unknown): value is Record<string, unknown> => typeof value === 'object' && value !== null;
  if (isBranch(a) && isBranch(b) && Array.isArray(a) === Array.isArray(b)) {
    const keys = [...new Set([...Object.keys(a), ...Object.keys(b)])];
    return keys.flatMap((key) => differences(a[key], b[key], path ? `${path}.${key}` : key));
  }
  if (canonical(a) === canonical(b)) return [];
  const show = (value: unknown) => {
    const text = value === undefined ? 'none' : canonical(value);
    return text.length > 60 ? `${text.slice(0, 59)}…` : text;
  };
  return [`${path}: ${show(a)} and ${show(b)}`];
}

/** @throws {XpatchError} RUN_MISMATCH, saying what differs */
export function requireSameRun(there: ExperimentManifest, here: ExperimentManifest, path: string): void {
  const different = differences(identityOf(there), identityOf(here));
  if (different.length === 0) return;
  const more = different.length > 5 ? ` and ${different.length - 5} more` : '';
  throw new XpatchError(
    'RUN_MISMATCH',
    `${path} is another run (there and here): ${different.slice(0, 5).join('; ')}${more}. Name another folder, or ask for the same.`,
  );
}

/** With as many conditions, tasks and sessions as anybody could want. */
const FILE = { what: 'the manifest', maxBytes: 64 << 20 } as const;

const isText = (value: unknown): value is string => typeof value === 'string';
const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
const isListOf = (value: unknown, test: (entry: Record<string, unknown>) => boolean): boolean =>
  Array.isArray(value) && value.every((entry) => isRecord(entry) && test(entry));

function isModelRecord(value: unknown): boolean {
  if (!isRecord(value) || !isRecord(value.files)) return false;
  const { hash, name, architecture, nLayers, files } = value;
  return [hash, name, architecture, files.model].every(isText) && Number.isSafeInteger(nLayers);
}

/**
 * The manifest of a run of an experiment; undefined when the folder has none.
 * @throws {XpatchError} RUN_INVALID for a run of another kind, or a manifest that is damaged
 */
export async function readManifest(folder: string): Promise<StoredManifest | undefined> {
  const path = join(folder, MANIFEST_FILE);
  const bytes = await readWhole(path, FILE).catch((error: XpatchError) => {
    const { code } = (error.cause ?? {}) as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined;
    throw new XpatchError('RUN_INVALID', error.message, { cause: error });
  });
  if (bytes === undefined) return undefined;
  const invalid = (problem: string, cause?: unknown) =>
    new XpatchError('RUN_INVALID', `${path} ${problem}. Name the folder of a run of xpatch eval.`, { cause });
  let value: Partial<StoredManifest> | null;
  try {
    value = parseJson(bytes) as typeof value;
  } catch (cause) {
    throw invalid(`is no manifest: ${whatAre(bytes, 'JSON') ?? (cause as Error).message}`, cause);
  }
  const { status, options, model, vectorModel, tasks, plan, sessions, notes, shard } = value ?? {};
  if (options?.measure === 'compute') {
    const message = `${path} is of measure: compute, whose numbers are times of one machine: there is nothing in it to verify, merge or go on with`;
    throw new XpatchError('RUN_INVALID', `${message}. Name another folder; to check the times, measure again.`);
  }
  const whole =
    (status === 'running' || status === 'complete') &&
    [options?.conditions, options?.tasks, options?.seeds].every(Array.isArray) &&
    isListOf(
      plan,
      ({ stage, condition, count }) => isText(stage) && isText(condition) && Number.isSafeInteger(count),
    ) &&
    isListOf(sessions, () => true) &&
    Array.isArray(notes) &&
    notes.every(isText) &&
    [model, ...(vectorModel === undefined ? [] : [vectorModel])].every(isModelRecord) &&
    isRecord(tasks) &&
    isListOf(Object.values(tasks), ({ sha256 }) => isText(sha256)) &&
    (shard === undefined || (isRecord(shard) && [shard.index, shard.of].every(Number.isSafeInteger)));
  if (!whole) throw invalid('describes no run of scored queries');
  const [problem] = schemaProblems(options as Experiment);
  if (problem !== undefined) throw invalid(`describes no experiment (${problem})`);
  return value as StoredManifest;
}
