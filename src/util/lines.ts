import { XpatchError } from './errors.js';

/** A line, with what is needed to name it and to cut it off. */
export interface RawLine {
  readonly bytes: Buffer;
  /** Counted from 1. */
  readonly number: number;
  /** Of its first byte. */
  readonly offset: number;
  /** Whether a line break ends it: the last line of a process that was killed has none. */
  readonly ended: boolean;
}

const NEWLINE = 0x0a;

/**
 * Splits bytes only at line feeds: what else a reader may take for the end of a line, such as U+2028, also occurs in JSON texts.
 *
 * @param maxBytes of a line; what is longer is handed out as far as it was read, and is the last
 */
export async function* splitLines(
  chunks: AsyncIterable<Buffer>,
  maxBytes = Number.MAX_SAFE_INTEGER,
): AsyncGenerator<RawLine> {
  let rest: Buffer[] = [];
  let [held, offset, number] = [0, 0, 1];
  const line = (tail: Buffer, ended: boolean): RawLine => {
    const bytes = rest.length > 0 ? Buffer.concat([...rest, tail]) : tail;
    const made = { bytes, number, offset, ended };
    [rest, held] = [[], 0];
    number += 1;
    offset += bytes.length + 1;
    return made;
  };
  for await (const chunk of chunks) {
    let start = 0;
    for (let end = chunk.indexOf(NEWLINE); end >= 0; end = chunk.indexOf(NEWLINE, start)) {
      yield line(chunk.subarray(start, end), true);
      start = end + 1;
    }
    if (start === chunk.length) continue;
    rest.push(chunk.subarray(start));
    held += chunk.length - start;
    if (held > maxBytes) break;
  }
  if (rest.length > 0) yield line(Buffer.alloc(0), false);
}

/**
 * Text from a file: UTF-8, without the byte order mark that some editors write.
 *
 * @throws {Error} saying what is wrong
 */
export function decodeText(bytes: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new Error('is not a text in UTF-8', { cause });
  }
}

/** The same for what the user named. @param from where the bytes are from @throws {XpatchError} INVALID_ARGUMENT */
export function requireText(bytes: Uint8Array, from: string): string {
  try {
    return decodeText(bytes);
  } catch (cause) {
    const problem = `${from} ${(cause as Error).message}`;
    throw new XpatchError('INVALID_ARGUMENT', `${problem}. Convert it, or name another file.`, { cause });
  }
}
