import { Readable } from 'node:stream';
import { counted } from './counted.js';
import { XpatchError } from './errors.js';
import { isRecord, parseJson } from './json.js';
import { decodeText, splitLines } from './lines.js';
import { readChunks } from './read-file.js';

/** One entry of a file of records, and its line, from 1; for one with line breaks in it, the first one. */
export interface FileRecord {
  readonly line: number;
  readonly fields: Readonly<Record<string, unknown>>;
}

const MAX_LINE_BYTES = 1 << 24;
/** Rows are read character by character. */
const MAX_ROW_BYTES = 1 << 20;

/** How the records of a file are written, as its name says; undefined for lines of text. */
export function recordFormat(path: string): 'jsonl' | 'csv' | 'tsv' | undefined {
  const ending = /\.(jsonl|ndjson|csv|tsv)$/i.exec(path)?.[1]?.toLowerCase();
  return ending === 'ndjson' ? 'jsonl' : (ending as 'jsonl' | 'csv' | 'tsv' | undefined);
}

/**
 * Reads the records of a file one by one, whatever its size: objects of JSON Lines (`.jsonl`, `.ndjson`), rows of a table with a line of
 * names (`.csv`, `.tsv`), or the lines of a text, each as the field `prompt`. Empty lines do not count. JSON is refused: its lines would be
 * taken for texts.
 *
 * @param options.pipe whether a pipe is allowed: not if the records are read twice. Defaults to true
 * @throws {XpatchError} FILE_NOT_FOUND; DATA_INVALID with the line of the damage; ABORTED
 */
export async function* readRecords(
  path: string,
  { pipe = true, signal }: { pipe?: boolean; signal?: AbortSignal } = {},
): AsyncGenerator<FileRecord> {
  if (/\.json$/i.test(path)) {
    const wayOut = `Write one object a line into a file named .jsonl, such as with jq -c '.[]'`;
    throw new XpatchError('DATA_INVALID', `${path} is JSON, which is not read line by line. ${wayOut}.`);
  }
  const kind = { what: 'the file of records', maxBytes: Number.MAX_SAFE_INTEGER, pipe };
  const chunks = readChunks(path, kind, signal);
  const format = recordFormat(path);
  if (format === 'csv' || format === 'tsv') yield* readTable(path, chunks, format === 'csv' ? ',' : '\t');
  else yield* readLines(path, chunks, format === 'jsonl');
}

async function* readLines(path: string, chunks: AsyncIterable<Buffer>, json: boolean): AsyncGenerator<FileRecord> {
  for await (const { bytes, number } of splitLines(chunks, MAX_LINE_BYTES)) {
    if (bytes.length > MAX_LINE_BYTES) throw invalid(path, number, 'is longer than 16 MB');
    const text = inLine(path, number, () => decodeText(bytes)).replace(/\r$/, '');
    if (text.trim() === '') continue;
    yield { line: number, fields: json ? inLine(path, number, () => fieldsOf(bytes)) : { prompt: text } };
  }
}

function fieldsOf(bytes: Buffer): Record<string, unknown> {
  const value = parseJson(bytes);
  if (isRecord(value)) return value;
  throw new Error('is not a JSON object such as {"prompt": "…"}');
}

/** The value, or what is wrong with its line. */
function inLine<T>(path: string, line: number, read: () => T): T {
  try {
    return read();
  } catch (cause) {
    throw invalid(path, line, (cause as Error).message, cause);
  }
}

async function* readTable(path: string, chunks: AsyncIterable<Buffer>, delimiter: string): AsyncGenerator<FileRecord> {
  const { parse } = await import('csv-parse'); // few commands need it
  const table = parse({
    delimiter,
    // Named, as the parser would take the end of the first line for that of all: editors and scripts mix them.
    record_delimiter: ['\r\n', '\n', '\r'],
    info: true,
    skip_empty_lines: true,
    max_record_size: MAX_ROW_BYTES,
    relax_column_count: true,
  });
  const texts = Readable.from(decoded(path, chunks));
  texts.on('error', (error) => table.destroy(error)).pipe(table);
  try {
    let names: string[] | undefined;
    // Counted here: the parser says where a row ends, and takes \r\n in a cell for two lines.
    let read = 0;
    for await (const { record: cells, info } of table as AsyncIterable<{
      record: string[];
      info: { empty_lines: number };
    }>) {
      const line = read + info.empty_lines + 1;
      read += cells.join('').split('\n').length;
      if (names === undefined) {
        names = uniqueNames(path, line, cells);
        continue;
      }
      if (cells.length !== names.length) {
        throw invalid(path, line, `has ${counted(cells.length, 'cell')}, the line of names ${names.length}`);
      }
      yield { line, fields: Object.fromEntries(names.map((name, i) => [name, cells[i]])) };
    }
  } catch (error) {
    throw readFailure(path, error);
  } finally {
    texts.destroy();
  }
}

/** Of two columns with the same name, the first would be silently lost. */
function uniqueNames(path: string, line: number, names: string[]): string[] {
  const twice = names.find((name, i) => names.indexOf(name) < i);
  if (twice !== undefined) throw invalid(path, line, `names two columns ${JSON.stringify(twice)}`);
  return names;
}

async function* decoded(path: string, chunks: AsyncIterable<Buffer>): AsyncGenerator<string> {
  const decoder = new TextDecoder('utf-8', { fatal: true });
  let line = 1;
  const decode = (chunk?: Buffer) => {
    try {
      return decoder.decode(chunk, { stream: chunk !== undefined });
    } catch (cause) {
      throw invalid(path, line, 'or one soon after it is not a text in UTF-8', cause);
    }
  };
  for await (const chunk of chunks) {
    const text = decode(chunk);
    line += text.split('\n').length - 1;
    yield text;
  }
  decode();
}

function invalid(path: string, line: number, problem: string, cause?: unknown): XpatchError {
  return new XpatchError('DATA_INVALID', `${path}: line ${line} ${problem}. Correct the line.`, { cause });
}

function readFailure(path: string, error: unknown): unknown {
  if (error instanceof XpatchError) return error;
  const { code = '', message, lines } = error as Error & { code?: string; lines?: number };
  if (code.startsWith('CSV_')) return invalid(path, lines ?? 1, `is not a row of the table (${message})`, error);
  return error;
}
