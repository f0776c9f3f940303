import { createInterface, type Interface } from 'node:readline';
import { Transform } from 'node:stream';
import { StringDecoder } from 'node:string_decoder';
import type { Terminal } from './terminal.js';

const PROMPT = '> ';
const MORE = '. ';

// Newer versions of Node.js also end a line at Unicode's line and paragraph separators. Here they are part of a message:
// noncharacters, which no text contains, carry them past the reader.
const SEPARATORS = '\u2028\u2029';
const HIDDEN = '\uFDD5\uFDD6';

function hideSeparators(): Transform {
  const decoder = new StringDecoder('utf8');
  const hide = (text: string) => text.replace(/[\u2028\u2029]/g, (c) => HIDDEN[SEPARATORS.indexOf(c)] as string);
  return new Transform({
    transform: (chunk, _, done) => done(null, hide(decoder.write(chunk))),
    flush: (done) => done(null, hide(decoder.end())),
  });
}

const showSeparators = (text: string): string =>
  text.replace(/[\uFDD5\uFDD6]/g, (c) => SEPARATORS[HIDDEN.indexOf(c)] as string);

/**
 * What is typed, or comes through a pipe: one message per line; a `\` at the end of a line continues it on the next one.
 * On a terminal, lines can be edited and the arrow keys recall those of this chat; they are not kept between chats.
 */
export class ChatInput {
  private readonly reader: Interface;
  private readonly lines: string[] = [];
  private waiting: ((line: string | undefined) => void) | undefined;
  private closed = false;
  /** Ctrl-C was the last key at the prompt. */
  private warned = false;
  private answer: AbortController | undefined;

  constructor(
    private readonly terminal: Terminal,
    /** Whether somebody is typing. */
    private readonly typed: boolean,
  ) {
    const { stdin: input, stdout } = terminal.io;
    const output = typed ? stdout : undefined;
    this.reader = createInterface({
      input: typed ? input : input.pipe(hideSeparators()),
      output,
      terminal: typed,
      removeHistoryDuplicates: true,
    });
    this.reader.on('line', (read) => {
      const line = showSeparators(read);
      this.warned = false;
      if (this.waiting) this.take(line);
      else this.lines.push(line);
    });
    this.reader.on('close', () => {
      this.closed = true;
      if (this.lines.length === 0) this.take(undefined);
    });
    this.reader.on('SIGINT', () => this.interrupt());
  }

  /** The next message, undefined at the end. */
  async next(): Promise<string | undefined> {
    let message = await this.line(PROMPT);
    while (message?.endsWith('\\') && !message.startsWith('/')) {
      const more = await this.line(MORE);
      message = `${message.slice(0, -1)}${more === undefined ? '' : `\n${more}`}`;
    }
    return message;
  }

  /** Runs what answers a message, with a signal that Ctrl-C aborts. */
  async answering<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const answer = new AbortController();
    this.answer = answer;
    try {
      return await work(answer.signal);
    } finally {
      this.answer = undefined;
    }
  }

  close(): void {
    this.reader.close();
    if (this.typed) return;
    this.terminal.io.stdin.unpipe();
    this.terminal.io.stdin.pause();
  }

  private line(prompt: string): Promise<string | undefined> {
    const ready = this.lines.shift();
    if (ready !== undefined || this.closed) return Promise.resolve(ready);
    if (this.typed) {
      this.reader.setPrompt(prompt);
      this.reader.prompt();
    }
    return new Promise((resolve) => {
      this.waiting = resolve;
    });
  }

  private take(line: string | undefined): void {
    const { waiting } = this;
    this.waiting = undefined;
    waiting?.(line);
  }

  private interrupt(): void {
    if (this.answer) {
      // A device that does not stop must not hold up the user.
      if (this.answer.signal.aborted) this.terminal.io.exit(130);
      this.answer.abort(new Error('stopped by Ctrl-C'));
    } else if (this.warned) {
      this.close();
    } else {
      this.warned = true;
      this.reader.write(null, { ctrl: true, name: 'e' });
      this.reader.write(null, { ctrl: true, name: 'u' });
      this.terminal.print('\n(Ctrl-C again, Ctrl-D or /exit ends the chat)\n');
      this.reader.prompt();
    }
  }
}
