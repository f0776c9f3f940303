// Rasterises every drawing of every style, and the photographs, to 128x128 RGB:
//   node render.mjs STAMPS OUT      STAMPS: the folder tuxpaint/stamps of Debian's tuxpaint-stamps-default
// writes OUT/pictures.json (domain, entity, style, file) and OUT/pictures.rgb. Each file is complete or absent.
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { drawings, raster } from '../demo-model/drawings.mjs';
import { facts, hasPicture } from '../demo-model/facts.mjs';

const SIZE = 128;
const [stamps, out] = process.argv.slice(2);
const pictures = [];
const pixels = [];

async function add(source, entry) {
  pixels.push(await raster(source, SIZE).raw().toBuffer());
  pictures.push(entry);
}

for (const [domain, rows] of Object.entries(facts)) {
  for (const fact of rows.filter((row) => hasPicture(domain, row))) {
    for (const [style, source] of drawings(domain, fact)) {
      if (source) await add(source, { domain, entity: fact.name, style });
    }
  }
}
const lines = readFileSync(new URL('photographs.tsv', import.meta.url), 'utf8')
  .trim()
  .split('\n')
  .slice(1);
for (const line of lines) {
  const [file, entity] = line.split('\t');
  await add(`${stamps}/${file}`, {
    domain: file.startsWith('animals') ? 'animal' : 'food',
    entity,
    style: 'photograph',
    file,
  });
}
for (const [name, content] of [
  ['pictures.rgb', Buffer.concat(pixels)],
  ['pictures.json', JSON.stringify(pictures)],
]) {
  writeFileSync(`${out}/${name}.part`, content);
  renameSync(`${out}/${name}.part`, `${out}/${name}`);
}
console.log(`${pictures.length} pictures`);
