export type BuildMode = 'auto' | 'hybrid' | 'source';

export interface BuildAttempt {
  mode: 'prebuilt' | 'hybrid' | 'source';
  ok: boolean;
  reason?: string;
}

export interface BuildResult {
  /** What `auto` came to. */
  mode: 'prebuilt' | 'hybrid' | 'source';
  /** The addon. */
  path: string;
  /** The build.json beside it. */
  info: Record<string, unknown> & { llamaTag: string; compiler: string; seconds: number; upToDate?: boolean };
  attempts: BuildAttempt[];
}

export interface BuildOptions {
  /** Defaults to the environment's XPATCH_LLAMA, else auto. */
  mode?: BuildMode;
  /** Compile everything again. Defaults to false. */
  clean?: boolean;
  /** Leave what the next build can go on from. Defaults to false. */
  keep?: boolean;
  root?: string;
  onProgress?: (progress: { step: string; percent: number }) => void;
}

export const MODES: readonly BuildMode[];
export function buildAddon(options?: BuildOptions): Promise<BuildResult>;
export function clearCache(cache: string): void;
export function parseCmakeArgs(text?: string): Record<string, string>;
export function refuseHybrid(
  llama: { platformPackage: string | undefined; version: string; libraries: object | undefined },
  platform?: string,
): string | undefined;
