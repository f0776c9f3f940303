import type { LensCell } from '../../lens/logit-lens.js';
import { escapeXml } from '../figures/escape-xml.js';
import { patchesOf } from '../figures/patches.js';
import { stepOf } from '../figures/steps.js';
import { fixed } from '../figures/svg.js';
import type { LensPicture, LensView } from '../report.js';
import { notesToHtml, scrolling } from './blocks.js';
import { percent, textHtml, tokenHtml, tokenLabel } from './text.js';

/** Columns of a table on paper, and how many such tables a page without a script has at most. */
const COLUMNS = 12;
const MOST_TABLES = 4;
/** Bytes that the pictures of a lens may have as PNG; larger ones become WebP. */
const MOST_BYTES = 1_200_000;

/**
 * A lens as it is without a script and on paper: its pictures with the words of the highest layer, and tables of the best
 * tokens at the last positions. The script puts the whole of it in place of the tables.
 */
export async function lensToHtml(view: LensView): Promise<string> {
  const { lens, inputs, pictures, notes } = view;
  const rows = lens.layers.map((layer, l) => ({ layer, l })).sort((a, b) => b.layer - a.layer);
  const nPositions = lens.positions.length;
  const first = Math.max(0, nPositions - COLUMNS * MOST_TABLES);
  const tables: string[] = [];
  for (let from = first; from < nPositions; from += COLUMNS) {
    const shown = Array.from({ length: Math.min(COLUMNS, nPositions - from) }, (_, i) => from + i);
    const heads = shown.map((p) => {
      const input = inputs[p] as LensView['inputs'][number];
      const what = input.kind === 'image' ? '<span class="image-row">▦</span>' : tokenHtml(input.text);
      return `<th scope="col"><small>${lens.positions[p]}</small>${what}</th>`;
    });
    const body = rows.map(({ layer, l }) => {
      const cells = shown.map((p) => {
        const best = bestOf(lens.cells[l]?.[p]);
        const step = stepOf(best.probability);
        return `<td class="q${step}">${tokenHtml(best.text)} <small>${percent(best.probability)}</small></td>`;
      });
      return `<tr><th scope="row">${layer}</th>${cells.join('')}</tr>`;
    });
    const range = `Best token by layer, positions ${lens.positions[from]} to ${lens.positions[shown.at(-1) as number]}`;
    tables.push(
      scrolling(
        range,
        `<table class="cells"><caption>${range}</caption><thead><tr><th scope="col">layer</th>${heads.join('')}</tr></thead><tbody>${body.join('\n')}</tbody></table>`,
      ),
    );
  }
  const cut =
    first > 0 ? `<p class="hint">On paper: the last ${nPositions - first} of ${nPositions} positions.</p>` : '';
  const shownPictures = await Promise.all(pictures.map((picture) => pictureToHtml(picture, view)));
  return `<div class="lens">${shownPictures.join('\n')}<div class="lens-static">${tables.join('\n')}${cut}</div></div>${notesToHtml(notes)}`;
}

async function pictureToHtml(shown: LensPicture, view: LensView): Promise<string> {
  const { picture, grid } = shown;
  const { lens } = view;
  const { width, height } = picture;
  const href = await toDataUrl(picture, MOST_BYTES / view.pictures.length);
  const label = `The picture that the model saw, ${width} by ${height} pixels`;
  const patches = patchesOf(view, shown);
  // 34 pixels hold a short word
  const patchWidth = patches.reduce((sum, patch) => sum + patch.width, 0) / patches.length || width;
  const shownWidth = Math.min(880, Math.max(416, (34 / patchWidth) * width));
  const open = `<svg viewBox="0 0 ${width} ${height}" width="${fixed(shownWidth)}" role="img" aria-label="${label}"><image href="${href}" width="${width}" height="${height}"/>`;
  const figure = (body: string, caption: string, kind: string) =>
    `<figure class="lens-picture"><div class="${kind}">${open}${body}</svg></div><figcaption>${textHtml(caption)}</figcaption></figure>`;
  if ('reason' in grid) return figure('', `${label}. Its rows cannot be drawn over it: ${grid.reason}`, 'plain');
  const top = lens.layers.indexOf(Math.max(...lens.layers));
  const drawn = patches.map(({ x, y, width: w, height: h, p }) => {
    const position = lens.positions[p] as number;
    const best = bestOf(lens.cells[top]?.[p]);
    const step = `q${stepOf(best.probability)}`;
    const size = Math.min(h * 0.34, w * 0.26, width * 0.035);
    const band = size * 1.35;
    return [
      // an SVG of its own cuts a word that is wider than its patch
      `<g class="patch" data-position="${position}"><svg x="${fixed(x)}" y="${fixed(y)}" width="${fixed(w)}" height="${fixed(h)}">`,
      `<rect class="word-ground ${step}" y="${fixed(h - band)}" width="100%" height="${fixed(band)}"/>`,
      `<text class="word ${step}" x="50%" y="${fixed(h - size * 0.35)}" font-size="${fixed(size)}" text-anchor="middle">${escapeXml(tokenLabel(best.text))}</text>`,
      '<rect class="edge" width="100%" height="100%"/></svg></g>',
    ].join('');
  });
  if (patches.length === 0) return figure('', `${label}. No position of the lens is on it.`, 'plain');
  return figure(drawn.join('\n'), `${label}, with the best token of every patch.`, 'patches');
}

function bestOf(cell: LensCell | undefined): LensCell['top'][number] {
  return cell?.top[0] as LensCell['top'][number];
}

async function toDataUrl({ data, width, height }: LensPicture['picture'], mostBytes: number): Promise<string> {
  const { default: sharp } = await import('sharp');
  const image = sharp(data, { raw: { width, height, channels: 3 } });
  const png = await image.clone().png({ compressionLevel: 9 }).toBuffer();
  if (png.length <= mostBytes) return `data:image/png;base64,${png.toString('base64')}`;
  const webp = await image.resize({ width: 1024, withoutEnlargement: true }).webp({ quality: 85 }).toBuffer();
  return `data:image/webp;base64,${webp.toString('base64')}`;
}
