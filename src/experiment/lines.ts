import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { XpatchError } from '../util/errors.js';
import { isShallow } from '../util/json.js';
import type { RawLine } from '../util/lines.js';
import { rawLines } from './result-file.js';
import { RESULTS_FILE } from './run-files.js';
import { keyOf, type ResultLine, type RunLine } from './types.js';

/** A line as in the file. */
interface StoredLine<Line extends RunLine = ResultLine> {
  readonly line: Line;
  readonly key: string;
  /** Counted from 1. */
  readonly number: number;
}

/** What else was found, complete once the last line has been read. */
export interface Findings {
  /** Bytes of the complete lines. */
  size: number;
  /** Bytes after them: a line that was being written when its process was killed. */
  torn: number;
  /** Lines that appear earlier in the file, byte by byte. */
  repeated: number;
}

export const noFindings = (): Findings => ({ size: 0, torn: 0, repeated: 0 });

/**
 * The lines of a run. A torn last line is skipped and reported in `findings`; a line that appears twice, byte by byte, is
 * given once.
 *
 * @throws {XpatchError} RUN_INVALID, naming the line, for a broken one before the last, and for one query with two answers
 */
export async function* readLines<Line extends RunLine = ResultLine>(
  folder: string,
  findings = noFindings(),
): AsyncGenerator<StoredLine<Line>> {
  const path = join(folder, RESULTS_FILE);
  const seen = new Map<string, { number: number; hash: string }>();
  let broken: { raw: RawLine; problem: string } | undefined;
  for await (const raw of rawLines(path)) {
    if (broken) {
      const { number } = broken.raw;
      throw new XpatchError(
        'RUN_INVALID',
        `Line ${number} of ${path} ${broken.problem}, but is not the last. Cut the file before line ${number} and start the run again: what is missing is asked again.`,
      );
    }
    const parsed = raw.ended ? parseLine(raw.bytes) : 'is torn';
    if (typeof parsed === 'string') {
      broken = { raw, problem: parsed };
      findings.torn = raw.bytes.length + (raw.ended ? 1 : 0);
      continue;
    }
    findings.size = raw.offset + raw.bytes.length + 1;
    const key = keyOf(parsed);
    const before = seen.get(key);
    const hash = createHash('sha256').update(raw.bytes).digest('base64');
    if (before === undefined) {
      seen.set(key, { number: raw.number, hash });
      yield { line: parsed as Line, key, number: raw.number };
    } else if (before.hash === hash) {
      findings.repeated += 1;
    } else {
      throw new XpatchError(
        'RUN_INVALID',
        `Lines ${before.number} and ${raw.number} of ${path} answer the same query differently. Two runs were mixed: remove the later one.`,
      );
    }
  }
}

/** The line, or what is wrong with it. */
function parseLine(bytes: Buffer): RunLine | string {
  let value: (Partial<ResultLine> & { unit?: unknown }) | null;
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch {
    return 'is not JSON in UTF-8';
  }
  if (typeof value !== 'object' || value === null) return 'is not an object';
  if (!isShallow(value)) return 'is nested too deeply';
  if (typeof value.unit === 'string') return value as RunLine;
  const { stage, seed, layer, lenient } = value;
  if (stage !== 'validation' && stage !== 'test') return 'has no stage';
  for (const field of ['condition', 'task', 'item', 'domain', 'expected', 'answer', 'firstToken'] as const) {
    if (typeof value[field] !== 'string') return `has no ${field}`;
  }
  if (!Number.isSafeInteger(seed)) return 'has no seed';
  if (layer !== undefined && !Number.isSafeInteger(layer)) return 'has a layer that is not a number';
  if (typeof lenient !== 'boolean') return 'has no lenient score';
  return value as ResultLine;
}
