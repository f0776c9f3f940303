// Writes the table of models in docs/models.md from the catalogue, after a build.
//
//   node scripts/models-table.mjs
import { readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const DOC = join(dirname(fileURLToPath(import.meta.url)), '..', 'docs', 'models.md');
const MARKS = ['<!-- models: made by scripts/models-table.mjs -->', '<!-- end of models -->'];

/** One row a model; `sizeOf` and `memoryOf` give bytes of an entry. */
export function modelsTable(entries, { sizeOf, memoryOf }) {
  const rows = entries.map((entry) => {
    const { name, title, paper, files, convert, licence, chat, bestLayer } = entry;
    const about = files && (!files.model.exact || files.mmproj?.exact === false) ? 'about ' : '';
    const where = convert ? `convert ${convert.source}` : (files?.model.uri ?? 'shipped');
    const cells = [
      `\`${name}\`${paper ? ' *' : ''}`,
      title,
      files || convert ? `${convert ? 'about ' : about}${gigabytes(sizeOf(entry))}` : gigabytes(sizeOf(entry)),
      gigabytes(memoryOf(entry)),
      `${licence.name}${{ any: '', conditions: ' (conditions)', research: ' (**research only**)' }[licence.use]}`,
      chat ?? 'none',
      bestLayer ? String(bestLayer.layer) : 'not known',
      `\`${where.replace(/\/[^/]+\.gguf$/, '')}\``,
    ];
    return `| ${cells.join(' | ')} |`;
  });
  return [
    '| Name | Model | Files | Memory | Licence | Chat template | Best layer | From |',
    '| --- | --- | ---: | ---: | --- | --- | ---: | --- |',
    ...rows,
  ].join('\n');
}

function gigabytes(bytes) {
  return bytes < 1e8 ? `${(bytes / 1e6).toFixed(0)} MB` : `${(bytes / 1e9).toFixed(1)} GB`;
}

/** A document with the table between its marks remade. */
export function withTable(text, table) {
  const [start, end] = MARKS.map((mark) => text.indexOf(mark));
  if (start < 0 || end < start) throw new Error(`docs/models.md lacks the marks ${MARKS.join(' and ')}`);
  return `${text.slice(0, start + MARKS[0].length)}\n${table}\n${text.slice(end)}`;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { bytesOf: sizeOf, listCatalogue, memoryOf } = await import('../dist/hub/catalogue.js');
  writeFileSync(DOC, withTable(readFileSync(DOC, 'utf8'), modelsTable(listCatalogue(), { sizeOf, memoryOf })));
}
