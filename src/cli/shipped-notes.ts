import type { Model } from '../model/model.js';

// By the names in the files: they are the same for any path, copy or quantised file of these weights.
const DEMO = 'xpatch demo';
const BASE = 'xpatch demo base';

const TRAINED_ON_THE_FACTS =
  'The demo model is tiny and was trained on the very facts it is asked about; only the combinations of examples and query, and the drawing style, are new to it. It shows the effect and tests the software, and is not evidence about large models.';
const PROMPT_GAP =
  'That Text Prompt does worse than Text Patch is a consequence of its training mix (captions after unrelated text), see docs/demo-model.md.';

/** Caveats for every result of a model. */
export function shippedNotes({ identity }: Pick<Model, 'identity'>): readonly string[] {
  return identity.name === DEMO || identity.name === BASE ? [TRAINED_ON_THE_FACTS] : [];
}

/** Caveats for its Text Prompt and Text Patch. */
export function promptGapNotes({ identity }: Pick<Model, 'identity'>): readonly string[] {
  return identity.name === DEMO ? [PROMPT_GAP] : [];
}
