import type { Model } from '../model/model.js';
import { PROMPT_GAP_NOTES, SHIPPED_NOTES } from '../model/resolve.js';

/** Names in the catalogue by the names in the files: a path, a copy and a quantised file of these weights say the same. */
const NAMES: Readonly<Record<string, string>> = { 'xpatch demo': 'demo', 'xpatch demo base': 'demo-base' };

/** What has to be said beside every result of a model. */
export function shippedNotes({ identity }: Pick<Model, 'identity'>): readonly string[] {
  return SHIPPED_NOTES[NAMES[identity.name] ?? ''] ?? [];
}

/** What has to be said beside its Text Prompt and Text Patch. */
export function promptGapNotes({ identity }: Pick<Model, 'identity'>): readonly string[] {
  return PROMPT_GAP_NOTES[NAMES[identity.name] ?? ''] ?? [];
}
