export interface LlamaLibraries {
  folder: string;
  llama: string;
  ggml: string;
  ggmlBase: string;
}

export interface GpuBackendLibrary {
  gpu: 'cuda' | 'vulkan';
  path: string;
  package: string;
}

export interface Llama {
  folder: string;
  version: string;
  tag: string;
  bundle: string;
  platformPackage: string | undefined;
  libraries: LlamaLibraries | undefined;
  gpuBackends: GpuBackendLibrary[];
}

export interface Folders {
  root: string;
  key: string;
  binary: string;
  prebuilt: string;
  cache: string;
}

export const PACKAGE_ROOT: string;
export function findLlama(root?: string, platform?: string, arch?: string): Llama | undefined;
export function findFolders(root?: string, platform?: string, arch?: string): Folders;
export function hashSources(root?: string): string | undefined;
export function hashFile(path: string): string;
export function packageVersion(root?: string): string;
