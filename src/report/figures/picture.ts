import type { LensCell } from '../../lens/logit-lens.js';
import { XpatchError } from '../../util/errors.js';
import type { LensPicture, LensView } from '../report.js';
import { visibleText } from '../visible.js';
import { drawScale, requireLens, shadeOf } from './heatmap.js';
import { type Patch, patchesOf } from './patches.js';
import { drawSheet } from './sheet.js';
import { colour, fitText, fixed, svgText } from './svg.js';

/** A patch that has room for a short word, and a picture that has room on a page. */
const PATCH = { least: 34, most: 84 };
const PICTURE = { least: 220, most: 840 };
/** Pixels of the picture itself that are kept, on its longer side. */
const KEPT = 768;
const GAP = 20;
const MODE = 'outlines';

/**
 * A picture with the best token of each of its patches, at an early, a middle and the highest layer of a lens, as SVG. For
 * files: the page draws a picture itself.
 *
 * @throws {XpatchError} INVALID_ARGUMENT when the picture has no grid, or no position of the lens is on it; as `heatmapToSvg`
 */
export async function pictureToSvg(view: LensView, picture: LensPicture): Promise<string> {
  requireLens(view);
  const { lens } = view;
  const patches = requirePatches(view, picture);
  const { width: seen, height: seenHeight } = picture.picture;
  const patch = patches.reduce((sum, { width }) => sum + width, 0) / patches.length;
  const scale = clamp(
    clamp(PICTURE.least / seen, PATCH.least / patch, PATCH.most / patch),
    PICTURE.least / seen,
    PICTURE.most / Math.max(seen, seenHeight),
  );
  const size = { width: seen * scale, height: seenHeight * scale };
  const layers = shownLayers(lens.layers);
  const href = await jpeg(picture);
  const svg = layers.flatMap((layer, i) => {
    const row = lens.cells[lens.layers.indexOf(layer)] as LensCell[];
    const words = patches.map((one) => drawPatch(one, row[one.p] as LensCell, scale));
    return [
      `<g transform="translate(${fixed(i * (size.width + GAP))} 22)">`,
      svgText(MODE, 0, -7, `layer ${layer}`, { size: 12.5, bold: true }),
      `<image width="${fixed(size.width)}" height="${fixed(size.height)}" preserveAspectRatio="none" xlink:href="${href}"/>`,
      `<rect width="${fixed(size.width)}" height="${fixed(size.height)}" fill="none" stroke="${colour(MODE, 'grid')}"/>`,
      ...words,
      '</g>',
    ];
  });
  svg.push(`<g transform="translate(0 ${fixed(size.height + 36)})">${drawScale()}</g>`);
  return drawSheet(MODE, {
    title: `${view.title}: words on the picture`,
    width: Math.max(420, layers.length * (size.width + GAP) - GAP),
    legend: [],
    plot: { svg, height: size.height + 54 },
    notes: ['The picture as the model saw it; every patch shows the best token of its row.', ...(view.notes ?? [])],
  });
}

function requirePatches(view: LensView, picture: LensPicture): Patch[] {
  const patches = patchesOf(view, picture);
  if (patches.length > 0) return patches;
  const why =
    'reason' in picture.grid ? picture.grid.reason : 'none of its positions is a patch. Read those of the picture too.';
  throw new XpatchError('INVALID_ARGUMENT', `The lens "${view.title}" cannot be drawn onto its picture: ${why}`);
}

/** An early, a middle and the highest layer, from low to high. */
function shownLayers(layers: readonly number[]): number[] {
  const sorted = [...layers].sort((a, b) => a - b);
  const at = (share: number) => sorted[Math.round(share * (sorted.length - 1))] as number;
  return [...new Set([at(1 / 8), at(1 / 2), at(1)])];
}

function drawPatch(patch: Patch, { top }: LensCell, scale: number): string {
  const [x, y, width, height] = [patch.x, patch.y, patch.width, patch.height].map((value) => value * scale) as [
    number,
    number,
    number,
    number,
  ];
  const best = top[0];
  const { ground, ink } = shadeOf(best?.probability ?? 0);
  const size = clamp(width / 4.6, 7, 10.5);
  // The word is on a strip at the foot of the patch, so that the picture stays to be seen.
  const strip = Math.min(height, size * 1.35);
  const box = `x="${fixed(x)}" y="${fixed(y + height - strip)}" width="${fixed(width)}" height="${fixed(strip)}"`;
  const text = fitText(visibleText(best?.text ?? ''), size, width - 2);
  return [
    `<rect x="${fixed(x)}" y="${fixed(y)}" width="${fixed(width)}" height="${fixed(height)}" fill="none" stroke="${colour(MODE, 'ground')}" stroke-width="0.75"/>`,
    `<rect ${box} fill="${ground}" fill-opacity="0.9"/>`,
    svgText(MODE, x + width / 2, y + height - strip / 2 + size * 0.36, text, { size, anchor: 'middle', fill: ink }),
  ].join('');
}

async function jpeg({ picture: { data, width, height } }: LensPicture): Promise<string> {
  const { default: sharp } = await import('sharp');
  const bytes = await sharp(data, { raw: { width, height, channels: 3 } })
    .resize({ width: KEPT, height: KEPT, fit: 'inside', withoutEnlargement: true })
    .jpeg({ quality: 90, chromaSubsampling: '4:4:4' })
    .toBuffer();
  return `data:image/jpeg;base64,${bytes.toString('base64')}`;
}

const clamp = (value: number, low: number, high: number): number => Math.min(high, Math.max(low, value));
