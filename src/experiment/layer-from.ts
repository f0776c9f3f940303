import { XpatchError } from '../util/errors.js';
import { readLines } from './lines.js';
import { readManifest, requireSameRun } from './manifest.js';
import { copyVectors } from './merge.js';
import { changedFiles } from './run-files.js';
import type { RunFolder } from './run-folder.js';
import type { ResultLine } from './types.js';

/**
 * Puts the validation answers of a complete run, and its vectors, into one of the same experiment: what is left to ask is the test,
 * at the layer that these answers choose.
 *
 * @param from folder of a run of the validation (a merged one, or the whole of it), or of a run that has one
 * @throws {XpatchError} RUN_INVALID when it is no such run, not complete, or changed since; RUN_MISMATCH when it is of another experiment
 */
export async function takeValidation(from: string, run: RunFolder): Promise<void> {
  const invalid = (problem: string) => new XpatchError('RUN_INVALID', `${from} ${problem}`);
  const manifest = await readManifest(from);
  if (manifest === undefined) throw invalid('is no run: it has no manifest.json. Name the run of the validation.');
  const { status, shard } = manifest;
  if (shard?.stage === 'validation' && shard.of > 1) {
    throw invalid('is a part of the validation. Merge all of its shards, and name the merged run.');
  }
  requireSameRun({ ...manifest, shard: run.manifest.shard }, run.manifest, from);
  if (status !== 'complete') throw invalid('is not complete. Start its command again; it goes on where it was.');
  const [changed] = await changedFiles(from, manifest);
  if (changed !== undefined) throw invalid(`is not what it was when it was complete: see ${changed}. Make it again.`);
  await copyVectors({ path: from }, run);
  const lines: ResultLine[] = [];
  for await (const { line } of readLines(from)) if (line.stage === 'validation') lines.push(line);
  await run.append(lines);
}
