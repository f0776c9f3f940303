import { join } from 'node:path';
import { XpatchError } from '../util/errors.js';
import { readWhole } from '../util/read-file.js';
import { TaskVector } from '../vectors/task-vector.js';
import { differenceOfLines, differenceOfVectors } from './compare.js';
import { readLines } from './lines.js';
import { type Manifest, type RunRecord, requireManifest, requireSameRun } from './manifest.js';
import { hashVectors, requireComplete, vectorFile } from './run-files.js';
import { RunFolder } from './run-folder.js';
import type { Shard } from './shard.js';
import type { Plan, ResultLine } from './types.js';

interface ShardRun {
  readonly path: string;
  readonly manifest: RunRecord & { readonly shard: Shard };
}

/**
 * Merges the shards of an experiment into the run that one process would have made, line for line up to their order. The report
 * and `finish` are left to the caller. An interrupted merge resumes when started again.
 *
 * @param paths folders of the shards, each at least once, in any order
 * @param output folder of the whole run
 * @throws {XpatchError} RUN_INVALID if one is not a shard, not complete, changed since, or missing; RUN_MISMATCH if they are of different
 *   experiments, or answer a query differently; otherwise as `RunFolder.open`
 */
export async function mergeShards(paths: readonly string[], output: string, command: string): Promise<RunFolder> {
  const shards: ShardRun[] = [];
  for (const path of paths) shards.push(await openShard(path));
  const [first] = shards;
  if (first === undefined) throw new XpatchError('INVALID_ARGUMENT', 'There is nothing to merge: name the shards.');
  const { index, of } = first.manifest.shard;
  for (const { path, manifest } of shards) {
    requireSameRun({ ...manifest, shard: { ...manifest.shard, index } }, first.manifest, path);
  }
  requireAll(shards, of);
  const run = await RunFolder.open(output, mergeManifests(shards, first.manifest, command));
  if (run.complete) return run;
  try {
    for (const shard of shards) await copyVectors(shard, run);
    const lines = new Map<string, { line: ResultLine; path: string }>();
    for (const shard of shards) {
      const fresh: ResultLine[] = [];
      for await (const { line, key } of readLines(shard.path)) {
        const before = lines.get(key);
        const difference = before && differenceOfLines(before.line, line);
        if (difference !== undefined) {
          const { stage, condition, task, seed, item } = line;
          const where = `${before?.path} and ${shard.path} answer ${stage} query ${JSON.stringify(item)} (${condition}, ${task}, seed ${seed}) differently`;
          throw new XpatchError(
            'RUN_MISMATCH',
            `${where}: ${difference}. Run the shards on machines of one kind, or with fixed layers, so that they share no query.`,
          );
        }
        if (before !== undefined) continue;
        lines.set(key, { line, path: shard.path });
        fresh.push(line);
      }
      await run.append(fresh);
    }
    return run;
  } catch (error) {
    await run.close();
    throw error;
  }
}

async function openShard(path: string): Promise<ShardRun> {
  const manifest = await requireManifest(path);
  const { shard } = manifest;
  if (shard === undefined) {
    const problem = `${path} is a whole run, not a shard: there is nothing to merge it with.`;
    throw new XpatchError('RUN_INVALID', problem);
  }
  await requireComplete(path, manifest);
  return { path, manifest: { ...manifest, shard } };
}

function requireAll(shards: readonly ShardRun[], of: number): void {
  const there = new Set(shards.map(({ manifest }) => manifest.shard.index));
  const missing = Array.from({ length: of }, (_, i) => i + 1).filter((index) => !there.has(index));
  if (missing.length === 0) return;
  const named = missing.map((index) => `${index}/${of}`);
  const list = named.length > 10 ? `${named.slice(0, 10).join(', ')} and ${named.length - 10} more` : named.join(', ');
  throw new XpatchError('RUN_INVALID', `Shards are missing: ${list}. Run them, and name them too.`);
}

function mergeManifests(shards: readonly ShardRun[], first: RunRecord, command: string): Manifest {
  const {
    lines: _lines,
    results: _results,
    vectors: _vectors,
    finished: _finished,
    shard: _shard,
    layerFrom: _from,
    ...common
  } = first;
  return {
    ...common,
    // The shards of a validation make up the whole of it.
    ...(first.shard?.stage && { shard: { ...first.shard, index: 1, of: 1 } }),
    status: 'running',
    command,
    started: new Date().toISOString(),
    plan: mergePlans(shards),
    shards: shards.map(({ manifest: { shard, sessions } }) => ({ ...shard, sessions })),
  };
}

/** Validation is the same in every shard except in its own, test queries are in one each. */
function mergePlans(shards: readonly ShardRun[]): Plan['queries'] {
  const plans = new Map(shards.map(({ manifest }) => [manifest.shard.index, manifest.plan]));
  const counts = new Map<string, Plan['queries'][number]>();
  const divided = shards[0]?.manifest.shard.stage ?? 'test';
  for (const plan of plans.values()) {
    for (const { stage, condition, count } of plan ?? []) {
      const key = JSON.stringify([stage, condition]);
      const before = stage === divided ? (counts.get(key)?.count ?? 0) : 0;
      counts.set(key, { stage, condition, count: before + count });
    }
  }
  return [...counts.values()];
}

const VECTOR = { what: 'the vector', maxBytes: 1 << 30, code: 'VECTOR_INVALID' } as const;

/** Vectors of another run of the same experiment; those already here must be the same. @throws {XpatchError} RUN_MISMATCH */
export async function copyVectors({ path }: Pick<ShardRun, 'path'>, run: RunFolder): Promise<void> {
  for (const name of Object.keys(await hashVectors(path))) {
    const file = vectorFile(name);
    const bytes = await readWhole(join(path, file), VECTOR);
    const there = await readWhole(join(run.path, file), VECTOR).catch(() => undefined);
    if (there === undefined) await run.write(file, bytes);
    else if (!there.equals(bytes)) {
      const vectors = [await TaskVector.load(join(run.path, file)), await TaskVector.load(join(path, file))] as const;
      const difference = differenceOfVectors(...vectors);
      if (difference === undefined) continue;
      const message = `The vector ${name} of ${path} differs from that of another run (${difference})`;
      throw new XpatchError('RUN_MISMATCH', `${message}. Run them on machines of one kind.`);
    }
  }
}
