import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { RunFolder } from '../../src/experiment/run-folder.js';
import { scoreLines } from '../../src/experiment/scorers.js';
import type { Condition, Experiment, ResultLine } from '../../src/experiment/types.js';
import { computeTable } from '../../src/report/experiment/compute.js';
import { paperBlocks } from '../../src/report/experiment/paper.js';
import { experimentReport } from '../../src/report/experiment/report.js';
import type { Figure } from '../../src/report/figures/figure.js';
import type { Block, Report, TextTable } from '../../src/report/report.js';
import { tableToCsv } from '../../src/report/tables.js';
import { writeReport } from '../../src/report/write-report.js';
import type { Cell, Table } from '../../src/stats/tables.js';
import type { ComputeResult } from '../../src/studies/compute.js';
import { TaskVector } from '../../src/vectors/task-vector.js';
import { temporaryFolder } from './helpers.js';
import { sampleManifest } from './run-samples.js';

const folder = await temporaryFolder();

const BARE: Condition = { name: 'No Context', kind: 'bare' };
const PROMPT: Condition = { name: 'Text Prompt', kind: 'prompt', spec: 'text' };
const PATCH: Condition = { name: 'Text Patch', kind: 'patch', spec: 'text' };
const RANDOM: Condition = { name: 'Random Vector', kind: 'patch', spec: 'text', control: 'random-vector' };

const experiment = (conditions: readonly Condition[], change: Partial<Experiment> = {}): Experiment => ({
  name: 'own',
  title: 'Own',
  tasks: ['capital', 'color'],
  seeds: [1, 2],
  query: 'text',
  style: 'twemoji',
  template: 'paper',
  shots: 5,
  validation: 30,
  test: 2,
  prompts: 30,
  readPosition: 'last-example',
  layers: 'validation',
  op: 'replace',
  strength: 1,
  maxTokens: 16,
  ignoreCase: false,
  scores: [],
  conditions,
  ...change,
});

const DOMAINS: Record<string, string> = { capital: 'country', color: 'food' };

function line(condition: string, task: string, seed: number, item: string, right: boolean, change: object = {}) {
  return {
    stage: 'test',
    condition,
    task,
    domain: DOMAINS[task] ?? task,
    seed,
    item,
    expected: 'yes',
    answer: right ? 'yes' : 'no',
    firstToken: right ? 'yes' : 'no',
    lenient: right,
    strict: right,
    prompt: { text: `Q:${item}\nA:`, tokens: [1, 2] },
    ...change,
  } as ResultLine;
}

/** Items a and b of two tasks under two seeds; `right` names those that are answered, as `capital1a`. */
function block(condition: string, right: readonly string[], change: object = {}, tasks = ['capital', 'color']) {
  return tasks.flatMap((task) =>
    [1, 2].flatMap((seed) =>
      ['a', 'b'].map((item) => line(condition, task, seed, item, right.includes(`${task}${seed}${item}`), change)),
    ),
  );
}

const report = (of: Experiment, lines: readonly ResultLine[], more: object = {}): Promise<Report> =>
  experimentReport(of, lines, { notes: ['A note.'], provenance: { command: 'xpatch eval' }, ...more });

function find<Kind extends Block['kind']>(from: Report, kind: Kind, name: string): Extract<Block, { kind: Kind }> {
  const found = from.blocks.find((one) => one.kind === kind && one.name === name);
  if (!found) throw new Error(`no ${kind} ${name} among ${from.blocks.map((one) => one.name).join(', ')}`);
  return found as Extract<Block, { kind: Kind }>;
}
const table = (from: Report, name: string) => find(from, 'table', name).table as Table;
const texts = (from: Report, name: string) => find(from, 'table', name).table as TextTable;
const figure = (from: Report, name: string): Figure => find(from, 'curves', name).figure;
const values = (of: Table, label: string) =>
  of.rows.find((row) => row.label === label)?.cells.map((cell: Cell | undefined) => cell?.value);

const PATCHED = ['capital1a', 'capital2a', 'capital2b', 'color1a'];
const MAIN = experiment([BARE, PROMPT, PATCH, RANDOM]);
const MAIN_LINES = [
  ...block('No Context', []),
  ...block('Text Prompt', ['capital1a', 'color2b']),
  ...block('Text Patch', PATCHED, { layer: 3, vector: 'v' }),
  ...block('Random Vector', [], { layer: 3, vector: 'r' }),
];

describe('report of an experiment', () => {
  test('accuracy by hand, a row a condition in the order of the config', async () => {
    const lenient = table(await report(MAIN, MAIN_LINES), 'lenient');
    expect(lenient.rows.map(({ label }) => label)).toEqual([
      'No Context',
      'Text Prompt',
      'Text Patch',
      'Random Vector',
    ]);
    expect(lenient.columns).toEqual(['capital', 'color', 'mean']);
    expect(values(lenient, 'Text Patch')).toEqual([3 / 4, 1 / 4, 1 / 2]);
    expect(values(lenient, 'Text Prompt')).toEqual([1 / 4, 1 / 4, 1 / 4]);
    expect(lenient.rows[2]?.cells[2]).toMatchObject({ n: 8, items: 4 });
    const notes = lenient.notes.join('\n');
    expect(notes).toContain('A note.');
    expect(notes).toContain('Patches at layer 3 (0-based block output), chosen on validation items.');
    // Text Patch: seed 1 (1/2 + 1/2) / 2, seed 2 (1 + 0) / 2; Text Prompt: seed 1 (1/2 + 0) / 2, seed 2 (0 + 1/2) / 2.
    expect(notes).toContain('No Context 0.000, Text Prompt 0.000, Text Patch 0.000');
  });

  test('differences by hand: paired, with exact p and Holm', async () => {
    const { rows } = texts(await report(MAIN, MAIN_LINES), 'differences-lenient');
    expect(rows.map(([first, second]) => [first, second])).toEqual([
      ['Text Patch', 'No Context'],
      ['Text Patch', 'Text Prompt'],
      ['Text Patch', 'Random Vector'],
    ]);
    // Against all wrong: items weigh 2/8, 1/8, 1/8 and 0, so 2 of the 8 signs are as far. Against the prompt: country a weighs
    // (1 + 1 - 1) / 8, country b 1/8, food a 1/8, food b -1/8; the sum 2/8 is reached or passed by all but 6 of 16.
    expect(rows.map((row) => row[2])).toEqual([1 / 2, 1 / 4, 1 / 2]);
    expect(rows.map((row) => row[5])).toEqual([1 / 4, 10 / 16, 1 / 4].map((p) => expect.closeTo(p, 12)));
    expect(rows.map((row) => row[6])).toEqual([3 / 4, 3 / 4, 3 / 4].map((p) => expect.closeTo(p, 12)));
    expect(rows.map((row) => [row[7], row[8]])).toEqual([
      [8, 4],
      [8, 4],
      [8, 4],
    ]);
  });

  test('first the effect: a sentence, every condition, the patch beside the prompt; the rest is folded', async () => {
    const { introduction, caveats, blocks } = await report(MAIN, MAIN_LINES);
    expect(introduction).toEqual([
      expect.stringMatching(
        /^With a vector of text examples patched in at layer 3, the model answers 50 % \[\d+, \d+\] of text queries right, with text examples in the prompt 25 % \[\d+, \d+\], with the query alone 0 % \[\d+, \d+\]\.$/,
      ),
    ]);
    expect(caveats).toEqual(['A note.']);
    expect(blocks.filter(({ detail }) => !detail).map(({ name }) => name)).toEqual([
      'conditions',
      'patch-and-prompt',
      'examples',
    ]);
    expect(blocks.length).toBeGreaterThan(5);
  });

  test('the bars are the means of the strict table', async () => {
    const whole = await report(MAIN, MAIN_LINES);
    const { bars } = find(whole, 'bars', 'conditions').bars;
    expect(bars.map(({ label, group, value }) => [label, group, value])).toEqual([
      ['No Context', 'without a task', 0],
      ['Text Prompt', 'prompt', 1 / 4],
      ['Text Patch', 'patch', 1 / 2],
      ['Random Vector', 'control', 0],
    ]);
    const mean = table(whole, 'strict')
      .rows.find(({ label }) => label === 'Text Patch')
      ?.cells.at(-1);
    expect(bars[2]).toMatchObject({ low: mean?.low, high: mean?.high });
  });

  test('patch and prompt on the same queries, by the strict score', async () => {
    // Right of 8: the patch capital1a, 2a, 2b and color1a, the prompt capital1a and color2b. One is only lenient, one unpaired.
    const lines = MAIN_LINES.map((one) =>
      one.condition === 'Text Patch' && one.task === 'capital' && one.seed === 2 && one.item === 'b'
        ? { ...one, strict: false }
        : one,
    ).filter((one) => !(one.condition === 'Text Prompt' && one.task === 'color' && one.seed === 2 && one.item === 'a'));
    const whole = await report(MAIN, lines);
    expect(texts(whole, 'patch-and-prompt').rows).toEqual([
      ['Text Patch right', 1, 2, 3],
      ['Text Patch wrong', 1, 3, 4],
      ['all', 2, 5, 7],
    ]);
    const { examples } = find(whole, 'examples', 'examples');
    expect(examples.map(({ cell }) => cell)).toEqual([
      'only the patch right',
      'only the patch right',
      'only the prompt right',
      'both right',
      'neither right',
      'neither right',
    ]);
    for (const { cell = '', answers } of examples) {
      expect(answers.slice(0, 2).map(({ condition }) => condition)).toEqual(['Text Prompt', 'Text Patch']);
      const [prompt, patch] = answers.map(({ correct }) => correct);
      const right = { both: [true, true], neither: [false, false], 'only the patch': [false, true] };
      expect([prompt, patch]).toEqual(right[cell.replace(/ right$/, '') as keyof typeof right] ?? [true, false]);
    }
  });

  test('the pair is chosen by the config: own vectors, another modality than the query, text; a table a layer', async () => {
    const both = (spec: 'text' | 'image', query: 'text' | 'image'): Condition[] => [
      { name: `${spec} Prompt, ${query}`, kind: 'prompt', spec, query },
      { name: `${spec} Patch, ${query}`, kind: 'patch', spec, query },
    ];
    const conditions = [
      ...both('text', 'text'),
      ...both('image', 'text'),
      ...both('image', 'image'),
      ...both('text', 'image'),
    ];
    const foreign: Condition = { name: 'LLM Patch', kind: 'patch', spec: 'text', query: 'image', foreign: true };
    const of = experiment([foreign, ...conditions]);
    const lines = of.conditions.flatMap(({ name, kind }) =>
      kind === 'patch'
        ? [3, 4].flatMap((layer) => block(name, name === 'text Patch, image' ? [] : PATCHED, { layer }))
        : block(name, []),
    );
    const tables = (await report(of, lines)).blocks.filter(({ name }) => name.startsWith('patch-and-prompt'));
    expect(tables.map(({ name, heading }) => [name, heading])).toEqual([
      ['patch-and-prompt-layer-3', 'text Patch, image, layer 3 and text Prompt, image'],
      ['patch-and-prompt-layer-4', 'text Patch, image, layer 4 and text Prompt, image'],
    ]);
  });

  test('a vector that is not a plain task vector is called by its condition', async () => {
    const sentenceOf = async (more: Partial<Condition>) => {
      const conditions: Condition[] = [
        { name: 'Prompt', kind: 'prompt', spec: 'text' },
        { name: 'Special Patch', kind: 'patch', spec: 'text', ...more },
      ];
      const lines = [...block('Prompt', []), ...block('Special Patch', PATCHED, { layer: 3 })];
      return (await report(experiment(conditions), lines)).introduction.join(' ');
    };
    expect(await sentenceOf({})).toMatch(
      /With a vector of text examples patched in at layer 3, .*, with text examples in/,
    );
    for (const more of [{ vector: 'function' }, { foreign: true }] as const) {
      expect(await sentenceOf(more)).toMatch(
        /With the vector of Special Patch patched in at layer 3, .*, with Prompt /,
      );
    }
  });

  test('only queries that both conditions answered are compared', async () => {
    const cut = MAIN_LINES.filter(({ condition, task }) => condition !== 'No Context' || task === 'color');
    const whole = await report(MAIN, cut);
    expect(texts(whole, 'differences-lenient').rows[0]?.slice(0, 3)).toEqual(['Text Patch', 'No Context', 1 / 4]);
    // A mean over fewer tasks than the others have is not shown.
    expect(values(table(whole, 'lenient'), 'No Context')).toEqual([undefined, 0, undefined]);
  });

  test('does not depend on the order of the lines', async () => {
    const swept = [...MAIN_LINES, ...VALIDATION];
    expect(await report(MAIN, swept.toReversed())).toEqual(await report(MAIN, swept));
  });

  test('an empty run and missing conditions', async () => {
    expect((await report(MAIN, [])).blocks).toEqual([]);
    const bare = await report(MAIN, block('No Context', []));
    expect(bare.blocks.map(({ name }) => name)).toEqual(['conditions', 'examples', 'lenient', 'strict']);
    expect(table(bare, 'lenient').rows.map(({ label }) => label)).toEqual(['No Context']);
  });

  test('probability and likelihood where they were measured', async () => {
    const scored = MAIN_LINES.map((one, i) =>
      one.condition === 'Text Patch' ? { ...one, probability: 0.5, answerRank: i % 2 } : one,
    );
    const whole = await report(MAIN, scored);
    expect(values(table(whole, 'probability'), 'Text Patch')).toEqual([0.5, 0.5, 0.5]);
    expect(table(whole, 'probability').rows).toHaveLength(1);
    expect(values(table(whole, 'likelihood'), 'Text Patch')).toEqual([0.5, 0.5, 0.5]);
  });

  const VALIDATION = [
    ...block('Text Patch', [], { stage: 'validation', layer: 2, strict: undefined, prompt: undefined }),
    ...block('Text Patch', PATCHED, { stage: 'validation', layer: 3, strict: undefined, prompt: undefined }),
  ];

  test('layer sweep from validation lines, the chosen layer marked', async () => {
    const whole = await report(MAIN, [...MAIN_LINES, ...VALIDATION]);
    const { panels } = figure(whole, 'layer-sweep');
    expect(panels.map(({ title }) => title)).toEqual(['capital', 'color']);
    expect(panels[0]?.series.map(({ label }) => label)).toEqual(['Text Patch']);
    expect(panels[0]?.series[0]?.points.map(({ x, y }) => [x, y])).toEqual([
      [2, 0],
      [3, 3 / 4],
    ]);
    expect(panels[1]?.baselines).toEqual([]);
    expect(panels[0]?.verticals).toEqual([{ label: 'layer 3', x: 3 }]);
    expect(figure(whole, 'layer-sweep-mean').panels[0]?.series[0]?.points.map(({ y }) => y)).toEqual([0, 1 / 2]);
  });

  test('bands of a layer sweep are those of the table, also where a seed has fewer queries', async () => {
    const tested = [
      ...block('Text Patch', PATCHED, { layer: 2 }),
      ...block('Text Patch', ['color2b'], { layer: 3 }).filter(({ seed, item }) => seed === 1 || item === 'b'),
    ];
    const whole = await report(experiment([PATCH], { layers: 'all' }), tested);
    const points = ['test-layers', 'test-layers-mean'].flatMap((name) =>
      figure(whole, name).panels.map(({ series }) => series[0]?.points.map(({ y, low, high }) => [y, low, high])),
    );
    const { rows } = table(whole, 'lenient');
    const cells = [0, 1, 2].map((column) =>
      rows.map(({ cells }) => [cells[column]?.value, cells[column]?.low, cells[column]?.high]),
    );
    expect(points).toEqual(cells);
    // Of color: seed 1 a and b wrong, seed 2 b right, in the mean 1/3 of the queries; no capital.
    expect(points[2]?.[1]?.[0]).toBeCloseTo(1 / 6, 12);
    const notes = ['test-layers', 'test-layers-mean'].map((name) => figure(whole, name).notes);
    expect(notes[0]).toEqual(notes[1]);
    expect(notes[0]?.[0]).toBe(
      'Lenient score on test items. Bands: 95 % bootstrap intervals over items, seeds held fixed.',
    );
  });

  test('several layers in the test: a row each, and curves', async () => {
    const lines = [
      ...block('Text Prompt', ['capital1a', 'color2b']),
      ...block('Text Patch', [], { layer: 2 }),
      ...block('Text Patch', PATCHED, { layer: 3 }),
    ];
    const whole = await report(experiment([PROMPT, PATCH], { layers: 'all' }), lines);
    const rows = table(whole, 'lenient').rows.map(({ label }) => label);
    expect(rows).toEqual(['Text Prompt', 'Text Patch, layer 2', 'Text Patch, layer 3']);
    const [panel] = figure(whole, 'test-layers-mean').panels;
    expect(figure(whole, 'test-layers').panels.map(({ title }) => title)).toEqual(['capital', 'color']);
    expect(panel?.series).toMatchObject([
      {
        label: 'Text Patch',
        points: [
          { x: 2, y: 0 },
          { x: 3, y: 1 / 2 },
        ],
      },
    ]);
    expect(panel?.baselines).toEqual([{ label: 'Text Prompt', y: 1 / 4 }]);
  });

  describe('several layers in the test', () => {
    const IMAGE: Condition = { ...PATCH, name: 'Image Patch', query: 'image' };
    const FEW: Condition = { ...PATCH, name: 'One', prompts: 1 };
    const NOISY: Condition = { name: 'Noisy', kind: 'patch', spec: 'instruction', swaps: 1 };
    const INSTRUCTION: Condition = { name: 'Instruction', kind: 'patch', spec: 'instruction' };
    const conditions = [BARE, PATCH, RANDOM, IMAGE, FEW, INSTRUCTION, NOISY];
    const at = (layers: readonly number[]) =>
      report(experiment(conditions, { layers }), [
        ...block('No Context', []),
        ...conditions
          .slice(1)
          .flatMap(({ name }) => layers.flatMap((layer) => block(name, layer === 3 ? PATCHED : [], { layer }))),
      ]);

    test('every comparison is made at each layer, as one family', async () => {
      const { rows, notes } = texts(await at([2, 3]), 'differences-lenient');
      expect(rows.slice(0, 4).map(([first, second, value]) => [first, second, value])).toEqual([
        ['Text Patch, layer 2', 'No Context', 0],
        ['Text Patch, layer 3', 'No Context', 1 / 2],
        ['Text Patch, layer 2', 'Random Vector, layer 2', 0],
        ['Text Patch, layer 3', 'Random Vector, layer 3', 0],
      ]);
      expect(rows.some(([first, second]) => /layer 2/.test(`${first}`) && /layer 3/.test(`${second}`))).toBe(false);
      // Text against bare and random; the vector of one prompt, the instruction and the noisy one against bare; noisy against clean.
      expect(rows).toHaveLength(2 * 6);
      expect(notes.join(' ')).toContain('for the 12 comparisons of this table');
    });

    test('specification by query, noise and examples have each layer too', async () => {
      const whole = await at([2, 3]);
      const { columns, rows } = table(whole, 'matrix-lenient');
      expect(columns).toEqual(
        ['image', 'text'].flatMap((query) =>
          ['prompt', 'patch, layer 2', 'patch, layer 3'].map((kind) => `${query} query, ${kind}`),
        ),
      );
      expect(rows.find(({ label }) => label === 'text')?.cells.map((cell) => cell?.value)).toEqual([
        undefined,
        0,
        1 / 2,
        undefined,
        0,
        1 / 2,
      ]);
      const noisy = table(whole, 'noisy-lenient').rows.map(({ label }) => label);
      expect(noisy).toEqual(['Instruction', 'Noisy'].flatMap((name) => [`${name}, layer 2`, `${name}, layer 3`]));
      expect(figure(whole, 'examples-curve').panels.map(({ title }) => title)).toEqual(
        ['text', 'image'].flatMap((query) => [`${query} queries, layer 2`, `${query} queries, layer 3`]),
      );
    });

    test('more than a handful have no comparisons, and the tables say so', async () => {
      const whole = await at([0, 1, 2, 3, 4, 5]);
      const names = whole.blocks.map(({ name }) => name);
      expect(names.filter((name) => /differences|matrix|examples-curve/.test(name))).toEqual([]);
      expect(table(whole, 'lenient').notes.join(' ')).toMatch(
        /more than 5 layers, so there is no table of differences/,
      );
      const few = await at([0, 1, 2, 3, 4]);
      expect(texts(few, 'differences-lenient').rows).toHaveLength(5 * 6);
      expect(table(few, 'lenient').notes.join(' ')).not.toMatch(/more than/);
    });
  });

  test("the paper's numbers stand beside a preset of whatever name, and beside nothing that is only called so", async () => {
    const namesOf = async (change: Partial<Experiment>) =>
      (await report(experiment([BARE], change), block('No Context', []))).blocks.map(({ name }) => name);
    expect(await namesOf({ preset: 'main', name: 'my-main' })).toContain('paper-main');
    expect((await namesOf({ name: 'main' })).filter((name) => name.startsWith('paper'))).toEqual([]);
  });

  test('examples and instruction: 0 is the instruction alone', async () => {
    const conditions: Condition[] = [
      { name: 'I', kind: 'patch', spec: 'instruction' },
      { name: 'I1', kind: 'patch', spec: 'instruction', swaps: 1 },
      ...[1, 2].flatMap((prompts): Condition[] => [
        { name: `T${prompts}`, kind: 'patch', spec: 'text', prompts },
        // Vectors that are written in otherwise are no points of the curve.
        { name: `S${prompts}`, kind: 'patch', spec: 'text', prompts, strength: 3 },
        { name: `E${prompts}`, kind: 'patch', spec: 'ensemble', prompts },
      ]),
    ];
    const right: Record<string, string[]> = {
      I: ['capital1a'],
      T2: ['color1a'],
      E1: PATCHED,
      E2: PATCHED,
      S1: PATCHED,
    };
    const lines = conditions.flatMap(({ name }) => block(name, right[name] ?? [], { layer: 3 }));
    const whole = await report(experiment(conditions), lines);
    const { series } = figure(whole, 'examples-curve').panels[0] ?? { series: [] };
    expect(series.map(({ label, points }) => [label, points.map(({ x, y }) => [x, y])])).toEqual([
      ['text examples', [[5, 0], [10, 1 / 8]]], // biome-ignore format: pairs
      ['examples and instruction', [[0, 1 / 8], [5, 1 / 2], [10, 1 / 2]]], // biome-ignore format: pairs
    ]);
    expect(table(whole, 'noisy-lenient').rows.map(({ label }) => label)).toEqual(['I', 'I1']);
    const swept = conditions.flatMap(({ name }) =>
      [0, 1].flatMap((layer) => block(name, [], { stage: 'validation', layer })),
    );
    const drawn = figure(await report(experiment(conditions), [...lines, ...swept]), 'layer-sweep');
    expect(drawn.panels[0]?.series.map(({ label }) => label)).toEqual(['I', 'T2', 'E2']);
    expect(drawn.notes?.join()).toContain('Not drawn: 5 conditions');
    const pairs = texts(whole, 'differences-lenient').rows.map((row) => `${row[0]}-${row[1]}`);
    expect(pairs.sort()).toEqual(['E1-I', 'E1-T1', 'E2-I', 'E2-T2', 'I1-I']);
  });

  test('accuracy by strength, of conditions that differ in nothing else', async () => {
    const at = (name: string, strength: number, change: Partial<Condition> = {}): Condition => ({
      ...PATCH,
      vector: 'steering',
      ...change,
      name: `${name}, strength ${strength}`,
      ...(strength !== 1 && { strength }),
    });
    const conditions = [
      BARE,
      ...[4, -1, 1].map((strength) => at('Steering', strength)),
      ...[1, 4].map((strength) => at('Random', strength, { control: 'random-vector' })),
      at('Alone', 4, { steps: 'all' }),
    ];
    const right: Record<string, string[]> = { 'Steering, strength 4': PATCHED, 'Steering, strength 1': ['capital1a'] };
    const lines = conditions.flatMap(({ name, kind }) =>
      (kind === 'bare' ? [undefined] : [2, 3]).flatMap((layer) => block(name, right[name] ?? [], { layer })),
    );
    const { panels } = figure(await report(experiment(conditions), lines), 'strength-curve');
    expect(panels.map(({ title }) => title)).toEqual(['layer 2', 'layer 3']);
    expect(panels[1]?.series.map(({ label, points }) => [label, points.map(({ x, y }) => [x, y])])).toEqual([
      ['Steering', [[-1, 0], [1, 1 / 8], [4, 1 / 2]]], // biome-ignore format: points
      ['Random', [[1, 0], [4, 0]]], // biome-ignore format: points
    ]);
    expect(panels[0]?.baselines).toEqual([{ label: 'No Context', y: 0 }]);
    const patches = conditions.slice(1);
    const swept = patches.flatMap(({ name }) =>
      [0, 1].flatMap((layer) => block(name, [], { stage: 'validation', layer })),
    );
    const drawn = figure(await report(experiment(conditions), [...lines, ...swept]), 'layer-sweep');
    const curves = ['Steering, strength 4', 'Random, strength 1', 'Alone, strength 4'];
    expect(drawn.panels[0]?.series.map(({ label }) => label)).toEqual(curves);
    const alone = await report(experiment([BARE, PATCH]), [...block('No Context', []), ...block('Text Patch', [])]);
    expect(alone.blocks.map(({ name }) => name)).not.toContain('strength-curve');
  });

  test('specification by query', async () => {
    const conditions: Condition[] = [
      { ...PATCH, name: 'TT', query: 'text' },
      { ...PATCH, name: 'TI', query: 'image' },
      { ...PROMPT, name: 'PI', query: 'image' },
    ];
    const lines = [...block('TT', PATCHED), ...block('TI', ['color1a']), ...block('PI', [])];
    const matrix = table(await report(experiment(conditions), lines), 'matrix-lenient');
    expect(matrix.columns).toEqual([
      'image query, prompt',
      'image query, patch',
      'text query, prompt',
      'text query, patch',
    ]);
    expect(matrix.rows.map(({ label }) => label)).toEqual(['text']);
    expect(values(matrix, 'text')).toEqual([0, 1 / 8, undefined, 1 / 2]);
    expect(matrix.notes.at(-1)).toContain('image query, patch 8 (4 items), text query, prompt 0, text query, patch 8');
  });

  test('text and image queries are swept in figures of their own', async () => {
    const conditions: Condition[] = [
      { ...PATCH, name: 'TT', query: 'text' },
      { ...PATCH, name: 'TI', query: 'image' },
      { ...PROMPT, name: 'PI', query: 'image' },
    ];
    const lines = ['TT', 'TI'].flatMap((name) =>
      [0, 1].flatMap((layer) => block(name, [], { stage: 'validation', layer })),
    );
    const whole = await report(experiment(conditions), [...lines, ...block('PI', PATCHED, { stage: 'validation' })]);
    const [image, text] = [figure(whole, 'layer-sweep-mean-image'), figure(whole, 'layer-sweep-mean-text')];
    expect(image.title).toBe('Accuracy on image queries by patched layer, mean over tasks');
    expect(image.panels[0]?.series.map(({ label }) => label)).toEqual(['TI']);
    expect(image.panels[0]?.baselines).toEqual([{ label: 'PI', y: 1 / 2 }]);
    expect(text.panels[0]?.series.map(({ label }) => label)).toEqual(['TT']);
    expect(text.panels[0]?.baselines).toEqual([]);
  });

  test('conflict: whom the answer follows', async () => {
    const conditions: Condition[] = [
      { name: 'Question', kind: 'bare', question: '{rival}' },
      { name: 'System', kind: 'bare', question: '{rival}', before: 'Do.' },
      { ...PATCH, question: '{rival}' },
    ];
    const rival = (lines: ResultLine[]) =>
      lines.map((one, i) => ({
        ...one,
        rival: 'other',
        ...(!one.lenient && i % 2 === 1 && { answer: 'other', firstToken: 'oth' }),
      }));
    const lines = [
      ...rival(block('Question', [])),
      ...rival(block('System', [])).map((one) => ({ ...one, cut: true as const })),
      ...rival(block('Text Patch', PATCHED, { layer: 3 })),
    ];
    const whole = await report(experiment(conditions), lines);
    // Question: every second answer is the rival's. Patch: 4 of 8 follow the task; of the others capital1b, color1b and color2b
    // are at odd places.
    expect(values(table(whole, 'conflict-strict'), 'Question')).toEqual([0, 1 / 2, 1 / 2]);
    // An answer that was cut off is nobody's as a whole.
    expect(values(table(whole, 'conflict-strict'), 'System')).toEqual([0, 0, 1]);
    expect(values(table(whole, 'conflict-lenient'), 'System')).toEqual([0, 1 / 2, 1 / 2]);
    expect(values(table(whole, 'conflict-strict'), 'Text Patch')).toEqual([1 / 2, 3 / 8, 1 / 8]);
    expect(values(table(whole, 'conflict-lenient'), 'Text Patch')).toEqual([1 / 2, 3 / 8, 1 / 8]);
    const pairs = texts(whole, 'differences-lenient').rows.map((row) => `${row[0]}-${row[1]}`);
    expect(pairs).toEqual(['Text Patch-Question', 'Text Patch-System']);
  });

  test('cosines of own and foreign vectors, mismatched tasks beside', async () => {
    const conditions: Condition[] = [PATCH, { ...PATCH, name: 'LLM Patch', foreign: true }];
    const lines = ['capital', 'color'].flatMap((task) => [
      line('Text Patch', task, 1, 'a', true, { layer: 0, vector: `own.${task}` }),
      line('LLM Patch', task, 1, 'a', true, { layer: 0, vector: `foreign.${task}` }),
    ]);
    const vector = (name: string, x: number, y: number) =>
      new TaskVector(
        {
          model: { hash: name, architecture: 'llama', name, nEmbd: 2, nLayers: 1 },
          hook: 'resid_post',
          layers: [0],
          readPosition: 'last-example',
          origin: { op: 'capture', position: 0, token: 0 },
        },
        [x, y],
      );
    const vectors: Record<string, TaskVector> = {
      'own.capital': vector('vlm', 1, 0),
      'own.color': vector('vlm', 0, 2),
      'foreign.capital': vector('llm', 3, 4),
      'foreign.color': vector('llm', 0, 1),
    };
    const loadVector = async (name: string) => vectors[name];
    const whole = await report(experiment(conditions), lines, { loadVector });
    // Same task: cos((1,0), (3,4)) = 0.6 and 1; mismatched: (1,0) with (0,1) 0, and (0,2) with (3,4) 0.8.
    expect(texts(whole, 'cosine').rows).toEqual([
      [0, expect.closeTo(0.8, 6), expect.closeTo(0.6, 6), 1, 2, expect.closeTo(0.4, 6), 0, expect.closeTo(0.8, 6), 2],
    ]);
    const heads = tableToCsv(texts(whole, 'cosine')).split('\r\n')[0]?.split(',') ?? [];
    expect(heads).toContain('mismatched: n');
    expect(new Set(heads).size).toBe(heads.length);
    // The same vectors, patched at one layer or at two.
    const twice = [...lines, ...lines.map((one) => ({ ...one, layer: 1 }))];
    expect(texts(await report(experiment(conditions), twice, { loadVector }), 'cosine').rows).toHaveLength(1);
    expect(texts(whole, 'differences-lenient').rows.map((row) => `${row[0]}-${row[1]}`)).toEqual([
      'LLM Patch-Text Patch',
    ]);
    expect((await report(experiment(conditions), lines)).blocks.map(({ name }) => name)).not.toContain('cosine');
  });

  test('divergence of foreign vectors', async () => {
    const lines = [0.3, 0.1, 0.4, 0.2].map((kl, i) =>
      line('LLM Patch', 'capital', 1, String(i), true, { layer: 0, kl }),
    );
    const whole = await report(experiment([{ ...PATCH, name: 'LLM Patch', foreign: true }]), lines);
    // As numpy.quantile has it: half way from .2 to .3, and .85 of the way from .3 to .4.
    const [mean, median, high] = [0.25, 0.25, 0.385].map((x) => expect.closeTo(x, 12));
    expect(texts(whole, 'divergence').rows).toEqual([['LLM Patch', mean, median, high, 0.4, 4]]);
  });

  test('a worked example says the same where its picture is missing', async () => {
    const file = join(folder, 'capital.json');
    const of = experiment([BARE], { tasks: [file, 'color'], query: 'image' });
    const lines = ['capital', 'color'].map((task) =>
      line('No Context', task, 1, 'peru', true, {
        prompt: { text: 'Q:<image>', images: ['pics/p1.png'], tokens: [1] },
      }),
    );
    const examples = async () => find(await report(of, lines), 'examples', 'examples').examples;
    const [without, color] = await examples();
    await mkdir(join(folder, 'pics'));
    await writeFile(join(folder, 'pics', 'p1.png'), 'x');
    expect([without?.query, color?.query]).toEqual(['p1.png', 'p1.png']);
    expect(await examples()).toEqual([{ ...without, picture: join(folder, 'pics', 'p1.png') }, color]);
  });

  test('hostile names of tasks, conditions and answers reach no file unescaped', async () => {
    const task = '<img src=x onerror=alert(1)>\u202e|`$\u001b[31m';
    const of = experiment([{ ...BARE, name: '<script>alert(2)</script>' }, PATCH], {
      tasks: [task],
      title: '</title><s>',
    });
    const lines = ['<script>alert(2)</script>', 'Text Patch'].flatMap((name) =>
      [2, 3].flatMap((layer) =>
        ['test', 'validation'].map((stage) =>
          line(name, task, 1, '"><svg onload=alert(3)>', true, {
            stage,
            answer: '<s>&',
            ...(name === 'Text Patch' && { layer }),
          }),
        ),
      ),
    );
    await writeReport(
      await RunFolder.create(join(folder, 'run'), sampleManifest({ plan: [] })),
      await report(of, lines),
    );
    const read = (file: string) => readFile(join(folder, 'run', file), 'utf8');
    const page = (await read('report.html')).replace(/<script type="application\/json".*?<\/script>/gs, '');
    for (const text of [page, await read('figures/layer-sweep.svg'), await read('tables/lenient.md')]) {
      expect(/<img src=x|<script>alert|<svg onload|<s>/.exec(text)?.[0]).toBeUndefined();
    }
    for (const text of [page, await read('tables/lenient.txt'), await read('tables/examples.txt')]) {
      // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what must not appear
      expect(/[\u001b\u202e]/.exec(text)?.[0]).toBeUndefined();
    }
  });
});

describe("the paper's numbers", () => {
  test('stand in tables of their own, named as other models', () => {
    const [main] = paperBlocks('main');
    if (main?.kind !== 'table') throw new Error('no table');
    const { title, rows, notes } = main.table as TextTable;
    expect(title).toContain('other models: LLaVA-1.5-7B, Mantis-8B-Fuyu, Idefics2-8B, from the paper');
    expect(notes[0]).toContain('2410.22330');
    const row = rows.find(([model, condition]) => model === 'LLaVA-1.5-7B' && condition === 'Text Patch');
    expect(row?.slice(2)).toEqual([0.31, 0.3, 0.26, 0.18, 0.53, 0.31, expect.closeTo(1.89 / 6, 12)]);
  });

  test.each([
    ['main', 1],
    ['modalities', 2],
    ['llm-to-vlm', 2],
    ['instruction', 1],
    ['layer-sweep', 2],
    ['template', 2],
    ['vqa', 1],
    ['task-conflict', 1],
    ['compute', 1],
    ['quantisation', 0],
    ['image-to-text', 0],
    ['mine', 0],
  ])('%s has %i of them', (preset, count) => {
    const blocks = paperBlocks(preset);
    expect(blocks).toHaveLength(count);
    for (const block of blocks) {
      const { notes } = (block as Extract<Block, { kind: 'table' }>).table;
      expect(notes.join(' ')).toMatch(/100 test items|30 validation items|n is not given/);
    }
  });
});

test('compute: medians and ratios to the query alone', () => {
  const result: ComputeResult = {
    shots: 30,
    query: 'text',
    repetitions: 3,
    ways: [
      { way: 'Prompt', positions: [400], seconds: [3, 1, 2] },
      { way: 'Patch', positions: [10], seconds: [0.3, 0.25, 0.2] },
      { way: 'Query alone', positions: [10], seconds: [0.2, 0.1, 0.3] },
    ],
    vectorSeconds: 2,
    bytesPerPosition: 1000,
    weightBytes: 5e6,
  };
  expect(computeTable(result).rows).toEqual([
    ['Prompt', 2, 1.5, 2.5, 10, 400, 0.4, 40],
    ['Patch', 0.25, 0.225, 0.275, 1.25, 10, 0.01, 1].map((x) => (typeof x === 'number' ? expect.closeTo(x, 12) : x)),
    ['Query alone', 0.2, expect.closeTo(0.15, 12), 0.25, 1, 10, 0.01, 1],
  ]);
  expect(computeTable({ ...result, bytesPerPosition: undefined }).columns.map(({ name }) => name)).not.toContain(
    'KV cache, MB',
  );
});

test("scores of one's own have tables and comparisons like the others", async () => {
  const scored = scoreLines(MAIN_LINES, { shouted: ({ answer }) => (answer === 'yes' ? 3 : 1) });
  const made = await report(MAIN, scored);
  const own = table(made, 'score-shouted');
  expect(values(own, 'Text Patch')).toEqual([2.5, 1.5, 2]);
  expect(own.notes.join(' ')).toMatch(/Score shouted: a function of the answer/);
  expect(texts(made, 'differences-shouted').rows.map(([first, second]) => `${first} - ${second}`)).toContain(
    'Text Patch - Text Prompt',
  );
});
