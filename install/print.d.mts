import type { BuildResult } from './build.mjs';

export function progressPrinter(stream: NodeJS.WriteStream): {
  update(progress: { step: string; percent: number }): void;
  done(): void;
};
export function describeResult(result: BuildResult): string;
export function describeFailure(error: unknown): string;
