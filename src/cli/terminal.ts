import { XpatchError } from '../util/errors.js';
import { writeError } from '../util/files.js';
import { EXIT, shownError } from './errors.js';
import { Interrupted, type Io } from './io.js';
import { type Format, Output } from './output.js';
import { ProgressLine } from './progress.js';
import { quoted } from './quoted.js';

/** The exit code of Ctrl-C. */
const INTERRUPTED = 130;
const QUIET = { json: false, stack: false };

/** A section of help, with its heading. */
export interface HelpPart {
  readonly heading?: string;
  readonly text: string;
}

/** What a command gets besides its arguments: where it prints, what ends it, and how it ended. */
export class Terminal {
  readonly out: Output;
  readonly err: Output;
  /** The exit code if the command throws nothing. */
  exitCode = 0;
  private results: Output;
  private wayOn = '';
  private asked: AbortSignal | undefined;

  constructor(
    /** The arguments as they were given. */
    readonly args: readonly string[],
    readonly io: Io,
  ) {
    this.out = new Output(io.stdout, io.env);
    this.err = new Output(io.stderr, io.env);
    this.results = this.out;
  }

  /** Aborted by the first Ctrl-C, so that a command can end cleanly. */
  get signal(): AbortSignal {
    this.asked ??= this.io.signal;
    return this.asked;
  }

  /** Columns of the terminal that results are printed on; undefined for a file or pipe. */
  get width(): number | undefined {
    return this.results.columns;
  }

  /** Prints a result. */
  print(text: string): void {
    this.results.write(text);
  }

  /** Prints part of a result in a colour or weight, if the terminal has them. */
  paint(format: Format, text: string): void {
    this.results.paint(format, text);
  }

  /** Prints help, with its headings as headings. */
  printHelp(parts: readonly HelpPart[]): void {
    for (const [i, { heading, text }] of parts.entries()) {
      if (i > 0) this.print('\n');
      if (heading !== undefined) this.paint('bold', `${heading}:`);
      this.print(heading === undefined ? text : `\n${text}`);
    }
  }

  /** For a command whose file goes to stdout. */
  resultsToStderr(): void {
    this.results = this.err;
  }

  printJson(value: unknown): void {
    this.out.json(value);
  }

  /** Tells the user something that is not a result. */
  say(text: string): void {
    this.err.write(text);
  }

  /** A progress line on stderr, which stays empty with --json and --quiet. */
  progress({ json, quiet }: { json: boolean; quiet: boolean }): ProgressLine {
    return new ProgressLine(!json && !quiet, this.err);
  }

  /** What an interrupted command says after `Interrupted.`, such as how to resume. */
  explainInterrupt(text: string): void {
    this.wayOn = text;
  }

  /** The command line, quoted for a shell, for a manifest; without the user and password of a queue. */
  commandLine(args: readonly string[] = this.args): string {
    return ['xpatch', ...args.map(withoutPassword)].map(quoted).join(' ');
  }

  /**
   * Prints an error: one line on stderr, or with `json` an object on stdout.
   * @param options.stack print the stack too; an XpatchError explains itself without it
   * @returns the exit code
   */
  report(error: unknown, options: { json: boolean; stack: boolean }): number {
    const { code, message, known, stack } = shownError(
      this.interrupted === undefined ? error : this.interruption(error),
    );
    if (options.json && !this.out.failure) {
      this.printJson({ error: { code, message } });
    } else {
      this.err.paint('red', `xpatch: ${code}:`);
      this.say(` ${message}\n`);
      if (!known && !options.stack) this.say('This is a bug in xpatch; --verbose shows where it happened.\n');
    }
    if (options.stack && stack) this.say(`${stack}\n`);
    return code === 'INVALID_ARGUMENT' ? EXIT.usage : EXIT.failed;
  }

  /**
   * Ends the output. A reader such as `head` may leave early, which is fine; a result that did not fit on a full disk
   * is an error.
   * @returns the exit code
   */
  async close(code: number): Promise<number> {
    await this.out.close();
    const { failure } = this.out;
    const lost = failure !== undefined && failure.code !== 'EPIPE';
    const ended = lost && code === 0 ? this.report(writeError('the standard output', failure), QUIET) : code;
    await this.err.close();
    return this.interrupted ?? ended;
  }

  /** The exit code of an interrupted command, whatever else it ended with. */
  private get interrupted(): number | undefined {
    if (!this.asked?.aborted) return undefined;
    return this.asked.reason instanceof Interrupted ? this.asked.reason.exitCode : INTERRUPTED;
  }

  private interruption(cause: unknown): XpatchError {
    return new XpatchError('ABORTED', this.wayOn === '' ? 'Interrupted.' : `Interrupted. ${this.wayOn}`, { cause });
  }
}

/** Up to the last @, as a password may have one, and whether or not the URL is valid. */
const USER_OF_QUEUE = /^((?:--queue=)?rediss?:\/\/).*@/i;

function withoutPassword(argument: string): string {
  const bare = argument.replace(/[\p{Cc}\s]/gu, ''); // `URL` drops them too, even inside `redis:`
  return USER_OF_QUEUE.test(bare) ? bare.replace(USER_OF_QUEUE, '$1:PASSWORD@') : argument;
}
