import { XpatchError } from '../util/errors.js';
import { readLines } from './lines.js';
import { readManifest, requireSameRun } from './manifest.js';
import { copyVectors } from './merge.js';
import { changedFiles } from './run-files.js';
import type { RunFolder } from './run-folder.js';
import type { ResultLine } from './types.js';

/**
 * Copies the validation answers of a complete run, and its vectors, into one of the same experiment: what is left to ask is the test,
 * at the layer that these answers choose.
 *
 * @param from folder of a validation run (merged or whole), or of a run that includes one
 * @throws {XpatchError} RUN_INVALID if it is not such a run, not complete, or changed since; RUN_MISMATCH if it is of another experiment
 */
export async function takeValidation(from: string, run: RunFolder): Promise<void> {
  const invalid = (problem: string) => new XpatchError('RUN_INVALID', `${from} ${problem}`);
  const manifest = await readManifest(from);
  if (manifest === undefined) throw invalid('is not a run: it has no manifest.json. Name the validation run.');
  const { status, shard } = manifest;
  if (shard?.stage === 'validation' && shard.of > 1) {
    throw invalid('is a part of the validation. Merge all of its shards, and name the merged run.');
  }
  requireSameRun({ ...manifest, shard: run.manifest.shard }, run.manifest, from);
  if (status !== 'complete') throw invalid('is not complete. Start its command again to resume it.');
  const [changed] = await changedFiles(from, manifest);
  if (changed !== undefined) throw invalid(`was changed after it was complete: see ${changed}. Make it again.`);
  await copyVectors({ path: from }, run);
  const lines: ResultLine[] = [];
  for await (const { line } of readLines(from)) if (line.stage === 'validation') lines.push(line);
  await run.append(lines);
}
