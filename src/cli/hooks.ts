import type { KnownPoints } from '../model/known-points.js';
import { counted, plural } from '../util/counted.js';
import { defineCommand } from './command.js';
import { describeModel, fetchEvents } from './common.js';
import { fetchModel } from './fetch-model.js';
import { MODEL_OPTIONS, OUTPUT_OPTIONS } from './options.js';

// Nothing else that a model can be loaded with changes its points.
const { model, mmproj, device, gpuLayers, flashAttention } = MODEL_OPTIONS;

/** `xpatch hooks`: which points of a model can be read and written. */
export const hooks = defineCommand({
  command: 'hooks',
  describe: 'List the points of a model that can be read and overwritten',
  options: { model, mmproj, device, gpuLayers, flashAttention, ...OUTPUT_OPTIONS },
  examples: [
    ['What the demo model has', 'hooks -m demo'],
    ['With flash attention, which computes no scores', 'hooks -m model.gguf --flash-attention on'],
  ],
  run: async (args, terminal) => {
    const progress = terminal.progress(args);
    const { json, device, gpuLayers, flashAttention = 'off' } = args;
    try {
      const files = await fetchModel(args.model, args.mmproj, fetchEvents(terminal, progress));
      progress.update('searching');
      const { knownPoints } = await import('../model/known-points.js');
      const { signal } = terminal;
      const found = await knownPoints(files, { device, gpuLayers, flashAttention, signal });
      progress.done();
      if (json) terminal.printJson({ ...found });
      else
        terminal.print(
          `${describeModel(found.model)}, ${counted(found.model.nLayers, 'layer')}\n${table(found.hooks)}`,
        );
    } finally {
      progress.done();
    }
  },
});

function table(points: KnownPoints['hooks']): string {
  const lines = points.map(({ hook, layers, width, heads, rotated, refusals }) => {
    const size = width ?? (hook === 'pattern' || hook === 'attn_scores' ? 'positions' : 'differs');
    const numbers = heads
      ? `${counted(heads, 'head')} x ${typeof size === 'number' ? size / heads : size}`
      : String(size);
    const rotation = rotated === undefined ? '' : rotated ? ', rotated' : ', not rotated';
    const there = layers.length ? [`${plural(layers.length, 'layer')} ${ranges(layers)}: ${numbers}${rotation}`] : [];
    const missing = refusals.map(
      ({ layers, reason }) => `${plural(layers.length, 'layer')} ${ranges(layers)}: none, ${reason}`,
    );
    return [...there, ...missing].map((text, i) => `${(i ? '' : hook).padEnd(12)} ${text}\n`).join('');
  });
  return lines.join('');
}

/** `0-3, 5` */
function ranges(layers: readonly number[]): string {
  const parts: [number, number][] = [];
  for (const layer of layers) {
    const last = parts.at(-1);
    if (last && last[1] === layer - 1) last[1] = layer;
    else parts.push([layer, layer]);
  }
  return parts.map(([from, to]) => (from === to ? String(from) : `${from}-${to}`)).join(', ');
}
