import { printable } from '../util/printable.js';
import type { Output } from './output.js';

/** Anything shorter shows no progress. */
const QUIET_MS = 2000;
/** Between two lines where they cannot be rewritten. */
const LINE_MS = 5000;
const REDRAW_MS = 200;
/** Characters of the bar on a terminal. */
const BAR = 16;
/** Goes to the beginning of the line and clears it. */
const WIPE = '\r\x1b[K';

/**
 * What a command is doing, on stderr: one line that is rewritten on a terminal, otherwise a line every five seconds.
 * Nothing is shown in the first two seconds. It ticks by itself, so that a step without numbers shows the time it takes.
 */
export class ProgressLine {
  private label = '';
  private fraction: number | undefined;
  private detail = '';
  private readonly started = Date.now();
  private stepStarted = this.started;
  private shownAt = 0;
  private drawn = false;
  private timer: NodeJS.Timeout | undefined;
  private readonly noted = new Set<string>();

  constructor(
    /** Whether anything is shown at all. */
    private readonly enabled: boolean,
    private readonly output: Output,
  ) {}

  /**
   * @param fraction 0 to 1; left out if unknown
   * @param detail is shown after them and may change at every call
   */
  update(label: string, fraction?: number, detail = ''): void {
    if (!this.enabled) return;
    if (label !== this.label) this.stepStarted = Date.now();
    this.label = label;
    this.fraction = fraction;
    this.detail = detail;
    this.timer ??= setInterval(() => this.show(), REDRAW_MS).unref();
  }

  /** Prints a line, or several, for the reader above the progress. */
  note(text: string): void {
    if (!this.enabled) return;
    this.clear();
    this.output.write(`xpatch: ${text.replaceAll('\n', '\nxpatch: ')}\n`);
  }

  /** A note that may hold for many prompts and is said of the first; numbers in it do not make it another one. */
  noteOnce(text: string): void {
    const kind = text.replace(/\d+/g, 'n');
    if (!this.noted.has(kind)) this.note(text);
    this.noted.add(kind);
  }

  /** Ends the progress; the line is wiped. A later `update` starts it again. */
  done(): void {
    clearInterval(this.timer);
    this.timer = undefined;
    this.clear();
  }

  [Symbol.dispose](): void {
    this.done();
  }

  private show(): void {
    const now = Date.now();
    if (now - this.started < QUIET_MS || (!this.output.isTTY && now - this.shownAt < LINE_MS)) return;
    const { label, fraction, detail } = this;
    const percent = fraction === undefined ? '' : ` ${this.bar(fraction)}${Math.floor(fraction * 100)} %`;
    const seconds = Math.round((now - this.stepStarted) / 1000);
    const line = printable(`xpatch: ${label}${percent}${detail === '' ? ` (${seconds} s)` : `, ${detail}`}`);
    if (this.output.isTTY) {
      this.output.control(WIPE);
      this.output.write(line.slice(0, Math.max(20, (this.output.columns ?? 80) - 1)));
    } else {
      this.output.write(`${line}\n`);
    }
    this.shownAt = now;
    this.drawn = true;
  }

  private bar(fraction: number): string {
    if (!this.output.isTTY) return '';
    const filled = Math.min(BAR, Math.round(fraction * BAR));
    return `${'█'.repeat(filled)}${'░'.repeat(BAR - filled)} `;
  }

  private clear(): void {
    if (this.drawn && this.output.isTTY) this.output.control(WIPE);
    this.drawn = false;
  }
}
