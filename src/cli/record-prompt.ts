import { dirname, resolve } from 'node:path';
import type { PromptPart } from '../prompt/types.js';
import { XpatchError } from '../util/errors.js';
import type { FileRecord } from '../util/records.js';

/** A list, or a text with parts separated by `|`; an empty cell of a CSV file is an empty list. */
export function listOf(value: unknown): string[] | undefined {
  if (Array.isArray(value)) return value.map(String);
  if (value === '') return [];
  return typeof value === 'string' ? value.split('|') : undefined;
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
  const pictures = listOf(fields.image) ?? [];
  let used = 0;
  const parts = pattern.split(/(<image>|<mark:\w+>|\{\w+\})/).flatMap((piece): PromptPart[] => {
    if (piece === '') return [];
    if (piece === '<image>') return [{ image: resolve(dirname(file), pictures[used++] ?? '') }];
    const [, mark, name = ''] = (template === undefined ? null : /^(?:<mark:(\w+)>|\{(\w+)\})$/.exec(piece)) ?? [];
    if (mark !== undefined) return [{ mark }];
    if (name === '') return [literal ? { literal: piece } : piece];
    if (!Object.hasOwn(fields, name))
      throw invalidRecord(file, record, `has no field ${name}, which the template uses`);
    return [{ literal: String(fields[name]) }];
  });
  if (used !== pictures.length) {
    throw invalidRecord(file, record, `has ${used} <image> and ${pictures.length} pictures`);
  }
  return parts;
}

/** Work on one record of many, whose errors say which one it is. */
export async function inRecord<T>(file: string, { line }: FileRecord, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof XpatchError) || error.code === 'ABORTED') throw error;
    throw new XpatchError(error.code, `${file}: line ${line}: ${error.message}`, { cause: error });
  }
}
