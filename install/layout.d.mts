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
  /** Of node-llama-cpp and its packages; others are as good as not installed. */
  version: string;
  tag: string;
  /** Of the package that holds llama.cpp's sources. */
  integrity: string;
  platformPackage: string | undefined;
  libraries: LlamaLibraries | undefined;
  /** Names of the packages with GPU backends for this platform, installed or not. */
  gpuPackages: string[];
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
export function findLlama(root?: string, platform?: string, arch?: string): Llama;
export function findPackage(name: string, version: string, from: string): string | undefined;
export function findFolders(root?: string, platform?: string, arch?: string): Folders;
export function hashSources(root?: string): string | undefined;
export function hashFile(path: string): string;
export function packageVersion(root?: string): string;
