// The paper's main table through the library: what `xpatch demo` does, on two tasks and one seed.
//
//   node --import tsx examples/main-table.ts
import { mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { loadModel } from 'xpatch';
import { loadExperiment, parallelism, runInFolder } from 'xpatch/experiment';
import { tableToText } from 'xpatch/report';

await using model = await loadModel('demo');
await using context = await model.createContext();
const folder = await mkdtemp(join(tmpdir(), 'xpatch-main-table-'));

const { experiment } = await loadExperiment('main', ['tasks=[country-capital, food-color]', 'seeds=[1]', 'test=20']);
const { report } = await runInFolder(context, experiment, folder, {
  command: 'examples/main-table.ts',
  parallel: parallelism(model),
  notes: ['The demo model was trained on these facts.'],
  onProgress: ({ done, total, stage }) => process.stderr.write(`\r\x1b[K${done}/${total} ${stage}`),
});
process.stderr.write('\r\x1b[K');
for (const block of report.blocks) {
  if (block.kind === 'table' && ['lenient', 'strict'].includes(block.name)) console.log(tableToText(block.table));
}
console.log(`manifest, answers, vectors, figures and report: ${folder}`);
