import type { Context } from '../model/context.js';
import { HeadMap, headPatch, headsOf } from './heads.js';
import { measureEach, type PatchTops } from './measure.js';
import { type PatchLayersOptions, promptsOf } from './patch-layers.js';

/** What patching each head does to a metric. */
export interface HeadPatching {
  /** The metric with one head patched. */
  readonly map: HeadMap;
  /** The metric of `from`, and of `into` without a patch. */
  readonly clean: number;
  readonly corrupt: number;
  /** With `topK`: the best next tokens. */
  readonly tops?: PatchTops;
}

/**
 * Activation patching by head: what each attention head says (`z`) at all the positions asked for is written from one prompt into
 * another, head by head, and a metric of the answer is taken.
 *
 * @throws {XpatchError} as `patchLayers`; HOOK_UNSUPPORTED for a model whose heads cannot be read
 */
export async function patchHeads(
  context: Context,
  options: Omit<PatchLayersOptions, 'hook' | 'layers'> & { layers?: readonly number[] },
): Promise<HeadPatching> {
  const { topK, signal, onProgress } = options;
  const { from, into, positions } = await promptsOf(context, options);
  const heads = headsOf(context, options.layers);
  const layers = [...new Set(heads.map(({ layer }) => layer))];
  const row = { ...from.row, capture: { hook: 'z', layers, positions }, logits: 'last', topK: topK ?? 0 } as const;
  const { states, logits, top } = await context.run(row, { signal });
  const edits = heads.map((head) => headPatch(head, states, positions));
  const { plain, values, tops } = await measureEach(context, into, edits, { topK, signal, onProgress });
  const [corrupt = [], ...patched] = tops;
  return {
    map: new HeadMap(heads, values),
    clean: into.measure(logits.data),
    corrupt: plain,
    ...(topK && { tops: { clean: top, corrupt, patched } }),
  };
}
