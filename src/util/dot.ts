type Floats = Float32Array | Float64Array;

/**
 * Dot product of `n` numbers of `a` from `i` and of `b` from `j`, all of `a` by default; in four sums, so that no addition waits
 * for the one before.
 */
export function dot(a: Floats, b: Floats, i = 0, j = 0, n = a.length): number {
  let [s0, s1, s2, s3] = [0, 0, 0, 0];
  let k = 0;
  for (; k + 3 < n; k += 4) {
    s0 += (a[i + k] as number) * (b[j + k] as number);
    s1 += (a[i + k + 1] as number) * (b[j + k + 1] as number);
    s2 += (a[i + k + 2] as number) * (b[j + k + 2] as number);
    s3 += (a[i + k + 3] as number) * (b[j + k + 3] as number);
  }
  for (; k < n; k++) s0 += (a[i + k] as number) * (b[j + k] as number);
  return s0 + s1 + s2 + s3;
}
