// The reference values of tests/fixtures/models, one index a family. How they were made: tests/reference/README.md.
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Intervention } from '../../src/hooks/types.js';

export interface Case {
  name: string;
  interventions: (Omit<Intervention, 'layers' | 'value'> & { layer: number; value?: string })[];
  states: string;
  logits: string;
}
export interface ReferencePrompt {
  name: string;
  parts?: (string | { image: string })[];
  /** The expanded prompt, -1 for a row of a picture. */
  tokens: number[];
  images?: { file: string; at: number; rows: number; embeddings: string }[];
  states: string;
  logits: string;
  /** States at some positions after the final norm, and what the head makes of them, in every layer. */
  lens: { positions: number[]; normed: string; logits: string };
  cases: Case[];
}
export interface Family {
  name: string;
  madeWith: { torch: string; transformers: string };
  model: string;
  mmproj?: string;
  reference: string;
  architecture: string;
  nEmbd: number;
  nLayers: number;
  nVocab: number;
  texts: { text: string; tokens: number[] }[];
  prompts: ReferencePrompt[];
}

export const FOLDER = join(fileURLToPath(new URL('.', import.meta.url)), '../fixtures/models');

export const readFamily = (name: string): Family => JSON.parse(readFileSync(join(FOLDER, `${name}.json`), 'utf8'));

/** By name. */
export const FAMILIES: Family[] = readdirSync(FOLDER)
  .filter((file) => file.endsWith('.json'))
  .sort()
  .map((file) => readFamily(file.slice(0, -'.json'.length)));

/** Of the files that the numbers belong to. */
export function hashOf({ model, mmproj, reference }: Family): string {
  const hash = createHash('sha256');
  for (const file of [model, mmproj, reference]) if (file) hash.update(readFileSync(join(FOLDER, file)));
  return hash.digest('hex').slice(0, 16);
}
