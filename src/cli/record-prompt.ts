import { dirname, resolve } from 'node:path';
import type { OnProgress } from '../model/types.js';
import type { PromptPart } from '../prompt/types.js';
import { XpatchError } from '../util/errors.js';
import type { FileRecord } from '../util/records.js';
import { requireNotAborted } from './common.js';

/** What stands for a text of its own: of anything else, `String` makes a text that nobody wrote. */
const isPlain = (value: unknown): boolean => ['string', 'number', 'boolean'].includes(typeof value);

/**
 * The texts of a field: a list, or a text with parts separated by `|`. An empty cell of a CSV file is an empty list, and so is a field
 * that is missing or null.
 *
 * @throws XpatchError DATA_INVALID for anything else, such as objects
 */
export function listOf(file: string, record: FileRecord, name: string): string[] {
  const value = Object.hasOwn(record.fields, name) ? record.fields[name] : undefined;
  if (value === undefined || value === null || value === '') return [];
  if (typeof value === 'string') return value.split('|');
  const list = [value].flat();
  if (list.every(isPlain)) return list.map(String);
  throw invalidRecord(file, record, `has a field ${name} that is neither a text nor a list of texts`);
}

export function invalidRecord(file: string, { line }: FileRecord, problem: string): XpatchError {
  return new XpatchError('DATA_INVALID', `${file}: line ${line} ${problem}. See docs/cli.md for the fields of a line.`);
}

/**
 * The prompt of a line: its field `prompt`, or the template with the line's fields in it, as literal texts. Each `<image>` stands for
 * the next picture of the field `image`, whose path is relative to the file; `<mark:NAME>` in a template marks a position.
 *
 * @param options.literal whether the prompt's own control tokens are text too. Defaults to false
 * @throws XpatchError DATA_INVALID.
 */
export function recordPrompt(
  file: string,
  record: FileRecord,
  { template, literal = false }: { template?: string | undefined; literal?: boolean } = {},
): PromptPart[] {
  const { fields } = record;
  const pattern = template ?? fields.prompt;
  if (typeof pattern !== 'string') throw invalidRecord(file, record, 'has no text named prompt');
  const pictures = listOf(file, record, 'image');
  let used = 0;
  const parts = pattern.split(/(<image>|<mark:\w+>|\{\w+\})/).flatMap((piece): PromptPart[] => {
    if (piece === '') return [];
    if (piece === '<image>') return [{ image: resolve(dirname(file), pictures[used++] ?? '') }];
    const [, mark, name = ''] = (template === undefined ? null : /^(?:<mark:(\w+)>|\{(\w+)\})$/.exec(piece)) ?? [];
    if (mark !== undefined) return [{ mark }];
    if (name === '') return [literal ? { literal: piece } : piece];
    if (!Object.hasOwn(fields, name))
      throw invalidRecord(file, record, `has no field ${name}, which the template uses`);
    if (!isPlain(fields[name])) throw invalidRecord(file, record, `has a field ${name} that is no text or number`);
    return [{ literal: String(fields[name]) }];
  });
  if (used !== pictures.length) {
    throw invalidRecord(file, record, `has ${used} <image> and ${pictures.length} pictures`);
  }
  return parts;
}

/** Whether a template has a place for anything of a line: without one, all prompts would be the same. */
export const takesFields = (template: string): boolean => /\{\w+\}|<image>/.test(template);

/** Work on one record of many, whose errors say which one it is. */
export async function inRecord<T>(
  file: string,
  { line }: Pick<FileRecord, 'line'>,
  work: () => Promise<T>,
): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof XpatchError) || error.code === 'ABORTED') throw error;
    throw new XpatchError(error.code, `${file}: line ${line}: ${error.message}`, { cause: error });
  }
}

/** Reads the pictures of all records, so that one that is missing or broken costs no work on those before it. */
export async function requirePictures(
  file: string,
  records: readonly (Pick<FileRecord, 'line'> & { readonly parts: readonly PromptPart[] })[],
  { signal, onProgress }: { signal: AbortSignal; onProgress: OnProgress },
): Promise<void> {
  const read = new Set<unknown>();
  const { readImage } = await import('../images/image.js');
  for (const [done, record] of records.entries()) {
    for (const part of record.parts) {
      if (typeof part === 'string' || !('image' in part) || read.has(part.image)) continue;
      requireNotAborted(signal);
      onProgress({ done, total: records.length });
      await inRecord(file, record, () => readImage(part.image));
      read.add(part.image);
    }
  }
}
