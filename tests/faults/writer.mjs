// Opens a run as `eval` does and writes its lines as fast as the disk takes them. Arguments: a JSON file of { manifest, lines,
// batch }, and the folder of the run.
import { readFileSync } from 'node:fs';
import { RunFolder } from '../../dist/experiment/run-folder.js';

const [job, folder] = process.argv.slice(2);
const { manifest, lines, batch } = JSON.parse(readFileSync(job, 'utf8'));
try {
  const run = await RunFolder.open(folder, manifest);
  process.stdout.write('open\n');
  if (!run.complete) {
    for (let i = 0; i < lines.length; i += batch) await run.append(lines.slice(i, i + batch));
    await run.write('tables/lenient.csv', 'row,column,value\r\n');
    await run.finish();
  }
  process.stdout.write(`complete ${run.notes.length}\n`);
} catch (error) {
  process.stdout.write(`${error.code}: ${error.message}\n`);
  process.exitCode = 1;
}
