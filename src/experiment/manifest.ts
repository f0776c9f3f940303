import { createHash } from 'node:crypto';
import { join, parse, win32 } from 'node:path';
import type { Context } from '../model/context.js';
import type { Model } from '../model/model.js';
import type { ModelIdentity } from '../model/types.js';
import { listDevices, native } from '../native/index.js';
import { hashPictures } from '../tasks/hash-pictures.js';
import { isTaskFile, loadTask } from '../tasks/task.js';
import { XpatchError } from '../util/errors.js';
import { isRecord, parseJson } from '../util/json.js';
import { packageVersion } from '../util/package-root.js';
import { readWhole } from '../util/read-file.js';
import { whatAre } from '../util/what-is.js';
import { schemaProblems } from './schema.js';
import { nameOfShard, type Shard } from './shard.js';
import type { Experiment, Plan } from './types.js';

export const MANIFEST_FILE = 'manifest.json';

/** One that was interrupted or killed is left with `running`, and can be resumed. Earlier versions also wrote the other two. */
export const STATUSES = ['running', 'complete', 'interrupted', 'failed'] as const;
/** How far a run has come. */
export type Status = (typeof STATUSES)[number];

/** A model as recorded in a manifest. */
export interface ModelRecord extends ModelIdentity {
  /** Paths at the time of the run. */
  readonly files: { readonly model: string; readonly mmproj?: string };
  /** SHA-256 of the picture encoder. */
  readonly mmproj?: string;
  /** Width that pictures were scaled to first; if absent, their own. */
  readonly imageWidth?: number;
}

/**
 * What is needed to repeat a run: written first, and again when it ends. Everything else in it is for people.
 *
 * @typeParam Options of an experiment of scored queries, of a study, or of a command
 */
export interface Manifest<Options extends object = Experiment> {
  readonly status: Status;
  /** Which study it belongs to; a run without one is an experiment of scored queries, or a page. */
  readonly study?: string;
  /** What was run, for people: the name of the experiment, or the command. */
  readonly experiment: string;
  readonly title: string;
  /** Command line that resumes it. */
  readonly command: string;
  /** ISO 8601. */
  readonly started: string;
  readonly options: Options;
  readonly model: ModelRecord;
  /** Of `foreign` conditions. */
  readonly vectorModel?: ModelRecord;
  /** By name: SHA-256 of the file, number of items, and `hashPictures` where pictures take part. */
  readonly tasks: Readonly<
    Record<string, { readonly sha256: string; readonly items: number; readonly pictures?: string }>
  >;
  /** What else the results depend on, such as the SHA-256 of files that are read. */
  readonly inputs?: Readonly<Record<string, string>>;
  /** How many lines the finished run of an experiment has. */
  readonly plan?: Plan['queries'];
  /** The parts of a study: one line each. */
  readonly units?: readonly string[];
  /** Of a run that answers a part of the queries. */
  readonly shard?: Shard;
  /** Folder of the run that its validation was taken from. */
  readonly layerFrom?: string;
  /** Notes for the results. */
  readonly notes: readonly string[];
  readonly [more: string]: unknown;
}

/** A manifest as in the folder of a run. */
export interface RunRecord<Options extends object = Experiment> extends Manifest<Options> {
  /** SHA-256 over everything that results depend on: options, models, tasks and their pictures, shard. */
  readonly configHash: string;
  /** Every process that worked on the run, the first one first. */
  readonly sessions: readonly Readonly<Record<string, unknown>>[];
  /** Of a complete run: number of lines, SHA-256 of their file, and of every file of vectors/ by the name of the vector. */
  readonly lines?: number;
  readonly results?: string;
  readonly vectors?: Readonly<Record<string, string>>;
}

/** The description of a run. */
export interface RunDescription<Options extends object = object>
  extends Partial<Pick<Manifest, 'study' | 'command' | 'inputs' | 'plan' | 'units' | 'shard' | 'notes'>> {
  /** What was run: the command, e.g. `lens`. */
  readonly experiment: string;
  readonly title: string;
  /** What the command line said, with defaults filled in. */
  readonly options: Options;
  /** Tasks that take part, whose hashes are recorded. Defaults to none. */
  readonly tasks?: readonly string[];
  /** Whether the pictures of the tasks take part: their hashes are recorded too. Defaults to false. */
  readonly pictures?: boolean;
  /** Drawing style of the pictures. Defaults to `twemoji`. */
  readonly style?: string | undefined;
  /** The model of `foreign` conditions. Defaults to none. */
  readonly vectorModel?: Model | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** The manifest of a new run: what is run, with what, on what. */
export async function describeRun<Options extends object>(
  context: Context,
  description: RunDescription<Options>,
): Promise<Manifest<Options>> {
  const { tasks: names = [], pictures = false, style, vectorModel, signal, ...about } = description;
  const tasks = await Promise.all(
    names.map(async (source) => {
      const task = await loadTask(source, { pictures, style });
      const shown = task.pictures && { pictures: await hashPictures(task, signal) };
      return [task.name, { sha256: task.hash, items: task.items.length, ...shown }] as const;
    }),
  );
  const { model, options: sizes } = context;
  const { build } = native();
  return {
    status: 'running',
    command: '',
    notes: [],
    ...about,
    xpatch: packageVersion(),
    llamaCpp: build.llamaTag,
    build: build.mode,
    node: process.version,
    platform: `${process.platform}-${process.arch}`,
    devices: listDevices().map(({ name, description }) => ({ name, description })),
    started: new Date().toISOString(),
    model: { ...recordOf(model), ...placeOf(model) } as ModelRecord,
    context: sizes,
    tasks: Object.fromEntries(tasks),
    ...(vectorModel && { vectorModel: recordOf(vectorModel) }),
  };
}

/** Where a model runs. */
function placeOf({ options: { device, threads, rpc } }: Model) {
  return { device, threads, ...(rpc?.length && { rpc }) };
}

/** A language model has no pictures to scale. */
function recordOf({ identity, files, projectorHash: mmproj, options: { imageWidth } }: Model): ModelRecord {
  return {
    ...identity,
    files,
    ...(mmproj !== undefined && { mmproj, ...(imageWidth !== undefined && { imageWidth }) }),
  };
}

/** How many lines the finished run has. */
export function plannedLines({ plan = [], units = [] }: Pick<Manifest, 'plan' | 'units'>): number {
  return plan.reduce((sum, { count }) => sum + count, units.length);
}

/** What two processes must agree on to work on the same run. */
function identityOf({ study, units, options, model, vectorModel, tasks, inputs, shard }: Manifest<object>) {
  const hashes = (record: ModelRecord) => ({
    sha256: record.hash,
    'picture encoder': record.mmproj,
    'image width': record.imageWidth,
  });
  const { tasks: sources, vectorModel: other } = options as Partial<Experiment>;
  return {
    study,
    units,
    experiment: {
      ...options,
      // By name: its content is recorded below, and another machine has it at another path.
      tasks: sources?.map((source) => (isTaskFile(source) ? parse(win32.basename(source)).name : source)),
      ...(other?.match(/[\\/]/) && { vectorModel: 'a file' }),
    },
    model: hashes(model),
    'vector model': vectorModel && hashes(vectorModel),
    tasks: Object.fromEntries(
      Object.entries(tasks).map(([name, { sha256, pictures }]) => [name, { sha256, pictures }]),
    ),
    inputs,
    shard: shard && nameOfShard(shard),
  };
}

export function configHash(manifest: Manifest<object>): string {
  return createHash('sha256')
    .update(canonical(identityOf(manifest)))
    .digest('hex');
}

/** JSON that does not depend on the order of keys. */
function canonical(value: unknown): string {
  return JSON.stringify(value, (_, part: unknown) => {
    if (!isRecord(part)) return part;
    return Object.fromEntries(Object.entries(part).sort(([a], [b]) => (a < b ? -1 : 1)));
  });
}

type Branch = Readonly<Record<string, unknown>>;
const isBranch = (value: unknown): value is Branch => typeof value === 'object' && value !== null;

/** Where two values differ, as `shots: 5 there, 4 here`; the leaves in order, lists as a whole. */
function differences(there: unknown, here: unknown, path = ''): string[] {
  if (canonical(there) === canonical(here)) return [];
  const [a, b] = [namesIn(there), namesIn(here)];
  if (a && b && canonical(a) !== canonical(b)) {
    // Long lists are shown from where they part.
    const parts = a.findIndex((name, i) => name !== b[i]);
    const from = parts < SHOWN ? 0 : parts;
    return [`${path}: ${listed(a, from)} there; ${listed(b, from)} here`];
  }
  if (isBranch(there) && isBranch(here) && Array.isArray(there) === Array.isArray(here)) {
    const keys = [...new Set([...Object.keys(there), ...Object.keys(here)])];
    return keys.flatMap((key) => differences(there[key], here[key], path ? `${path}.${key}` : key));
  }
  const show = (value: unknown) => {
    const text = value === undefined ? 'none' : canonical(value);
    return text.length > 60 ? `${text.slice(0, 59)}…` : text;
  };
  return [`${path}: ${show(there)} there, ${show(here)} here`];
}

/** Entries of a list in a message. */
const SHOWN = 3;

/** The entries of a list of texts or numbers, or the names of those that have one; undefined for anything else. */
function namesIn(list: unknown): string[] | undefined {
  if (!Array.isArray(list)) return undefined;
  const names = list.map((entry) => (isBranch(entry) ? entry.name : entry));
  return names.every((name) => typeof name === 'string' || typeof name === 'number') ? names.map(String) : undefined;
}

function listed(names: readonly string[], from: number): string {
  const shown = names.slice(from, from + SHOWN);
  return [...(from > 0 ? ['…'] : []), ...shown, ...(from + SHOWN < names.length ? ['…'] : [])].join(', ') || 'none';
}

/** @throws {XpatchError} RUN_MISMATCH, saying what differs */
export function requireSameRun(there: Manifest<object>, here: Manifest<object>, path: string): void {
  const [a, b] = [identityOf(there), identityOf(here)];
  const experiment = differences(a.experiment, b.experiment);
  // Which tasks there are is said; then only what is in those of both.
  const tasks = experiment.some((text) => text.startsWith('tasks: '))
    ? Object.keys(a.tasks).filter((name) => Object.hasOwn(b.tasks, name))
    : [...Object.keys(a.tasks), ...Object.keys(b.tasks)];
  const of = (identity: typeof a) => ({
    ...identity,
    experiment: undefined,
    tasks: Object.fromEntries(tasks.map((name) => [name, identity.tasks[name]])),
  });
  const different = [...experiment, ...differences(of(a), of(b))];
  if (different.length === 0) return;
  const more = different.length > 5 ? `; and ${different.length - 5} more` : '';
  throw new XpatchError(
    'RUN_MISMATCH',
    `${path} is another run: ${different.slice(0, 5).join('; ')}${more}. Name another folder, or ask for the same.`,
  );
}

/** With as many conditions, tasks and sessions as anybody could want. */
const FILE = { what: 'the manifest', maxBytes: 64 << 20 } as const;

const isText = (value: unknown): value is string => typeof value === 'string';
const isListOf = (value: unknown, test: (entry: Record<string, unknown>) => boolean): boolean =>
  Array.isArray(value) && value.every((entry) => isRecord(entry) && test(entry));

function isModelRecord(value: unknown): boolean {
  if (!isRecord(value) || !isRecord(value.files)) return false;
  const { hash, name, architecture, nLayers, files } = value;
  return [hash, name, architecture, files.model].every(isText) && Number.isSafeInteger(nLayers);
}

function isShard(value: unknown): boolean {
  if (!isRecord(value)) return false;
  const { index, of, stage } = value;
  return [index, of].every(Number.isSafeInteger) && (stage === undefined || stage === 'validation');
}

/**
 * The manifest of a run of an experiment or of a study; undefined when the folder has none.
 * @throws {XpatchError} RUN_INVALID for a run of another kind, or a damaged manifest
 */
export async function readManifest(folder: string): Promise<RunRecord | undefined> {
  const path = join(folder, MANIFEST_FILE);
  const bytes = await readWhole(path, FILE).catch((error: XpatchError) => {
    const { code } = (error.cause ?? {}) as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined;
    throw new XpatchError('RUN_INVALID', error.message, { cause: error });
  });
  if (bytes === undefined) return undefined;
  const invalid = (problem: string, cause?: unknown) =>
    new XpatchError('RUN_INVALID', `${path} ${problem}. Name the folder of a run of xpatch.`, { cause });
  let value: Partial<RunRecord> | null;
  try {
    value = parseJson(bytes) as typeof value;
  } catch (cause) {
    throw invalid(`is not a manifest: ${whatAre(bytes, 'JSON') ?? (cause as Error).message}`, cause);
  }
  const { status, title, study, options, model, vectorModel, tasks, plan, units, sessions, notes, shard } = value ?? {};
  const isStudy = study !== undefined;
  if (!isStudy && options?.measure === 'compute') {
    throw invalid('is from a measurement by an earlier version, which left no lines to resume from. Measure again');
  }
  const work = isStudy
    ? isText(study) && isRecord(options) && Array.isArray(units) && units.every(isText)
    : [options?.conditions, options?.tasks, options?.seeds].every(Array.isArray) &&
      isListOf(
        plan,
        ({ stage, condition, count }) => isText(stage) && isText(condition) && Number.isSafeInteger(count),
      );
  const whole =
    work &&
    STATUSES.some((one) => one === status) &&
    isText(title) &&
    isListOf(sessions, () => true) &&
    Array.isArray(notes) &&
    notes.every(isText) &&
    [model, ...(vectorModel === undefined ? [] : [vectorModel])].every(isModelRecord) &&
    isRecord(tasks) &&
    isListOf(Object.values(tasks), ({ sha256 }) => isText(sha256)) &&
    (shard === undefined || isShard(shard));
  if (!whole) throw invalid('does not describe a run of scored queries or of a study');
  const [problem] = isStudy ? [] : schemaProblems(options as Experiment);
  if (problem !== undefined) throw invalid(`does not describe an experiment (${problem})`);
  return value as RunRecord;
}

/** The same of a folder that must be a run. @throws {XpatchError} RUN_INVALID */
export async function requireManifest(folder: string): Promise<RunRecord> {
  const manifest = await readManifest(folder);
  if (manifest) return manifest;
  throw new XpatchError('RUN_INVALID', `${folder} is not a run: it has no manifest.json. Name the folder of a run.`);
}
