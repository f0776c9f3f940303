import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { XpatchError } from '../errors.js';

/** Models that come with the package, by the name that `-m` takes. */
const SHIPPED: Record<string, { model: string; mmproj?: string }> = {
  demo: { model: 'xpatch-demo-f16.gguf', mmproj: 'mmproj-xpatch-demo-f16.gguf' },
  'demo-base': { model: 'xpatch-demo-base-f16.gguf' },
};

// dist/model/ and src/model/ are equally deep
const DEMO_FOLDER = fileURLToPath(new URL('../../models/demo/', import.meta.url));

/**
 * The files of a model named by a shipped name or a path.
 *
 * @throws XpatchError FILE_NOT_FOUND.
 */
export function resolveModel(source: string, mmproj?: string): { model: string; mmproj?: string } {
  const shipped = Object.hasOwn(SHIPPED, source) ? SHIPPED[source] : undefined;
  if (shipped) {
    const own = shipped.mmproj && DEMO_FOLDER + shipped.mmproj;
    const files = { model: DEMO_FOLDER + shipped.model, mmproj: mmproj ?? own };
    for (const file of [files.model, own]) {
      if (file && !existsSync(file)) {
        throw new XpatchError(
          'FILE_NOT_FOUND',
          `The shipped model '${source}' is incomplete: ${file} is missing. Install xpatch again.`,
        );
      }
    }
    return files;
  }
  for (const path of mmproj === undefined ? [source] : [source, mmproj]) {
    if (!existsSync(path)) {
      throw new XpatchError(
        'FILE_NOT_FOUND',
        `There is no model '${path}'. Give the path of a GGUF file, or one of: ${Object.keys(SHIPPED).join(', ')}.`,
      );
    }
  }
  return { model: source, mmproj };
}

const TRAINED_ON_THE_FACTS =
  'The demo model is tiny and was trained on the very facts it is asked about; only the combinations of examples and query, and the drawing style, are new to it. It shows the effect and tests the software, and is no evidence about large models.';

/** What has to be said beside every result of a shipped model. */
export const SHIPPED_NOTES: Readonly<Record<string, readonly string[]>> = {
  demo: [TRAINED_ON_THE_FACTS],
  'demo-base': [TRAINED_ON_THE_FACTS],
};

/** What has to be said beside its Text Prompt and Text Patch. */
export const PROMPT_GAP_NOTES: Readonly<Record<string, readonly string[]>> = {
  demo: [
    'That Text Prompt does worse than Text Patch is a consequence of its training mix (captions after unrelated text), see docs/demo-model.md.',
  ],
};
