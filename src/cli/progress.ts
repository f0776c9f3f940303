/** Anything shorter needs no progress. */
const QUIET_MS = 2000;
/** Between two lines where they cannot be rewritten. */
const LINE_MS = 5000;
const REDRAW_MS = 200;

/**
 * What a command is doing, on stderr: one line that is rewritten on a terminal, otherwise a line every five seconds.
 * Nothing is shown in the first two seconds. It ticks by itself, so that a step without numbers shows its time.
 */
export class ProgressLine {
  private label = '';
  private fraction: number | undefined;
  private readonly started = Date.now();
  private stepStarted = this.started;
  private shownAt = 0;
  private drawn = false;
  private timer: NodeJS.Timeout | undefined;

  constructor(
    /** Whether anything is shown at all. */
    private readonly enabled: boolean,
    private readonly stream: NodeJS.WriteStream = process.stderr,
  ) {}

  /** @param fraction 0 to 1; left out where it is not known */
  update(label: string, fraction?: number): void {
    if (!this.enabled) return;
    if (label !== this.label) this.stepStarted = Date.now();
    this.label = label;
    this.fraction = fraction;
    this.timer ??= setInterval(() => this.show(), REDRAW_MS).unref();
  }

  /** Prints a line for the reader above the progress. */
  note(text: string): void {
    if (!this.enabled) return;
    this.clear();
    this.stream.write(`xpatch: ${text}\n`);
  }

  /** Ends the progress; the line is wiped. A later `update` starts it again. */
  done(): void {
    clearInterval(this.timer);
    this.timer = undefined;
    this.clear();
  }

  private show(): void {
    const now = Date.now();
    if (now - this.started < QUIET_MS || (!this.stream.isTTY && now - this.shownAt < LINE_MS)) return;
    const percent = this.fraction === undefined ? '' : ` ${Math.floor(this.fraction * 100)} %`;
    const line = `xpatch: ${this.label}${percent} (${Math.round((now - this.stepStarted) / 1000)} s)`;
    if (this.stream.isTTY) this.stream.write(`\r\x1b[K${line.slice(0, Math.max(20, this.stream.columns - 1))}`);
    else this.stream.write(`${line}\n`);
    this.shownAt = now;
    this.drawn = true;
  }

  private clear(): void {
    if (this.drawn && this.stream.isTTY) this.stream.write('\r\x1b[K');
    this.drawn = false;
  }
}
