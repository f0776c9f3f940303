/** A build that cannot go on: at which step, what the person at the keyboard can do, and whether compiling llama.cpp too could help. */
export class BuildError extends Error {
  name = 'BuildError';

  constructor(step, message, { hint, sourceMayHelp = false, cause } = {}) {
    super(message, { cause });
    this.step = step;
    this.hint = hint;
    this.sourceMayHelp = sourceMayHelp;
  }
}
