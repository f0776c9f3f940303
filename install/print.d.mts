import type { BuildResult } from './build.mjs';

export interface ProgressStream {
  isTTY?: boolean;
  write(text: string): unknown;
}

export function terminalOf(
  stream: ProgressStream,
  options?: { env?: NodeJS.ProcessEnv; path?: string },
): ProgressStream;
export function progressPrinter(stream: ProgressStream): {
  update(progress: { step: string; percent: number }): void;
  done(): void;
};
export function describeResult(result: BuildResult): string;
export function describeFailure(error: unknown): string;
