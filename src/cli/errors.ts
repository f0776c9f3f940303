import { XpatchError } from '../util/errors.js';
import { printable } from '../util/printable.js';

/** Exit codes of the command line; an interrupted command ends with 128 + the number of the signal. */
export const EXIT = { failed: 1, usage: 2 } as const;

/** Wrong arguments: exit code 2. */
export function usageError(message: string): XpatchError {
  return new XpatchError('INVALID_ARGUMENT', message);
}

/**
 * Prints an error: one line on stderr, or with `json` an object on stdout.
 * @param options.stack print the stack too; an XpatchError explains itself without
 * @returns the exit code
 */
export function reportError(error: unknown, options: { json: boolean; stack: boolean }): number {
  const known = error instanceof XpatchError;
  const code = known ? error.code : 'UNEXPECTED';
  const message = error instanceof Error ? error.message : String(error);
  if (options.json) {
    process.stdout.write(`${JSON.stringify({ error: { code, message } })}\n`);
  } else {
    process.stderr.write(`xpatch: ${code}: ${shown(message)}\n`);
    if (!known && !options.stack) process.stderr.write('This is a bug of xpatch; --verbose shows where it happened.\n');
  }
  if (options.stack && error instanceof Error) process.stderr.write(`${shown(stackOf(error))}\n`);
  return code === 'INVALID_ARGUMENT' ? EXIT.usage : EXIT.failed;
}

/** Names and texts in it may be anybody's. */
function shown(text: string): string {
  return text.split('\n').map(printable).join('\n');
}

function stackOf(error: Error): string {
  const cause = error.cause instanceof Error ? `\ncaused by ${stackOf(error.cause)}` : '';
  return `${error.stack}${cause}`;
}
