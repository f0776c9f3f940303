/** How far back the speed of a run is measured. */
const WINDOW_MS = 30_000;
/** Before this, nothing can be said. */
const MIN_MS = 1000;

/** Speed of a run and its remaining time, from how much was done when. */
export class RunRate {
  private marks: { at: number; done: number }[] = [];

  /** Forgets the past, when the work has paused. */
  reset(): void {
    this.marks = [];
  }

  /** @param now milliseconds */
  at(done: number, total: number, now = Date.now()): { perSecond?: number; left?: number } {
    const last = this.marks.at(-1);
    if (last === undefined || now - last.at >= MIN_MS / 4) this.marks.push({ at: now, done });
    // The mark before the window stays: it says where the window begins.
    while ((this.marks[1]?.at ?? now) <= now - WINDOW_MS) this.marks.shift();
    const [first] = this.marks;
    if (first === undefined || now - first.at < MIN_MS || done <= first.done) return {};
    const perSecond = (1000 * (done - first.done)) / (now - first.at);
    return { perSecond, left: (total - done) / perSecond };
  }
}

/** `40 s`, `12 min`, `3 h 20 min` */
export function duration(seconds: number): string {
  if (seconds < 90) return `${Math.max(1, Math.round(seconds))} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 90) return `${minutes} min`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}
