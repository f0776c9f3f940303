import type { Readable, Writable } from 'node:stream';

/** What a command line is given of the world around it. */
export interface Io {
  readonly stdin: Readable & { readonly isTTY?: boolean };
  readonly stdout: OutputStream;
  readonly stderr: OutputStream;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Aborted when the user gives up. Until a command asks for it, Ctrl-C does what the system does by default. */
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

/** That of this process: the first Ctrl-C (or SIGTERM) aborts the signal, the second one ends the process. */
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
      controller ??= listen(exit);
      return controller.signal;
    },
  };
}

function listen(exit: Io['exit']): AbortController {
  const controller = new AbortController();
  for (const [name, code] of Object.entries(SIGNALS)) {
    process.on(name, () => {
      if (controller.signal.aborted) exit(code);
      controller.abort(new Interrupted(name, code));
    });
  }
  return controller;
}
