// Tables about a run on the model of this folder that `xpatch eval` has no word for: entities that were trained on beside those held
// out, and queries whose picture the model names rightly beside the others. scripts/results.mjs puts them on the pages of its runs.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { bootstrapInterval } from '../../dist/stats/statistics.js';

const held = new Set(JSON.parse(readFileSync(new URL('splits.json', import.meta.url), 'utf8')).entities);

/** @param run folder of a run @param naming folder of the run real-naming: bare queries for names, with the score `likelihood` */
export function groundingTables(run, naming) {
  const lines = testLines(run);
  const named = new Map(testLines(naming).map(({ item, answerRank }) => [item, answerRank === 0]));
  const trainedOn = ({ item }) => !held.has(item);
  return [
    table('Accuracy by whether the entity was trained on (lenient score)', lines, [
      ['trained on', trainedOn],
      ['held out', (line) => !trainedOn(line)],
    ]),
    table('Accuracy by whether the picture is named rightly among all names of its kind (lenient score)', lines, [
      ['named', ({ item }) => named.get(item) === true],
      ['not named', ({ item }) => named.get(item) === false],
    ]),
  ].join('\n\n');
}

/** Naming accuracy itself. */
export function namingTable(run) {
  const lines = testLines(run).map((line) => ({ ...line, condition: 'the right name is the likeliest' }));
  const right = ({ answerRank }) => answerRank === 0;
  const parts = [
    ['trained on', ({ item }) => !held.has(item)],
    ['held out', ({ item }) => held.has(item)],
  ];
  return table('Pictures named, of all names of their kind', lines, parts, right);
}

function testLines(run) {
  return readFileSync(join(run, 'results.jsonl'), 'utf8')
    .split('\n')
    .filter((line) => line.endsWith('}'))
    .map((line) => JSON.parse(line))
    .filter(({ stage }) => stage === 'test');
}

/** One row a condition, two columns a task. */
function table(title, lines, parts, right = ({ lenient }) => lenient) {
  const tasks = [...new Set(lines.map(({ task }) => task))];
  const conditions = [...new Set(lines.map(({ condition }) => condition))];
  const columns = tasks.flatMap((task) => parts.map(([name, holds]) => ({ task, name, holds })));
  const cell = (condition) => (column) => {
    const some = lines.filter((l) => l.condition === condition && l.task === column.task && column.holds(l));
    if (some.length === 0) return '–';
    const { value, low, high } = bootstrapInterval(
      some.map((line) => ({ task: line.task, seed: line.seed, item: line.item, value: right(line) ? 1 : 0 })),
    );
    return `${value.toFixed(2)} [${low.toFixed(2)}, ${high.toFixed(2)}]`;
  };
  const [first] = conditions;
  const counts = columns.map(({ task, name, holds }) => {
    const n = lines.filter((line) => line.condition === first && line.task === task && holds(line)).length;
    return `${task} ${name} ${n}`;
  });
  return [
    `**${title}**`,
    '',
    `| Condition | ${columns.map(({ task, name }) => `${task}, ${name}`).join(' | ')} |`,
    `| --- |${' ---: |'.repeat(columns.length)}`,
    ...conditions.map((condition) => `| ${condition} | ${columns.map(cell(condition)).join(' | ')} |`),
    '',
    `- n, scored queries a cell: ${counts.join(', ')}.`,
  ].join('\n');
}
