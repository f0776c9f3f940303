const SIGNALS = { SIGINT: 130, SIGTERM: 143 } as const;

let controller: AbortController | undefined;
let exitCode: number | undefined;
let wayOn = '';

/**
 * A signal that the first Ctrl-C (or SIGTERM) aborts, so that a command can end cleanly; the second one ends the process
 * at once. Until a command asks for it, Ctrl-C does what the system does by default.
 */
export function interruptSignal(): AbortSignal {
  if (!controller) {
    const own = new AbortController();
    controller = own;
    for (const [name, code] of Object.entries(SIGNALS)) {
      process.on(name, () => {
        if (own.signal.aborted) process.exit(code);
        exitCode = code;
        own.abort(new Error(`interrupted by ${name}`));
      });
    }
  }
  return controller.signal;
}

/** The exit code of an interrupted command, undefined when nothing interrupted it. */
export function interruptCode(): number | undefined {
  return exitCode;
}

/** What an interrupted command says after `Interrupted.`, such as how to go on. */
export function explainInterrupt(text: string): void {
  wayOn = text;
}

export function interruptMessage(): string {
  return wayOn === '' ? 'Interrupted.' : `Interrupted. ${wayOn}`;
}
