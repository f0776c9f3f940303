import { existsSync } from 'node:fs';
import { resolve, win32 } from 'node:path';
import type { Context } from '../model/context.js';
import type { OnProgress } from '../model/types.js';
import { hashPictures } from '../tasks/hash-pictures.js';
import { isTaskFile, loadTask } from '../tasks/task.js';
import { counted } from '../util/counted.js';
import { XpatchError } from '../util/errors.js';
import { Random } from '../util/random.js';
import { differenceOfLines } from './compare.js';
import { LayerChoice } from './layer-choice.js';
import { scoreProblem } from './line-check.js';
import { noFindings, readLines } from './lines.js';
import { configHash, type RunRecord, requireManifest } from './manifest.js';
import { memoryStore } from './memory-store.js';
import { Queries } from './queries.js';
import { runExperiment } from './run.js';
import { hashResults, hashVectors, loadRunVector } from './run-files.js';
import { nameOfShard } from './shard.js';
import { layersOf, loadCells, usesPictures } from './study.js';
import { type Experiment, keyOf, type ResultLine, type RunLine } from './types.js';

/** One thing that was checked. `not done` is what could not be checked, and says why. */
export interface Check {
  readonly name: string;
  readonly state: 'ok' | 'failed' | 'not done';
  readonly detail: string;
}

/** A run as in its folder. */
export interface CheckedRun {
  readonly path: string;
  readonly manifest: RunRecord;
  /** The tasks of its experiment: names, and paths of task files on this machine. */
  readonly tasks: readonly string[];
  readonly lines: readonly RunLine[];
  readonly checks: readonly Check[];
}

/** A check that fails with the first few problems, if there are any. */
export function check(name: string, problems: readonly string[], fine: string): Check {
  if (problems.length === 0) return { name, state: 'ok', detail: fine };
  const more = problems.length > 3 ? `; and ${problems.length - 3} more` : '';
  return { name, state: 'failed', detail: problems.slice(0, 3).join('; ') + more };
}

/**
 * Checks that a run is complete and consistent, from its folder and the task files alone: configuration, lines, their
 * number against the plan, hashes of tasks, pictures and vectors; for an experiment also scores against answers and the layer against
 * the validation answers.
 *
 * @param options.data folder of the run's own task files: at the path that the experiment gives, or directly.
 *   Defaults to the current folder
 * @throws {XpatchError} RUN_INVALID if the folder is not a run of an experiment; ABORTED
 */
export async function checkRun(
  path: string,
  { data = '.', signal }: { data?: string | undefined; signal?: AbortSignal | undefined } = {},
): Promise<CheckedRun> {
  const manifest = await requireManifest(path);
  const { lines, problems } = await linesOf(path, manifest);
  const { tasks: sources = Object.keys(manifest.tasks) } = manifest.options as Partial<Experiment>;
  const tasks = sources.map((source) => findTask(source, data));
  const answers = lines as ResultLine[];
  const checks = [
    checkManifest(manifest),
    check('lines', problems, `${counted(lines.length, 'whole line')}, none twice`),
    ...(manifest.study === undefined
      ? [
          checkCounts(manifest, answers),
          await checkQueries(manifest, tasks, answers),
          checkScores(manifest, answers),
          checkLayers(manifest, answers),
        ]
      : [checkUnits(manifest, lines)]),
    await checkTasks(manifest, tasks, signal),
    await checkVectors(path, manifest, lines),
  ];
  return { path, manifest, tasks, lines, checks };
}

async function linesOf(path: string, { lines: recorded, results }: RunRecord) {
  const lines: RunLine[] = [];
  const problems: string[] = [];
  const findings = noFindings();
  try {
    for await (const { line } of readLines<RunLine>(path, findings)) lines.push(line);
    if (findings.torn > 0) problems.push(`the last line is torn (${counted(findings.torn, 'byte')})`);
    if (findings.repeated > 0) problems.push(`${counted(findings.repeated, 'line')} twice`);
  } catch (error) {
    if (!(error instanceof XpatchError)) throw error;
    problems.push(error.message);
  }
  if (problems.length === 0 && recorded !== undefined && recorded !== lines.length) {
    problems.push(
      `it has ${counted(lines.length, 'line')}, but the manifest says ${recorded}: run the command again, which asks what is missing`,
    );
  }
  if (problems.length === 0 && results !== undefined && results !== (await hashResults(path))) {
    problems.push('they were changed after the run');
  }
  return { lines, problems };
}

function checkManifest(manifest: RunRecord): Check {
  const problems: string[] = [];
  if (manifest.status !== 'complete') problems.push('the run is not complete: run its command again');
  const hash = configHash(manifest);
  if (hash !== manifest.configHash) problems.push('the experiment, model or tasks it names were changed after the run');
  return check('manifest', problems, `complete, configuration ${hash.slice(0, 12)}`);
}

function checkCounts({ plan = [] }: RunRecord, lines: readonly ResultLine[]): Check {
  const counts = new Map(plan.map(({ stage, condition, count }) => [`${stage}, ${condition}`, { count, found: 0 }]));
  for (const { stage, condition } of lines) {
    const name = `${stage}, ${condition}`;
    const entry = counts.get(name) ?? { count: 0, found: 0 };
    entry.found += 1;
    counts.set(name, entry);
  }
  const problems = [...counts].flatMap(([name, { count, found }]) =>
    count === found ? [] : [`${name}: ${counted(found, 'line')} of ${count}`],
  );
  return check('counts', problems, `as planned in all ${plan.length} groups of stage and condition`);
}

/** Whether every part of a study has its line, and there are no others. */
function checkUnits({ units = [] }: RunRecord, lines: readonly RunLine[]): Check {
  const found = new Set(lines.map(keyOf));
  const missing = units.filter((unit) => !found.has(unit)).map((unit) => `${unit} is missing`);
  const others = [...found].filter((key) => !units.includes(key)).map((key) => `${key} is not one of its parts`);
  return check('counts', [...missing, ...others], `all ${counted(units.length, 'part')}`);
}

/** Whether the lines are about what the experiment asks, and expect what its tasks say. */
async function checkQueries(
  manifest: RunRecord,
  sources: readonly string[],
  lines: readonly ResultLine[],
): Promise<Check> {
  const { options, tasks, shard, model } = manifest;
  const conditions = new Set(options.conditions.map(({ name }) => name));
  const wrong = lines.filter(
    (line) => !conditions.has(line.condition) || !Object.hasOwn(tasks, line.task) || !options.seeds.includes(line.seed),
  );
  const problems = wrong.map((line) => `${keyOf(line)} is not one of its queries`);
  const fine = shard ? `all of shard ${nameOfShard(shard)}` : 'all of this experiment';
  if (problems.length > 0) return check('queries', problems, fine);
  const notDone = (why: string): Check => ({
    name: 'queries',
    state: 'not done',
    detail: `items and expected answers were not compared with the tasks: ${why}`,
  });
  try {
    const cells = await loadCells({ ...options, tasks: sources });
    if (cells.some(({ split: { task } }) => tasks[task.name]?.sha256 !== task.hash))
      return notDone('they are not those of the run. Name the folder of the task files with --data');
    const queries = new Queries({ experiment: options, cells }, model.nLayers, shard);
    for (const problem of lines.flatMap((line) => queries.problemOf(line) ?? [])) problems.push(problem);
    if (problems.length === 0 && lines.length !== queries.lines)
      problems.push(
        `it has ${counted(lines.length, 'line')}, but the experiment has ${counted(queries.lines, 'query', 'queries')}`,
      );
    return check('queries', problems, fine);
  } catch (error) {
    if (!(error instanceof XpatchError)) throw error;
    return notDone(`${error.message} Name the folder of the task files with --data.`);
  }
}

function checkScores({ options }: RunRecord, lines: readonly ResultLine[]): Check {
  const problems = lines.flatMap((line) => scoreProblem(line, options) ?? []);
  return check('scores', problems, 'as the answers say');
}

function checkLayers({ options: experiment }: RunRecord, lines: readonly ResultLine[]): Check {
  const patched = lines.filter(({ stage, layer }) => stage === 'test' && layer !== undefined);
  const { layers: common } = experiment;
  if (common === 'all' || patched.length === 0) return check('layers', [], 'none had to be chosen');
  const choice = new LayerChoice(experiment);
  for (const line of lines) choice.add(line);
  let layers: Record<string, readonly number[]>;
  try {
    layers = layersOf({ experiment, ...(common !== 'validation' && { layers: common }) }, (kind) => choice.best(kind));
  } catch (error) {
    return check('layers', [(error as Error).message], '');
  }
  const problems = patched
    .filter(({ condition, layer }) => !layers[condition]?.includes(layer as number))
    .map(
      (line) =>
        `${keyOf(line)} is patched at layer ${line.layer}, but ${layers[line.condition]?.join(', ')} was chosen`,
    );
  return check(
    'layers',
    problems,
    `patched at ${[...new Set(Object.values(layers).flat())].sort((a, b) => a - b).join(', ')}, as ${experiment.layers === 'validation' ? 'the validation answers choose' : 'asked for'}`,
  );
}

/** A task file has its old path only on the machine of the run, so it is also looked for in a folder. */
export function findTask(source: string, data: string): string {
  if (!isTaskFile(source)) return source;
  const path = resolve(data, source);
  // win32 handles both separators, whichever the run was made with.
  return existsSync(path) ? path : resolve(data, win32.basename(source));
}

/** Whether task files, and their pictures if they take part, are those of a run. @throws {XpatchError} ABORTED */
export async function checkTasks(
  {
    study,
    options,
    tasks,
  }: {
    readonly study?: string;
    readonly options: Experiment;
    readonly tasks: Readonly<Record<string, { readonly sha256: string; readonly pictures?: string }>>;
  },
  sources: readonly string[],
  signal: AbortSignal | undefined,
): Promise<Check> {
  const problems: string[] = [];
  const missing: string[] = [];
  const pictures = study === undefined ? usesPictures(options) : Object.values(tasks).some((task) => task.pictures);
  for (const source of sources) {
    try {
      const { name, hash } = await loadTask(source);
      const recorded = tasks[name];
      if (recorded?.sha256 !== hash) {
        problems.push(`${source} is not the file of the run`);
      } else if (pictures) {
        const shown = await loadTask(source, { pictures, style: options.style });
        const same = recorded.pictures === (await hashPictures(shown, signal));
        if (!same) problems.push(`the pictures of ${name} are not those of the run`);
      }
    } catch (error) {
      if (!(error instanceof XpatchError) || error.code === 'ABORTED') throw error;
      (error.code === 'FILE_NOT_FOUND' ? missing : problems).push(error.message);
    }
  }
  if (problems.length > 0 || missing.length === 0) {
    return check(
      'tasks',
      problems,
      `${counted(sources.length, 'file')} with equal hashes${pictures ? ', and their pictures' : ''}`,
    );
  }
  const wayOut = 'Name the folder of the task files with --data; their pictures are looked for from there.';
  return { name: 'tasks', state: 'not done', detail: `${missing[0]} ${wayOut}` };
}

async function checkVectors(path: string, manifest: RunRecord, lines: readonly RunLine[]): Promise<Check> {
  const hashes = await hashVectors(path);
  const recorded = manifest.vectors ?? {};
  const names = new Set([
    ...Object.keys(hashes),
    ...Object.keys(recorded),
    ...lines.flatMap(({ vector }) => vector ?? []),
  ]);
  const problems = [...names].flatMap((name) => {
    if (hashes[name] === undefined) return [`${name} is missing`];
    if (recorded[name] === undefined) return [`${name} is not in the manifest`];
    return hashes[name] === recorded[name] ? [] : [`${name} was changed after the run`];
  });
  const models = [manifest.model.hash, manifest.vectorModel?.hash];
  // A study may keep other things there.
  for (const name of manifest.study === undefined ? Object.keys(hashes) : []) {
    try {
      const vector = await loadRunVector(path, name);
      if (!models.includes(vector?.info.model.hash)) problems.push(`${name} is from another model`);
    } catch (error) {
      problems.push((error as Error).message);
    }
  }
  return check('vectors', problems, `${names.size} with equal hashes`);
}

/** Of `askAgain`. */
export interface AskOptions {
  /** How many queries. */
  readonly sample: number;
  /** Draws them. */
  readonly seed: number;
  readonly signal?: AbortSignal | undefined;
  /** Counts the whole run; lines outside the sample count as done at once. */
  readonly onProgress?: OnProgress | undefined;
}

/**
 * Asks some queries of a complete run again, with its own vectors and at its own layers, and compares answers, scores and
 * probabilities (within the rounding of machines, see `differenceOfLines`). The engine does it: to it this is a run that lacks
 * these lines.
 *
 * @throws {XpatchError} as `runExperiment`
 */
export async function askAgain(context: Context, run: CheckedRun, options: AskOptions): Promise<Check> {
  const { manifest, path } = run;
  const { signal, onProgress } = options;
  const kinds = new Map(manifest.options.conditions.map(({ name, kind }) => [name, kind]));
  const lines = run.lines as ResultLine[];
  // The majority answer does not come from a model.
  const asked = lines.filter(({ condition }) => kinds.get(condition) !== 'majority');
  const sample = new Random(options.seed, 'verify').sample(asked, Math.min(options.sample, asked.length));
  const expected = new Map(sample.map((line) => [keyOf(line), line]));

  const memory = memoryStore();
  await memory.append(lines.filter((line) => !expected.has(keyOf(line))));
  const store = {
    ...memory,
    loadVector: async (name: string) => (await memory.loadVector(name)) ?? loadRunVector(path, name),
  };
  await runExperiment(context, { ...manifest.options, tasks: run.tasks }, store, {
    foreignHash: manifest.vectorModel?.hash,
    ...(manifest.shard && { shard: manifest.shard }),
    ...(signal && { signal }),
    // For the whole run: what is known counts at once, so the sample, drawn evenly, moves it evenly.
    ...(onProgress && { onProgress }),
  });
  const problems: string[] = [];
  for await (const line of store.lines()) {
    const key = keyOf(line);
    const recorded = expected.get(key);
    if (recorded === undefined) continue;
    expected.delete(key);
    const difference = differenceOfLines(recorded, line);
    if (difference !== undefined) problems.push(`${key}: ${difference}`);
  }
  for (const key of expected.keys()) problems.push(`${key} is no longer asked`);
  return check(
    'answers',
    problems,
    `${counted(sample.length, 'query', 'queries')} asked again, seed ${options.seed}: same answers`,
  );
}
