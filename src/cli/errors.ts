import { XpatchError } from '../util/errors.js';

/** Exit codes of the command line; an interrupted command ends with 128 + the number of the signal. */
export const EXIT = { failed: 1, usage: 2 } as const;

/** Wrong arguments: exit code 2. */
export function usageError(message: string): XpatchError {
  return new XpatchError('INVALID_ARGUMENT', message);
}

/** An error as shown to the user. */
export function shownError(error: unknown) {
  const known = error instanceof XpatchError;
  return {
    /** Whether it is one of ours, which explains itself. */
    known,
    code: known ? error.code : 'UNEXPECTED',
    message: error instanceof Error ? error.message : String(error),
    stack: error instanceof Error ? stackOf(error) : undefined,
  };
}

function stackOf(error: Error): string {
  const cause = error.cause instanceof Error ? `\ncaused by ${stackOf(error.cause)}` : '';
  return `${error.stack}${cause}`;
}
