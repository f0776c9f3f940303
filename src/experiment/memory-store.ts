import type { TaskVector } from '../vectors/task-vector.js';
import { keyOf, type ResultLine, type RunLine, type RunStore, type Saved } from './types.js';

/** A run that lives as long as the process. `RunFolder` keeps one on disk. */
export function memoryStore<Line extends RunLine = ResultLine>(): RunStore<Line> {
  const all: Line[] = [];
  const known = new Set<string>();
  const vectors = new Map<string, Saved>();
  return {
    known,
    async *lines() {
      yield* all;
    },
    append: async (lines) => {
      for (const line of lines) {
        const key = keyOf(line);
        if (known.has(key)) continue; // handed over again after a failure
        all.push(line);
        known.add(key);
      }
    },
    saveVector: async (name, vector) => void vectors.set(name, vector),
    loadVector: async (name) => vectors.get(name) as TaskVector | undefined,
    load: async <T extends Saved>(name: string) => vectors.get(name) as T | undefined,
  };
}
