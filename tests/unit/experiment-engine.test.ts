import { describe, expect, test } from '@jest/globals';
import { ChatTemplate } from '../../src/chat/chat-template.js';
import { LayerChoice } from '../../src/experiment/layer-choice.js';
import { scoreLines } from '../../src/experiment/scorers.js';
import { tokenScore } from '../../src/experiment/scores.js';
import type { Condition, ResultLine } from '../../src/experiment/types.js';
import { shuffleLabels } from '../../src/experiment/vectors.js';
import { chatAnswers, writeChat } from '../../src/tasks/model-format.js';
import { type PromptContent, plainFormat } from '../../src/tasks/prompt-format.js';
import { fewShotPrompt, instructionPrompt, queryPrompt } from '../../src/tasks/prompts.js';
import type { TaskItem } from '../../src/tasks/task.js';
import { DELIMITER, PAPER_TEMPLATE } from '../../src/tasks/template.js';
import { expectError, joined } from './helpers.js';

const item = (name: string, output = `${name}!`): TaskItem => ({ input: name, output, image: `/p/${name}.png` });
const [a, b, c] = [item('a'), item('b'), item('c')];
const mark = { mark: DELIMITER };

describe('written-out templates', () => {
  test("the paper's gives the same parts as the paper's own prompts", () => {
    const { write } = plainFormat(PAPER_TEMPLATE);
    for (const shotModality of ['text', 'image'] as const) {
      for (const queryModality of ['text', 'image'] as const) {
        expect(write({ query: c, queryModality })).toEqual(queryPrompt(c, queryModality));
        expect(write({ shots: [a, b], shotModality, query: c, queryModality })).toEqual(
          fewShotPrompt([a, b], shotModality, c, queryModality),
        );
      }
    }
    const instruction = 'The food of the day:';
    expect(write({ instruction })).toEqual(instructionPrompt({ name: 't', instruction }));
  });

  test('what stands before, an instruction, and a question have their places', () => {
    const { write } = plainFormat(PAPER_TEMPLATE);
    const content = { before: 'Be brief.\n', instruction: 'The name:', query: a, question: 'Which?' };
    expect(joined(write({ ...content, queryModality: 'image' }))).toEqual([
      'Be brief.\nThe name:\n\nQ:',
      { image: '/p/a.png' },
      'Which?\nA:',
      mark,
    ]);
    expect(joined(write(content))).toEqual(['Be brief.\nThe name:\n\nQ:a Which?\nA:', mark]);
  });

  test('fields of an item are filled in once, whatever they say', () => {
    const { write } = plainFormat({ example: '<{input}>{output};', query: '{input}=', stop: ';' });
    const odd = item('{output}', '{input}');
    expect(write({ shots: [odd], query: odd })).toEqual([
      ...['<', { literal: '{output}' }, '>', { literal: '{input}' }, ';', { literal: '{output}' }, '='],
      mark,
    ]);
    expect(write({ query: a, queryModality: 'image' })).toEqual([{ image: '/p/a.png' }, '=', mark]);
  });

  test('without its fields it is refused', async () => {
    const refused = (template: Partial<typeof PAPER_TEMPLATE>, message: RegExp) =>
      expectError(() => plainFormat({ ...PAPER_TEMPLATE, ...template }), 'CONFIG_INVALID', message);
    await refused({ example: 'Q:{input}' }, /example needs/);
    await refused({ query: 'Q:{output}' }, /query needs/);
    await refused({ query: 'Q:{input}{input}' }, /query needs/);
    await refused({ stop: '' }, /stop is empty/);
  });
});

describe('what stands between a query and its answer', () => {
  test.each<[string, string, string, string, boolean]>([
    ['nothing', 'Q:{input}\nA:{output}\n\n', 'Q:{input}\nA:', '', true],
    ['a blank', 'Q: {input}\nA: {output}\n\n', 'Q: {input}\nA:', ' ', true],
    ['a line break', '{input} is:\n{output};', '{input} is:', '\n', true],
    ['words', '{input}: the answer is {output}.', '{input}:', ' the answer is ', true],
    ['what the query has too', 'Q: {input}\nA: {output}\n', 'Q: {input}\nA: ', '', true],
    ['whatever stands before the input', '{input} -> {output}\n', 'And now {input} ->', ' ', true],
    ['other words than in the query', 'Q: {input}\nA: {output}\n', 'Q: {input}\nAnswer:', ' ', false],
    ['no blank, where the query ends in one', 'Q:{input}\nA:{output}\n', 'Q:{input}\nA: ', '', false],
    ['the input, after the output', '{output} is of {input}\n', '{input} has', '', false],
  ])('%s', (_, example, query, lead, continues) => {
    const format = plainFormat({ example, query, stop: ';' });
    expect({ lead: format.lead, continues: format.continues }).toEqual({ lead, continues });
  });

  test.each<[string, string, string, boolean]>([
    [
      'a blank',
      "{% for m in messages %}{{ (m.role == 'user') and 'U: ' ~ m.content ~ ' A:' or ' ' ~ m.content ~ '</s>' }}{% endfor %}",
      ' ',
      true,
    ],
    [
      'nothing',
      '{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}',
      '',
      true,
    ],
    [
      'thoughts only in queries',
      '{% for m in messages %}<{{ m.role }}>\n{{ m.content }}{% endfor %}{% if add_generation_prompt %}<assistant>\n<think>\n{% endif %}',
      '',
      false,
    ],
    [
      'no examples',
      "{% if messages|length > 1 %}{{ raise_exception('one turn') }}{% endif %}<{{ messages[0].content }}>",
      '',
      true,
    ],
  ])('in a chat: %s', (_, source, lead, continues) => {
    const format = chatAnswers(new ChatTemplate(source, { names: {}, control: [] }));
    expect({ lead: format.lead, continues: format.continues }).toEqual({ lead, continues });
  });
});

describe('chat templates', () => {
  // In the form that ChatML models have (https://github.com/openai/openai-python/blob/v0.28.1/chatml.md).
  const template = new ChatTemplate(
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}{{ '<|im_start|>assistant\n' }}",
    { names: {}, control: [] },
  );
  const written = (content: PromptContent) => {
    const [front, ...parts] = writeChat(content, template);
    expect(front).toEqual({ tokens: [] }); // the template alone decides what a prompt begins with
    return parts;
  };

  test('examples are turns, the mark ends what opens the answer', () => {
    expect(written({ before: 'Be brief.', shots: [a], query: b })).toEqual([
      '<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\na!<|im_end|>\n' +
        '<|im_start|>user\nb<|im_end|>\n<|im_start|>assistant\n',
      mark,
    ]);
    expect(written({ instruction: 'The name:' })).toEqual([
      '<|im_start|>user\nThe name:<|im_end|>\n<|im_start|>assistant\n',
      mark,
    ]);
    expect(written({ instruction: 'The name:', query: b, question: 'Which?' })).toEqual([
      '<|im_start|>user\nThe name:\nb Which?<|im_end|>\n<|im_start|>assistant\n',
      mark,
    ]);
  });

  test('pictures stand where their input does, even if a text looks like what stands for them', () => {
    const odd = item('<picture>', '<<picture>>');
    expect(written({ shots: [odd], shotModality: 'text', query: b, queryModality: 'image' })).toEqual([
      '<|im_start|>user\n<picture><|im_end|>\n<|im_start|>assistant\n<<picture>><|im_end|>\n<|im_start|>user\n',
      { image: '/p/b.png' },
      '<|im_end|>\n<|im_start|>assistant\n',
      mark,
    ]);
  });
});

describe('shuffled labels', () => {
  test('keep the inputs and the answers, and leave none right where that can be', () => {
    const shots = ['a', 'b', 'c', 'd'].map((name) => item(name));
    for (let seed = 0; seed < 20; seed++) {
      const shuffled = shuffleLabels(shots, seed, 'x');
      expect(shuffled.map(({ input }) => input)).toEqual(['a', 'b', 'c', 'd']);
      expect(shuffled.map(({ output }) => output).sort()).toEqual(['a!', 'b!', 'c!', 'd!']);
      for (const [i, { output }] of shuffled.entries()) expect(output).not.toBe(shots[i]?.output);
      expect(shuffleLabels(shots, seed, 'x')).toEqual(shuffled);
    }
  });

  test('leave as few right as they can where answers repeat', () => {
    const shots = [item('a', 'red'), item('b', 'red'), item('c', 'red'), item('d', 'blue')];
    const right = shuffleLabels(shots, 1, 'x').filter(({ output }, i) => output === shots[i]?.output);
    expect(right).toHaveLength(2);
    expect(shuffleLabels([], 1, 'x')).toEqual([]);
  });
});

describe('the layer', () => {
  const own: Condition = { name: 'own', kind: 'patch', spec: 'text' };
  const conditions: Condition[] = [
    own,
    { ...own, name: 'second' },
    { ...own, name: 'control', control: 'random-vector' },
    { ...own, name: 'other model', foreign: true },
    { name: 'prompt', kind: 'prompt', spec: 'text' },
  ];
  const line = (condition: string, layer: number, lenient: boolean, task = 't'): ResultLine => ({
    stage: 'validation',
    condition,
    task,
    seed: 1,
    item: 'a',
    layer,
    domain: 'd',
    expected: 'a!',
    answer: '',
    firstToken: '',
    lenient,
  });
  const chosen = (lines: ResultLine[]) => {
    const choice = new LayerChoice({ conditions });
    for (const one of lines) choice.add(one);
    return choice.best();
  };

  test('is the best in the mean, ties go to the lowest', () => {
    expect(chosen([line('own', 2, true), line('own', 0, false), line('own', 1, true)])).toBe(1);
  });

  test('tasks and conditions count alike, however many lines they have', () => {
    const many = Array.from({ length: 9 }, () => line('own', 1, true));
    const lines = [...many, line('own', 1, false, 'u'), line('own', 0, true), line('own', 0, true, 'u')];
    expect(chosen(lines)).toBe(0);
    const second = ['t', 'u'].flatMap((task) => [line('second', 0, false, task), line('second', 1, true, task)]);
    expect(chosen([...lines, ...second])).toBe(1);
  });

  test('each kind of vector has its own, and a condition that names its layers has no say', () => {
    const choice = new LayerChoice({
      conditions: [
        ...conditions,
        { name: 'heads', kind: 'patch', spec: 'text', vector: 'function' },
        { name: 'fixed', kind: 'patch', spec: 'text', vector: 'function', layers: [0] },
      ],
    });
    for (const name of ['own', 'heads', 'fixed']) {
      for (const layer of [0, 1, 2]) choice.add(line(name, layer, layer === { own: 1, heads: 2, fixed: 0 }[name]));
    }
    expect([choice.best(), choice.best('function')]).toEqual([1, 2]);
    expect(() => choice.best('steering')).toThrow(/no validation answers/);
  });

  test('controls, other models, prompts and test lines have no say', () => {
    const lines = ['control', 'other model', 'prompt'].map((name) => line(name, 0, true));
    const test: ResultLine = { ...line('own', 0, true), stage: 'test' };
    expect(chosen([...lines, test, line('own', 0, false), line('own', 1, true)])).toBe(1);
  });

  const doubtOf = (lines: ResultLine[]) => {
    const choice = new LayerChoice({ conditions });
    for (const one of lines) choice.add(one);
    return choice.doubt();
  };

  test.each<[string, boolean[], RegExp | undefined]>([
    ['one layer is best', [false, true, false, false, false, false], undefined],
    ['a third of the layers are best', [false, true, true, false, false, false], undefined],
    [
      'more than a third are best',
      [false, true, true, true, false, false],
      /3 of 6 layers tie .* 1\.00\. Layer 1 was taken/,
    ],
    [
      'no layer gives a right answer',
      [false, false, false, false, false, false],
      /any of the 6 layers gives .* Layer 0 was taken/,
    ],
    ['there is one layer only', [false], undefined],
  ])('is doubted only where validation cannot tell: %s', (_, right, message) => {
    const doubt = doubtOf(right.map((lenient, layer) => line('own', layer, lenient)));
    if (message) expect(doubt).toMatch(message);
    else expect(doubt).toBeUndefined();
  });

  test('is not doubted because of sums in another order', () => {
    const lines = ['t', 'u', 'v'].flatMap((task, t) => [
      ...[0, 1, 2].flatMap((layer) => [
        line('own', layer, true, task),
        ...Array.from({ length: (t + layer) % 3 }, () => line('own', layer, false, task)),
      ]),
      line('own', 3, false, task),
    ]);
    expect(doubtOf(lines)).toMatch(/3 of 4 layers tie/);
  });

  test('cannot be chosen from nothing', () => expectError(() => chosen([]), 'RUN_INVALID', /no validation answers/));
});

test('a token has the probability of the softmax, and a rank', () => {
  const logits = Float32Array.from([1, 3, 2, 3].map(Math.log));
  expect(tokenScore(logits, 2).probability).toBeCloseTo(2 / 9, 6);
  expect(tokenScore(logits, 2).rank).toBe(2);
  expect(tokenScore(logits, 3).rank).toBe(0);
  const large = tokenScore(Float32Array.of(1000, 999), 0);
  expect(large.probability).toBeCloseTo(1 / (1 + Math.exp(-1)), 6);
});

describe("scores of one's own", () => {
  const line = (answer: string, item = 'a'): ResultLine => ({
    stage: 'test',
    condition: 'Text Patch',
    task: 't',
    domain: 't',
    seed: 1,
    item,
    expected: 'Paris',
    answer,
    firstToken: answer,
    lenient: true,
  });

  test('are a small function of the line, kept beside those of others', () => {
    const [first, second] = scoreLines([line('Paris!'), line('Rome')], {
      contains: ({ answer, expected }) => answer.includes(expected),
      length: ({ answer }) => (answer === 'Rome' ? undefined : answer.length),
    });
    expect(first?.own).toEqual({ contains: 1, length: 6 });
    expect(second?.own).toEqual({ contains: 0 });
    expect(scoreLines([first as ResultLine], { half: () => 0.5 })[0]?.own).toEqual({
      contains: 1,
      length: 6,
      half: 0.5,
    });
  });

  test('have names of their own, and are finite', async () => {
    for (const name of ['lenient', 'Upper', '../x', '']) {
      await expectError(() => scoreLines([line('x')], { [name]: () => 1 }), 'INVALID_ARGUMENT', /cannot name a score/);
    }
    await expectError(
      () => scoreLines([line('x')], { bad: () => Number.NaN }),
      'INVALID_ARGUMENT',
      /bad of "x" is NaN/,
    );
  });
});
