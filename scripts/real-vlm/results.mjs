// What a run of `xpatch eval` says about the trained and the held-out entities apart, after a build:
//
//   node scripts/real-vlm/results.mjs RUN…
//
// "strict" here takes an answer up to its first comma or line break: the language model's patched answers go on, as in "Lima, Peru".
// A run that was stopped is read as far as it came, and n says how far.
import { readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { bootstrapInterval } from '../../dist/stats/statistics.js';

const held = new Set(JSON.parse(readFileSync(new URL('splits.json', import.meta.url), 'utf8')).entities);
const upToComma = (answer) => answer.split(/[,\n]/)[0].trim();

for (const run of process.argv.slice(2)) {
  const lines = readFileSync(join(run, 'results.jsonl'), 'utf8')
    .split('\n')
    .filter((line) => line.endsWith('}'))
    .map((line) => JSON.parse(line))
    .filter(({ stage }) => stage === 'test');
  const rows = new Map();
  for (const line of lines) {
    const layer = line.layer === undefined ? '' : ` (layer ${line.layer})`;
    const key = `${line.task} | ${line.condition}${layer}`;
    rows.set(key, [...(rows.get(key) ?? []), line]);
  }
  console.log(`\n${basename(run)}\n`);
  console.log('| Task | Condition | lenient | strict | n | entities trained on: lenient | n | held out: lenient | n |');
  console.log('| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |');
  for (const [key, all] of [...rows].sort(([a], [b]) => (a < b ? -1 : 1))) {
    const seen = all.filter(({ item }) => !held.has(item));
    const unseen = all.filter(({ item }) => held.has(item));
    const strict = (line) => upToComma(line.answer) === line.expected;
    const lenient = (line) => line.lenient;
    const parts = [seen, unseen].flatMap((part) => [share(part, lenient), part.length]);
    const cells = [share(all, lenient), share(all, strict), all.length, ...parts];
    console.log(`| ${key} | ${cells.join(' | ')} |`);
  }
}

/** `.31 (.22 to .39)` */
function share(lines, right) {
  if (lines.length === 0) return '';
  const observations = lines.map((line) => ({
    task: line.task,
    seed: line.seed,
    item: line.item,
    value: right(line) ? 1 : 0,
  }));
  const { value, low, high } = bootstrapInterval(observations);
  return `${two(value)} (${two(low)} to ${two(high)})`;
}

function two(value) {
  return value.toFixed(2).replace(/^0/, '');
}
