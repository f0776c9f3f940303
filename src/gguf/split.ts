/** How the parts of a split GGUF are named: number and count. */
export const PART = /-(\d{5})-of-(\d{5})(?=\.gguf$)/;

/** The paths of all parts of a split GGUF, whichever of them is named; of any other file, and of one that says it is of none, its own path. */
export function splitPaths(path: string): string[] {
  const count = PART.exec(path)?.[2];
  if (count === undefined || Number(count) < 1) return [path];
  return Array.from({ length: Number(count) }, (_, i) =>
    path.replace(PART, `-${String(i + 1).padStart(5, '0')}-of-${count}`),
  );
}
