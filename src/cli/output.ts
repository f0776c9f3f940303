import { styleText } from 'node:util';
import { printableText } from '../util/printable.js';
import type { Io, OutputStream } from './io.js';

export type Format = 'bold' | 'red' | 'green' | 'yellow';

/**
 * The only way to a stream of the terminal. Texts may come from anywhere: a model's name, a token, a file's path. So everything
 * written becomes printable here, and only `control` sends control codes.
 */
export class Output {
  private broken: NodeJS.ErrnoException | undefined;
  private readonly onError = (error: NodeJS.ErrnoException) => {
    this.broken ??= error;
  };

  /** Whether colours are wanted: on a terminal, unless `NO_COLOR` or `FORCE_COLOR` says otherwise. */
  readonly colours: boolean;

  constructor(
    readonly stream: OutputStream,
    env: Io['env'] = {},
  ) {
    stream.on('error', this.onError);
    this.colours = wantsColours(this.isTTY, env);
  }

  get isTTY(): boolean {
    return this.stream.isTTY === true;
  }

  get columns(): number | undefined {
    return this.stream.columns;
  }

  /** What went wrong with the stream. Nothing more is written to it, while the command finishes its work. */
  get failure(): NodeJS.ErrnoException | undefined {
    return this.broken;
  }

  /** Line breaks and tabs stay; everything else that is invisible is escaped. */
  write(text: string): void {
    this.send(printableText(text));
  }

  /** The same in a colour or weight, if colours are wanted. */
  paint(format: Format, text: string): void {
    const shown = printableText(text);
    this.send(this.colours ? styleText(format, shown, { validateStream: false }) : shown);
  }

  /** An object on one line: the same value for a program, whatever terminal it passes through. */
  json(value: unknown): void {
    this.send(`${escapeJson(JSON.stringify(value))}\n`);
  }

  /** A whole file, unchanged: for a program that reads the output, never for a terminal. */
  async file(content: AsyncIterable<Buffer>): Promise<void> {
    for await (const chunk of content) {
      if (this.broken) return;
      await new Promise<void>((resolve) => this.stream.write(chunk, () => resolve()));
    }
  }

  /** Our own codes, such as those that rewrite a line. */
  control(code: string): void {
    this.send(code);
  }

  /** Waits until everything is written, and releases the stream. */
  async close(): Promise<void> {
    if (!this.broken) {
      await new Promise<void>((resolve) => {
        this.stream.write('', () => resolve());
        this.stream.once('error', () => resolve());
      });
    }
    // A stream may report an error after it has taken the last write.
    await new Promise((resolve) => setImmediate(resolve));
  }

  private send(text: string): void {
    if (text !== '' && !this.broken) this.stream.write(text);
  }
}

/** https://no-color.org and https://force-color.org; a terminal that calls itself dumb has none. */
function wantsColours(isTTY: boolean, { NO_COLOR, FORCE_COLOR, TERM }: Io['env']): boolean {
  if (NO_COLOR) return false;
  if (FORCE_COLOR) return FORCE_COLOR !== '0' && FORCE_COLOR !== 'false';
  return isTTY && TERM !== 'dumb';
}

/** JSON.stringify leaves some control and format characters as they are. */
function escapeJson(json: string): string {
  return json.replace(/(?!\n)[\p{C}\p{Zl}\p{Zp}]/gu, (character) =>
    Array.from({ length: character.length }, (_, i) => character.charCodeAt(i))
      .map((unit) => `\\u${unit.toString(16).padStart(4, '0')}`)
      .join(''),
  );
}
