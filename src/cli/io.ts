import type { Readable, Writable } from 'node:stream';

/** What a command line gets from the world around it. */
export interface Io {
  readonly stdin: Readable & { readonly isTTY?: boolean };
  readonly stdout: OutputStream;
  readonly stderr: OutputStream;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Aborted when the user gives up. Until a command asks for it, Ctrl-C has its default effect. */
  readonly signal: AbortSignal;
  /** Ends everything at once, for a device that does not stop. */
  exit(code: number): never;
}

export type OutputStream = Writable & { readonly isTTY?: boolean; readonly columns?: number };

const SIGNALS = { SIGINT: 130, SIGTERM: 143 } as const;

/** The reason of an aborted `Io.signal`. */
export class Interrupted extends Error {
  constructor(
    name: string,
    /** 128 + the number of the signal. */
    readonly exitCode: number,
  ) {
    super(`interrupted by ${name}`);
  }
}

/** How long a command may take to end cleanly. */
const GRACE_MS = 8000;

/**
 * That of this process: the first Ctrl-C (or SIGTERM) aborts the signal; the second ends the process, and so does a timer if
 * the work in progress takes no notice, such as a picture that is being encoded.
 */
export function processIo(): Io {
  let controller: AbortController | undefined;
  const { stdin, stdout, stderr, env } = process;
  const exit = (code: number): never => process.exit(code);
  return {
    stdin,
    stdout,
    stderr,
    env,
    exit,
    get signal() {
      controller ??= listen();
      return controller.signal;
    },
  };
}

function listen(): AbortController {
  const controller = new AbortController();
  for (const name of ['SIGINT', 'SIGTERM'] as const) {
    process.on(name, () => {
      if (controller.signal.aborted) endNow(name);
      setTimeout(() => endNow(name), GRACE_MS).unref();
      controller.abort(new Interrupted(name, SIGNALS[name]));
    });
  }
  return controller;
}

/** By the signal itself: `process.exit` would wait for the threads of native code. */
function endNow(name: keyof typeof SIGNALS): void {
  process.emit('exit', SIGNALS[name]); // ends the child processes
  process.removeAllListeners(name);
  process.kill(process.pid, name);
}
