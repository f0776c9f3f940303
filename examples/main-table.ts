// The paper's main table through the library: what `xpatch demo` does, on two tasks and one seed.
//
//   npx tsx examples/main-table.ts
import { mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { loadModel, MAIN_TABLE_DEFAULTS, tableToText, writeMainTableRun } from 'xpatch';

await using model = await loadModel('demo');
const context = await model.createContext();
const folder = await mkdtemp(join(tmpdir(), 'xpatch-main-table-'));

const run = await writeMainTableRun(
  context,
  folder,
  { ...MAIN_TABLE_DEFAULTS, tasks: ['country-capital', 'food-color'], seeds: [1], test: 20, queries: 'image' },
  { command: 'examples/main-table.ts', notes: ['The demo model was trained on these facts.'] },
  { onProgress: ({ done, total, stage }) => process.stderr.write(`\r\x1b[K${done}/${total} ${stage}`) },
);
process.stderr.write('\r\x1b[K');
console.log(run.tables.map((table) => tableToText(table)).join('\n'));
console.log(`manifest, answers, vectors, figures and report: ${folder}`);
