import { cpSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const CHECKPOINTS = fileURLToPath(new URL('../fixtures/checkpoints/', import.meta.url));

/** A checkpoint that a test may spoil. */
export function copyOf(name: string, parent: string): string {
  const folder = join(parent, name);
  cpSync(join(CHECKPOINTS, name), folder, { recursive: true });
  return folder;
}

export function edit(folder: string, file: string, change: (value: Record<string, never>) => void): void {
  const value = JSON.parse(readFileSync(join(folder, file), 'utf8'));
  change(value);
  writeFileSync(join(folder, file), JSON.stringify(value));
}
