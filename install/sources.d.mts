import type { Folders, Llama } from './layout.mjs';

export function unpackSources(llama: Llama, folders: Pick<Folders, 'root' | 'cache'>): string;
