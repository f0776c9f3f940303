// Token classes, curves over them, where they cross, and what is said about them.
import { describe, expect, test } from '@jest/globals';
import { buildPrompt } from '../../src/prompt/prompt-builder.js';
import { textOf } from '../../src/prompt/text-parts.js';
import type { TextPart } from '../../src/prompt/types.js';
import { decoding as decodingReport, decodingStatements, decodingTable } from '../../src/report/decodings.js';
import { crossingsTable, evolutionReport, evolutionStatements } from '../../src/report/evolution.js';
import type { Report } from '../../src/report/report.js';
import type { Estimate } from '../../src/stats/statistics.js';
import {
  type ClassCurve,
  classCurves,
  crossing,
  defaultPieLayers,
  leadingShares,
  softmaxByLayer,
  topClasses,
} from '../../src/studies/class-curves.js';
import { bestWordLayer, type Decoding } from '../../src/studies/decodings.js';
import type { EvolutionCell, PromptReading } from '../../src/studies/evolution.js';
import { resolveClasses } from '../../src/studies/evolution-classes.js';
import { requireModalities } from '../../src/studies/modalities.js';
import {
  classOf,
  firstTokens,
  isAmbiguous,
  type Tokenizer,
  taskTokens,
  wordTokens,
} from '../../src/tasks/token-classes.js';
import { expectError } from './helpers.js';

/** Splits at its longest known pieces, as BPE does for these. */
const VOCABULARY = [
  '\n',
  'Q',
  'x',
  'A',
  ':',
  ' ',
  'Pan',
  'thera',
  ' capital',
  'capital',
  'Capital',
  'Lima',
  ' Lima',
  'Paris',
  'b',
  'a',
  'y',
  ' baby',
  'Rio',
  'n',
  'B',
];
function tokenize(parts: readonly TextPart[]): Int32Array {
  const tokens: number[] = [];
  for (let rest = parts.map(textOf).join(''); rest !== ''; ) {
    const piece = VOCABULARY.filter((one) => rest.startsWith(one)).reduce((a, b) => (b.length > a.length ? b : a));
    tokens.push(VOCABULARY.indexOf(piece));
    rest = rest.slice(piece.length);
  }
  return Int32Array.from(tokens);
}
const model: Tokenizer = {
  assemble: (parts, encodeImage = () => Promise.resolve([])) =>
    buildPrompt(parts, {
      tokenize,
      describe: String,
      bytesOf: (token) => Buffer.from(VOCABULARY[token] as string),
      bos: undefined,
      nVocab: VOCABULARY.length,
      encodeImage,
    }),
  detokenize: (tokens: ArrayLike<number>) => Array.from(tokens, (token) => VOCABULARY[token]).join(''),
};
const id = (text: string) => VOCABULARY.indexOf(text);
const task = {
  taskWord: 'capital',
  items: [
    { input: 'Peru', output: 'Lima' },
    { input: 'France', output: 'Paris' },
    { input: 'Old Peru', output: 'Lima' },
    { input: 'lion', output: 'Panthera' },
    { input: 'Pan', output: 'Pan' },
  ],
};

const tokens = await taskTokens(model, task);

describe('tokens of words', () => {
  test('an answer begins with its first token after the delimiter, or after a space, never with a blank alone', async () => {
    expect(await firstTokens(model, 'Lima')).toEqual([id('Lima'), id(' Lima')]);
    expect(await firstTokens(model, 'Paris')).toEqual([id('Paris')]); // " Paris" begins with a blank here
    expect(await firstTokens(model, 'Panthera')).toEqual([id('Pan')]);
  });

  test('a task word is each of its spellings that is one token', async () => {
    expect(await wordTokens(model, 'capital')).toEqual([id('capital'), id('Capital'), id(' capital')]);
    expect(await wordTokens(model, 'baby')).toEqual([id(' baby')]);
    expect(await wordTokens(model, 'bay')).toEqual([]);
  });

  test('answers that begin alike are named', async () => {
    const { answers, begun } = tokens;
    expect([...answers.keys()]).toEqual(['Lima', 'Paris', 'Panthera', 'Pan']);
    const ambiguous = task.items.filter((item) => isAmbiguous(item, tokens));
    expect(ambiguous.map(({ output }) => output)).toEqual(['Panthera', 'Pan']);
    expect([...begun.keys()]).toEqual([id('Lima'), id(' Lima'), id('Paris'), id('Pan')]);
  });

  test('all right answers of an item are right, and need not be told apart', async () => {
    const item = { input: 'cat', output: 'Pan', also: ['Panthera', ' Lima'] };
    const both = { ...task, items: [item, { input: 'France', output: 'Paris' }] };
    const known = await taskTokens(model, both);
    expect([...known.begun.keys()]).toEqual([id('Pan'), id('Lima'), id(' Lima'), id('Paris')]);
    expect(both.items.map((one) => isAmbiguous(one, known))).toEqual([false, false]);
    expect(isAmbiguous({ output: 'Panthera' }, known)).toBe(true);
    for (const text of ['Pan', 'Lima', ' Lima']) expect(classOf(id(text), item, known, 0)).toBe('right answer');
    const classes = await resolveClasses(model, both, known, id(':'));
    expect(classes.tokensFor('answer', item)).toEqual([id('Pan'), id('Lima'), id(' Lima')]);
    expect(classes.tokensFor('other', item)).toEqual([id('Paris')]);
  });

  test('a best token is the first of its classes', async () => {
    const is = (text: string, output: string) => classOf(id(text), { output }, tokens, id('Paris'));
    expect(is(' Lima', 'Lima')).toBe('right answer');
    expect(is('Lima', 'Paris')).toBe('another answer');
    expect(is('Paris', 'Lima')).toBe('another answer'); // although it is the input token
    expect(is('Capital', 'Lima')).toBe('task word');
    expect(is('Rio', 'Lima')).toBe('another token');
    expect(classOf(id(':'), { output: 'Lima' }, tokens, id(':'))).toBe('input token');
  });
});

describe('classes of a prompt', () => {
  test('another answer is every other first token; collisions are named', async () => {
    const classes = await resolveClasses(model, task, tokens, id('Paris'));
    expect(classes.tokensFor('other', { output: 'Lima' })).toEqual([id('Paris'), id('Pan')]);
    expect(classes.tokensFor('input', { output: 'Lima' })).toEqual([id('Paris')]);
    expect(classes.collisions({ output: 'Lima' })).toEqual([]);
    expect(classes.collisions({ output: 'Paris' })).toEqual([['input', 'answer']]);
  });

  test('a class of words of your own is taken out of the other answers', async () => {
    const classes = await resolveClasses(model, task, tokens, id(':'), [
      'answer',
      'other',
      { name: 'mine', words: ['Pan'] },
    ]);
    expect(classes.tokensFor('mine', { output: 'Lima' })).toEqual([id('Pan')]);
    expect(classes.tokensFor('other', { output: 'Lima' })).toEqual([id('Paris')]);
    expect(classes.collisions({ output: 'Panthera' })).toEqual([['answer', 'mine']]);
  });

  test('what has no tokens is missing with a reason, what cannot be is refused', async () => {
    const odd = { taskWord: 'bay', items: [{ input: 'a', output: 'Lima' }] };
    const { missing, tokensFor } = await resolveClasses(model, odd, await taskTokens(model, odd), id(':'));
    expect(missing).toEqual({
      task: 'the vocabulary has no token for "bay"',
      other: expect.stringMatching(/share their first tokens/),
    });
    expect(tokensFor('task', { output: 'Lima' })).toBeUndefined();
    const bad = (classes: Parameters<typeof resolveClasses>[4]) => () =>
      resolveClasses(model, task, tokens, 0, classes);
    await expectError(bad(['task']), 'INVALID_ARGUMENT', /at least two/);
    await expectError(bad(['task', { name: 'task', words: ['Rio'] }]), 'INVALID_ARGUMENT', /different names/);
    await expectError(bad(['task', { name: '__proto__', words: ['Rio'] }]), 'INVALID_ARGUMENT', /cannot name a class/);
    await expectError(bad(['task', { name: 'mine', words: ['bay'] }]), 'TOKEN_INVALID', /several tokens/);
    await expectError(() => requireModalities({ hasVision: false }, ['image']), 'IMAGE_UNSUPPORTED', /--mmproj/);
    await expectError(() => requireModalities({ hasVision: true }, []), 'INVALID_ARGUMENT', /at least one/);
  });
});

describe('curves', () => {
  test('softmax over the classes alone, whatever the size of the logits', () => {
    const shares = softmaxByLayer([
      [0, 1000],
      [Math.log(3), 1000],
    ]);
    expect(shares[0]?.[0]).toBeCloseTo(0.25, 12);
    expect(shares[0]?.[1]).toBeCloseTo(0.75, 12);
    expect(shares[1]).toEqual([0.5, 0.5]);
  });

  test.each<[string, number[], number[], number | undefined]>([
    ['between two layers', [0, 0.2, 0.8], [1, 0.6, 0.2], 1.4],
    ['above from the start', [0.5, 0.6], [0.1, 0.2], 0],
    ['never', [0.1, 0.2], [0.5, 0.6], undefined],
    ['above, but not at the end', [0.9, 0.1], [0.1, 0.9], undefined],
    ['the last time counts', [0.9, 0, 0.9], [0.1, 0.5, 0.4], 1.5],
    ['equal is not above', [0.5, 0.5], [0.5, 0.5], undefined],
  ])('a crossing: %s', (_, over, under, expected) => {
    const found = crossing(over, under);
    if (expected === undefined) expect(found).toBeUndefined();
    else expect(found).toBeCloseTo(expected, 12);
  });

  test('shares of the layers that each curve leads', () => {
    const curve = (name: string, values: number[]): ClassCurve => ({
      name,
      points: values.map((value) => ({ value, low: value, high: value, n: 1, items: 1 })),
    });
    const shares = leadingShares([curve('a', [0.9, 0.6, 0.5, 0]), curve('b', [0.1, 0.4, 0.5, 1])]);
    expect([...shares]).toEqual([
      ['a', 0.75],
      ['b', 0.25],
    ]);
  });

  test('pies stand at a quarter, five eighths and the end', () => {
    expect(defaultPieLayers(33)).toEqual([8, 20, 32]);
    expect(defaultPieLayers(1)).toEqual([0]);
  });
});

/** Two layers; the answer rises from p to 1 - p. */
function reading(query: string, answer: number, more: Partial<PromptReading> = {}): PromptReading {
  return {
    seed: 1,
    query,
    expected: 'Lima',
    logits: { input: [2, 0], answer: [0, answer], other: [1, 1] },
    top: [
      { token: id('Paris'), text: 'Paris', is: 'another answer' },
      { token: id('Lima'), text: 'Lima', is: 'right answer' },
    ],
    taskRank: [7, 3],
    collisions: [],
    prompt: { text: '', tokens: [], images: [] } as unknown as PromptReading['prompt'],
    ...more,
  };
}
const cell = (more: Partial<EvolutionCell> = {}): EvolutionCell => ({
  task: 'country-capital',
  modality: 'text',
  classes: ['input', 'task', 'answer', 'other'],
  missing: { task: 'the vocabulary has no token for "capital"' },
  input: { token: id('Paris'), text: 'Paris', count: 3, answer: true },
  taskWord: 'capital',
  otherTokens: 2,
  prompts: 3,
  readings: [reading('a', 1), reading('b', 2), reading('c', 3, { collisions: [['input', 'answer']] }), reading('d', 4)],
  ambiguous: 0,
  ...more,
});

describe('curves of a cell', () => {
  test('prompts that cannot tell the classes apart are passed over and others taken', async () => {
    const { curves, n, passedOver, without } = await classCurves(cell(), ['input', 'task', 'answer']);
    expect({ n, passedOver, without }).toEqual({
      n: 3,
      passedOver: 1,
      without: [{ name: 'task', reason: 'the vocabulary has no token for "capital"' }],
    });
    const answer = curves.find(({ name }) => name === 'answer')?.points[1];
    const mean = [1, 2, 4].reduce((sum, logit) => sum + 1 / (1 + Math.exp(-logit)), 0) / 3;
    expect(answer?.value).toBeCloseTo(mean, 12);
    expect(answer?.low).toBeLessThan(mean);
    expect(answer?.high).toBeGreaterThan(mean);
    // Of a single prompt too: what it would be of another is not known.
    const [single] = (await classCurves(cell({ prompts: 1 }), ['input', 'answer'])).curves;
    const point = single?.points[1] as Estimate;
    expect([point.n, point.low < point.value, point.value < point.high]).toEqual([1, true, true]);
  });

  test('with another answer among the classes, an input token that is an answer has no curve', async () => {
    const { curves, n, passedOver, without } = await classCurves(cell(), ['input', 'answer', 'other']);
    expect(curves.map(({ name }) => name)).toEqual(['answer', 'other']);
    expect({ n, passedOver }).toEqual({ n: 3, passedOver: 0 });
    expect(without).toEqual([{ name: 'input', reason: 'the token is itself an answer of the task' }]);
    const own = await classCurves(cell({ input: { token: 2, text: ':', count: 3, answer: false } }), [
      'input',
      'answer',
      'other',
    ]);
    expect(own.curves.map(({ name }) => name)).toEqual(['input', 'answer', 'other']);
  });

  test('what cannot be drawn is refused; an abort is heard', async () => {
    await expectError(() => classCurves(cell(), ['input', 'nonsense']), 'INVALID_ARGUMENT', /nonsense/);
    await expectError(() => classCurves(cell(), ['task', 'answer']), 'INVALID_ARGUMENT', /fewer than two classes/);
    await expectError(
      () => classCurves(cell(), ['input', 'answer'], { signal: AbortSignal.abort() }),
      'ABORTED',
      /aborted/,
    );
  });

  test('pies count the prompts that were asked for', () => {
    const classes = topClasses([cell()], 0);
    expect(classes.find(({ label }) => label === 'another answer')).toEqual({
      label: 'another answer',
      count: 3,
      examples: ['Paris'],
    });
    expect(classes.reduce((sum, { count }) => sum + count, 0)).toBe(3);
  });
});

describe('what is said', () => {
  test('sentences come from the data', () => {
    const [word, other, input] = evolutionStatements([cell()]);
    expect(word).toBe(
      'The task word is the best token of the whole vocabulary, at any layer, in 0 of 3 prompts. The nearest it comes is rank 4 (country-capital, text, layer 1).',
    );
    expect(other).toMatch(/in 3 of 3 prompts at layer 0.*From layer 1 on.*in 3\.$/);
    expect(input).toMatch(/in 1 of 1 cases \(such as Paris in country-capital, text\)/);
    const decoded = reading('e', 1, {
      top: [
        { token: id('capital'), text: 'capital', is: 'task word' },
        { token: 0, text: '\n', is: 'another token' },
      ],
    });
    const [found, never] = evolutionStatements([cell({ readings: [decoded], prompts: 1 })]);
    expect(found).toMatch(/in 1 of 1 prompts\.$/);
    expect(never).toMatch(
      /in none of 1 prompts, at any layer\. .*not more frequent even at the last layer \(0 against 0\)/,
    );
  });

  test('the report has a table of crossings, curves with and without another answer, and pies', async () => {
    const sets = [];
    for (const names of [
      ['input', 'task', 'answer'],
      ['input', 'task', 'answer', 'other'],
    ]) {
      sets.push({ names, curves: [await classCurves(cell(), names)] });
    }
    const findings = { cells: [cell()], sets, pieLayers: [0, 1] };
    const { columns, rows, notes } = crossingsTable(findings);
    const row = Object.fromEntries(columns.map(({ name }, c) => [name, rows[0]?.[c]]));
    expect(row).toMatchObject({
      task: 'country-capital',
      'token at layer 0': 'Paris (3 of 3), an answer',
      'task word over input token': undefined,
      'right answer leads': 0.5,
    });
    expect(row['right answer over another answer']).toBeGreaterThan(0);
    expect(row['right answer over input token']).toBeGreaterThan(0);
    expect(row['right answer over input token']).toBeLessThan(1);
    expect(notes.join(' ')).toMatch(/country-capital, text 1\..*No task word in country-capital, text/);
    const { blocks } = evolutionReport(findings, { title: 't', provenance: {}, notes: ['said beside it'] });
    expect(blocks.map(({ name }) => name)).toEqual([
      'crossings',
      'curves-text',
      'curves-text-with-other',
      'pies',
      'pies-text',
    ]);
  });

  test('decodings: ranks from 1, hostile tokens made visible, the layer where task words rank best', () => {
    const decoding = (layers: [word: number | undefined, answer: number][]): Decoding => ({
      task: 'country-capital',
      spec: 'text',
      answerTokens: 4,
      layers: layers.map(([wordRank, answerRank], layer) => ({
        layer,
        top: [{ token: 1, text: '\u202e x\n', logit: 1, probability: 0.5 }],
        wordRank,
        answerRank,
      })),
    });
    const some = [
      decoding([
        [9, 0],
        [0, 3],
      ]),
      decoding([
        [1, 0],
        [4, 3],
      ]),
    ];
    expect(bestWordLayer(some)).toBe(1); // sqrt(1 * 5) against sqrt(10 * 2)
    expect(bestWordLayer([decoding([[undefined, 0]])])).toBeUndefined();
    expect(decodingStatements(some)).toEqual([
      'The task word is the best token at some layer of 1 of 2 vectors, and among the five best of 2. Task words rank best together at layer 1.',
    ]);
    const { rows } = decodingTable(some, 1, 18);
    expect(rows[0]).toEqual(['country-capital', 'text', '\\u{202e} x⏎', 1, 4]);

    const seeds = some.map((one, i) => ({ ...one, seed: i + 1 }));
    const table = decodingTable(seeds, 1, 18);
    expect(table.columns.map(({ name }) => name).slice(0, 4)).toEqual(['task', 'vector', 'seed', 'best tokens']);
    expect(table.rows.map((row) => row.slice(2))).toEqual([
      [1, '\\u{202e} x⏎', 1, 4],
      [2, '\\u{202e} x⏎', 5, 4],
    ]);
    const options = { tasks: [], specs: [], layers: [1], nLayers: 2, vocabulary: 18 };
    const { blocks } = decodingReport.report(seeds, options, { title: 't', provenance: {}, notes: [] }) as Report;
    const [words] = blocks.flatMap((block) => (block.kind === 'curves' ? [block.figure] : []));
    const [series, ...others] = words?.panels[0]?.series ?? [];
    expect(others).toEqual([]);
    expect(series?.label).toBe('country-capital');
    const [first] = series?.points ?? [];
    expect(first?.low).toBeCloseTo(Math.log10(2));
    expect(first?.y).toBeCloseTo((Math.log10(2) + 1) / 2);
    expect(first?.high).toBeCloseTo(1);

    // Two files of one task are two curves.
    const files = some.map((one, i) => ({ ...one, file: `${i}.safetensors` }));
    const loaded = decodingReport.report(files, options, { title: 't', provenance: {}, notes: [] }) as Report;
    const [ranks] = loaded.blocks.flatMap((block) => (block.kind === 'curves' ? [block.figure] : []));
    expect(ranks?.panels[0]?.series.map(({ label }) => label)).toEqual(['0.safetensors', '1.safetensors']);
  });
});
