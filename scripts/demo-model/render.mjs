// Rasterises every drawing to 64x64 RGB. `node render.mjs` writes
//   cache/pictures.json + cache/pictures.rgb   all styles, for training (git-ignored)
//   data/images/{noto,twemoji}/<slug>.png      the two styles shipped with the repository
// The held-out style is never given to a training step: see HELD_OUT in pictures.py.
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { drawings, raster } from './drawings.mjs';
import { facts, hasPicture, ROOT, slug } from './facts.mjs';

const SIZE = 64;

const pictures = [];
const pixels = [];
// One trained style is shipped: noto where it has the drawing; it has no flags, so circle-flags stands in for them.
const SHIPPED = { twemoji: ['twemoji'], noto: ['noto', 'circle-flags'] };
for (const folder of Object.keys(SHIPPED)) {
  rmSync(`${ROOT}/data/images/${folder}`, { recursive: true, force: true });
  mkdirSync(`${ROOT}/data/images/${folder}`, { recursive: true });
}
for (const [domain, rows] of Object.entries(facts)) {
  for (const fact of rows.filter((row) => hasPicture(domain, row))) {
    const shipped = new Set();
    for (const [style, source] of drawings(domain, fact)) {
      if (!source) continue;
      const image = raster(source, SIZE);
      pixels.push(await image.clone().raw().toBuffer());
      pictures.push({ domain, entity: fact.name, style });
      for (const [folder, styles] of Object.entries(SHIPPED)) {
        if (!styles.includes(style) || shipped.has(folder)) continue;
        shipped.add(folder);
        await image
          .clone()
          .png({ compressionLevel: 9, effort: 10 })
          .toFile(`${ROOT}/data/images/${folder}/${slug(fact.name)}.png`);
      }
    }
    for (const folder of Object.keys(SHIPPED)) {
      if (!shipped.has(folder)) throw new Error(`${fact.name}: no drawing for data/images/${folder}`);
    }
  }
}
mkdirSync('cache', { recursive: true });
writeFileSync('cache/pictures.json', JSON.stringify(pictures));
writeFileSync('cache/pictures.rgb', Buffer.concat(pixels));
const counts = {};
for (const { style, domain } of pictures) {
  counts[style] ??= {};
  counts[style][domain] = (counts[style][domain] ?? 0) + 1;
}
console.table(counts);
