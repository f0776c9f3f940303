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
    return { model: DEMO_FOLDER + shipped.model, mmproj: mmproj ?? own };
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
