import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import { parse } from 'csv-parse';
import { XpatchError } from './errors.js';
import { kindOf } from './read-file.js';

/** One entry of a file of records, and the line that it begins at, from 1. */
export interface FileRecord {
  readonly line: number;
  readonly fields: Readonly<Record<string, unknown>>;
}

const MAX_RECORD_BYTES = 1 << 24;

/**
 * Reads the records of a file one by one, whatever its size: objects of JSON Lines (`.jsonl`, `.ndjson`), rows of a table with a line of
 * names (`.csv`, `.tsv`), or the lines of a text, each as the field `prompt`. Empty lines count for none.
 *
 * @throws {XpatchError} FILE_NOT_FOUND; DATA_INVALID with the line of what is damaged
 */
export async function* readRecords(path: string): AsyncGenerator<FileRecord> {
  await requireReadable(path);
  const ending = /\.(\w+)$/.exec(path)?.[1]?.toLowerCase();
  if (ending === 'csv' || ending === 'tsv') yield* readTable(path, ending === 'csv' ? ',' : '\t');
  else yield* readLines(path, ending === 'jsonl' || ending === 'ndjson');
}

async function requireReadable(path: string): Promise<void> {
  const info = await stat(path).catch((cause: Error) => {
    throw new XpatchError('FILE_NOT_FOUND', `${path} cannot be read: ${cause.message}`, { cause });
  });
  if (info.isFile() || info.isFIFO()) return;
  throw new XpatchError('FILE_NOT_FOUND', `${path} is ${kindOf(info)}, not a file of records. Name a file.`);
}

async function* readLines(path: string, json: boolean): AsyncGenerator<FileRecord> {
  const input = createReadStream(path);
  const lines = createInterface({ input, crlfDelay: Number.POSITIVE_INFINITY });
  let line = 0;
  try {
    for await (const text of lines) {
      line++;
      const whole = line === 1 ? text.replace(/^\uFEFF/, '') : text;
      if (whole.length > MAX_RECORD_BYTES) throw invalid(path, line, 'is longer than 16 MB');
      if (whole.trim() === '') continue;
      yield { line, fields: json ? jsonFields(path, line, whole) : { prompt: whole } };
    }
  } catch (error) {
    throw readFailure(path, error);
  } finally {
    lines.close();
    input.destroy();
  }
}

function jsonFields(path: string, line: number, text: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw invalid(path, line, `is not JSON (${(cause as Error).message})`, cause);
  }
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  throw invalid(path, line, 'is not a JSON object such as {"prompt": "…"}');
}

async function* readTable(path: string, delimiter: string): AsyncGenerator<FileRecord> {
  const input = createReadStream(path);
  const options = {
    bom: true,
    columns: true,
    delimiter,
    info: true,
    skip_empty_lines: true,
    max_record_size: MAX_RECORD_BYTES,
  };
  const table = input.pipe(parse(options));
  input.on('error', (error) => table.destroy(error));
  try {
    for await (const { record, info } of table as AsyncIterable<{
      record: Record<string, string>;
      info: { lines: number };
    }>) {
      yield { line: info.lines, fields: record };
    }
  } catch (error) {
    throw readFailure(path, error);
  } finally {
    input.destroy();
  }
}

function invalid(path: string, line: number, problem: string, cause?: unknown): XpatchError {
  return new XpatchError('DATA_INVALID', `${path}: line ${line} ${problem}. Correct the line.`, { cause });
}

function readFailure(path: string, error: unknown): unknown {
  if (error instanceof XpatchError) return error;
  const { code = '', message, lines } = error as Error & { code?: string; lines?: number };
  if (code.startsWith('CSV_')) return invalid(path, lines ?? 1, `is not a row of the table (${message})`, error);
  return new XpatchError('FILE_NOT_FOUND', `${path} cannot be read: ${message}`, { cause: error });
}
