/** Round numbers (1, 2 or 5 times a power of ten apart) within a range, about `count` of them. */
export function ticks(low: number, high: number, count: number): number[] {
  if (low === high) return [low];
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5].find((factor) => factor * power >= rough * 0.999) ?? 10);
  const out: number[] = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) out.push(i * step);
  return out;
}

/** A number on an axis, without the noise of binary fractions, with a real minus; `20k` and `3M` for large ones. */
export function tickLabel(value: number): string {
  const size = Math.abs(value);
  const [unit, letter] = size >= 1e6 ? [1e6, 'M'] : size >= 1e4 ? [1e3, 'k'] : [1, ''];
  return `${Number((value / unit).toPrecision(9))}${letter}`.replace('-', '−');
}
