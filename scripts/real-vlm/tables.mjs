// Tables about a run on the model of this folder that `xpatch eval` has no word for: whole answers that something follows, entities
// that were trained on beside those held out, and queries whose picture the model names rightly beside the others. scripts/results.mjs puts them on the pages of its runs.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { bootstrapInterval } from '../../dist/stats/statistics.js';

const textOf = (file) => readFileSync(new URL(file, import.meta.url), 'utf8');
const splits = JSON.parse(textOf('splits.json'));
const held = new Set(splits.entities);
/** Things of which a photograph was kept back from training. */
const keptBack = new Set([
  ...splits.photographed,
  ...textOf('photographs.tsv')
    .split('\n')
    .map((line) => line.split('\t'))
    .flatMap(([file, name]) => (splits.photographs.includes(file) ? [name] : [])),
]);

/** @param run folder of a run @param names what naming.mjs wrote */
export function groundingTables(run, names) {
  const lines = testLines(run);
  const answers = JSON.parse(readFileSync(names, 'utf8'));
  const right = new Map(answers.filter(drawn).map(({ name, said }) => [name, name === said]));
  return [
    namingTable(answers),
    table('Answers that begin with the right one, whole, whatever follows', lines, [['', () => true]], begins),
    table('Accuracy by whether the entity was trained on (lenient score)', lines, [
      ['trained on', ({ item }) => !held.has(item)],
      ['held out', ({ item }) => held.has(item)],
    ]),
    table('Accuracy by whether the picture is named rightly (lenient score)', lines, [
      ['named', ({ item }) => right.get(item) === true],
      ['not named', ({ item }) => right.get(item) === false],
    ]),
  ].join('\n\n');
}

/** @param run folder of a run on the task files of photographs.mjs */
export function photographTable(run) {
  return table('Accuracy by whether the photograph was trained on (lenient score)', testLines(run), [
    ['trained on', ({ item }) => !keptBack.has(item)],
    ['kept back', ({ item }) => keptBack.has(item)],
  ]);
}

const drawn = ({ style }) => style !== 'photograph';

/** Naming accuracy: the same table with the kinds of pictures as tasks. */
function namingTable(answers) {
  const lines = answers.map((answer) => ({
    task: answer.kind,
    condition: drawn(answer) ? answer.style : 'photographs',
    seed: 1,
    item: answer.picture,
    name: answer.name,
    lenient: answer.name === answer.said,
  }));
  return table('Pictures named rightly, of all names of their kind', lines, [
    ['trained on', ({ name }) => !held.has(name)],
    ['held out', ({ name }) => held.has(name)],
  ]);
}

/** A base model often goes on: "Zagreb is the capital of Croatia". */
function begins({ answer, expected }) {
  const said = answer.trim();
  return said.startsWith(expected) && !/^[\p{L}\p{N}]/u.test(said.slice(expected.length));
}

function testLines(run) {
  return readFileSync(join(run, 'results.jsonl'), 'utf8')
    .split('\n')
    .filter((line) => line.endsWith('}'))
    .map((line) => JSON.parse(line))
    .filter(({ stage }) => stage === 'test');
}

/** One row a condition, a column for each part of a task. */
function table(title, lines, parts, right = ({ lenient }) => lenient) {
  const tasks = [...new Set(lines.map(({ task }) => task))];
  const conditions = [...new Set(lines.map(({ condition }) => condition))];
  const columns = tasks.flatMap((task) => parts.map(([name, holds]) => ({ task, name, holds })));
  const cell = (condition) => (column) => {
    const some = lines.filter((l) => l.condition === condition && l.task === column.task && column.holds(l));
    if (some.length === 0) return '–';
    const { value, low, high } = bootstrapInterval(
      some.map((line) => {
        const { task, seed, item } = line;
        return { task, seed, item, share: true, value: right(line) ? 1 : 0 };
      }),
    );
    return `${value.toFixed(2)} [${low.toFixed(2)}, ${high.toFixed(2)}]`;
  };
  const countOf = (condition, { task, holds }) =>
    lines.filter((line) => line.condition === condition && line.task === task && holds(line)).length;
  const counts = columns.map((column) => {
    const some = new Set(conditions.map((condition) => countOf(condition, column)));
    return `${[column.task, column.name].filter(Boolean).join(' ')} ${[...some].join(' and ')}`;
  });
  return [
    `**${title}**`,
    '',
    `| Condition | ${columns.map(({ task, name }) => [task, name].filter(Boolean).join(', ')).join(' | ')} |`,
    `| --- |${' ---: |'.repeat(columns.length)}`,
    ...conditions.map((condition) => `| ${condition} | ${columns.map(cell(condition)).join(' | ')} |`),
    '',
    `- n, scored queries a cell: ${counts.join(', ')}.`,
  ].join('\n');
}
