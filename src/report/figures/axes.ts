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

/** A number on an axis, without the noise of binary fractions, with a real minus. */
export const tickLabel = (value: number): string => String(Number(value.toPrecision(9))).replace('-', '−');
