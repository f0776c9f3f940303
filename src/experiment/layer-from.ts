import { XpatchError } from '../util/errors.js';
import { readLines } from './lines.js';
import { requireManifest, requireSameRun } from './manifest.js';
import { copyVectors } from './merge.js';
import { requireComplete } from './run-files.js';
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
  const manifest = await requireManifest(from);
  const { shard } = manifest;
  if (shard?.stage === 'validation' && shard.of > 1) {
    const problem = `${from} is a part of the validation. Merge all of its shards, and name the merged run.`;
    throw new XpatchError('RUN_INVALID', problem);
  }
  requireSameRun({ ...manifest, shard: run.manifest.shard }, run.manifest, from);
  await requireComplete(from, manifest);
  await copyVectors({ path: from }, run);
  const lines: ResultLine[] = [];
  for await (const { line } of readLines(from)) if (line.stage === 'validation') lines.push(line);
  await run.append(lines);
}
