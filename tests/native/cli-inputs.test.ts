// What commands are handed as prompts: texts and files of any shape are read as what they say, or refused by name.
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { openCorpus } from '../../src/corpus/corpus.js';
import { TaskVector } from '../../src/vectors/task-vector.js';
import { xpatch } from '../command.js';
import { temporaryFolder } from '../unit/helpers.js';
import { TEMPLATE, writeChatModel } from './chat-model.js';
import { fixture } from './helpers.js';

const folder = await temporaryFolder();
const at = (name: string) => join(folder, name);
const LLAMA = ['-m', fixture('llama.gguf')];
const write = (name: string, content: string | Uint8Array) => {
  writeFileSync(at(name), content);
  return at(name);
};

describe('steer', () => {
  const steer = (...args: string[]) => xpatch(['steer', ...LLAMA, '--negative', 'b', ...args]);
  const made = async (positive: string, ...more: string[]) => {
    const { code, stderr } = await steer('--positive', positive, ...more, '-o', at('v.safetensors'));
    expect({ code, stderr }).toMatchObject({ code: 0 });
    const { info } = await TaskVector.load(at('v.safetensors'));
    return { tokens: info.origin.op === 'contrast' ? info.origin.positive.map((one) => one.tokens) : [], stderr };
  };

  test('takes a text that is no name of a file for a prompt, whatever its length', async () => {
    const file = write('one.txt', 'Peru\n');
    mkdirSync(at('a folder'), { recursive: true });
    for (const text of ['x y '.repeat(100), `${file}/inside`, at('a folder'), 'no such file'])
      expect((await made(text)).tokens).toEqual((await made(write('same.txt', text))).tokens);
  });

  test('reads files with the marks and line ends of any editor, in UTF-8 alone', async () => {
    const plain = await made(write('plain.txt', 'Peru\nJapan\n'));
    expect(plain.tokens.length).toBe(2);
    expect(await made(write('other.txt', '\uFEFFPeru\r\n\r\nJapan'))).toEqual(plain);
    const { code, stderr } = await steer('--positive', write('u.txt', Buffer.from('\uFEFFPeru', 'utf16le')), '-o', 'x');
    expect([code, stderr]).toEqual([1, expect.stringMatching(/u\.txt: line 1 is not a text in UTF-8/)]);
  });

  test('reads the prompts of records, and no JSON as lines', async () => {
    const plain = await made(write('plain.txt', 'Peru\\n\nJapan\n'));
    const records = '{"prompt":"Peru\\n"}\n{"prompt":"Japan","label":"a"}\n';
    expect(await made(write('p.jsonl', records))).toEqual(plain);
    expect(await made(write('p.csv', 'label,prompt\na,"Peru\n"\nb,Japan\n'))).toEqual(plain);
    expect(await made(write('p.tsv', 'label\tprompt\na\t"Peru\n"\nb\tJapan\n'))).toEqual(plain);
    const refused = async (file: string) => (await steer('--positive', file, '-o', at('x'))).stderr;
    expect(await refused(write('p.json', '["Peru"]'))).toMatch(/p\.json is JSON.*\.jsonl/);
    expect(await refused(write('n.csv', 'text\nPeru\n'))).toMatch(/n\.csv: line 2 has no text named prompt/);
    expect(await refused(write('e.jsonl', '{"prompt":"a"}\n{"prompt":""}\n'))).toMatch(/e\.jsonl: line 2: The prompt/);
  });

  test('says what it reads as control tokens, and takes --literal, --no-bos and no picture', async () => {
    const read = await made('Peru<s>');
    expect(read.stderr).toMatch(/<s> .*--literal/);
    const literal = await made('Peru<s>', '--literal', '--no-bos');
    expect(literal.stderr).not.toMatch(/--literal/);
    expect(read.tokens).not.toEqual(literal.tokens);
    expect((await steer('--positive', 'a <image>', '-o', at('x'))).stderr).toMatch(/1 <image> and 0 --image/);
  });
});

describe('capture --prompts', () => {
  const capture = (name: string, ...args: string[]) =>
    xpatch(['capture', ...LLAMA, '--prompts', at(name), '-o', at(`states-${Math.random()}`), ...args]);

  test.each(['constructor', '__proto__', 'toString'])('has no field {%s} that the line has not', async (name) => {
    write('a.jsonl', '{"prompt":"Peru"}\n');
    const { code, stderr } = await capture('a.jsonl', '--template', `Q: {${name}}`);
    expect([code, stderr]).toEqual([1, expect.stringContaining(`line 1 has no field ${name}`)]);
  });

  test('has one that the line does have', async () => {
    write('b.jsonl', '{"constructor":"Peru","__proto__":"Lima"}\n');
    const args = ['--template', '{constructor} {__proto__}', '--positions', 'all'];
    expect((await xpatch(['capture', ...LLAMA, '--prompts', at('b.jsonl'), '-o', at('own'), ...args])).code).toBe(0);
    for await (const { fields } of (await openCorpus(at('own'))).prompts())
      expect(Object.entries(fields)).toEqual([
        ['constructor', 'Peru'],
        ['__proto__', 'Lima'],
      ]);
  });

  test.each(['paper', 'chat', 'Q:', '<mark:a>', ''])('refuses %j as a template of every line', async (template) => {
    write('e.jsonl', '{"prompt":"Peru"}\n');
    const { code, stderr } = await capture('e.jsonl', '--template', template);
    expect([code, stderr]).toEqual([2, expect.stringMatching(/--template .* "Q:\{input\}\\nA:", or give --chat/)]);
  });

  test('records a template as it was written, and --chat as what no template can be', async () => {
    write('e.jsonl', '{"prompt":"Peru"}\n');
    writeChatModel(fixture('llama.gguf'), at('chat.gguf'), TEMPLATE);
    const recorded = async (name: string, ...args: string[]) => {
      const capture = ['capture', '--prompts', at('e.jsonl'), '-o', at(name), ...args];
      expect((await xpatch(capture)).code).toBe(0);
      return (await openCorpus(at(name))).manifest.source.template;
    };
    expect(await recorded('plain', ...LLAMA)).toBe('none');
    expect(await recorded('written', ...LLAMA, '--template', 'Q:{prompt}\\nA:')).toBe('Q:{prompt}\nA:');
    expect(typeof (await recorded('asked', '-m', at('chat.gguf'), '--chat'))).toBe('object');
  });

  test('names the line of a prompt that cannot be read', async () => {
    for (const [line, code] of [
      ['{"prompt":""}', 'PROMPT_EMPTY'],
      ['{"prompt":"<image>","image":"none.png"}', '.*'],
      ['{"prompt":3}', 'DATA_INVALID'],
    ] as const) {
      write('c.jsonl', `{"prompt":"Peru"}\n\n${line}\n`);
      expect((await capture('c.jsonl')).stderr).toMatch(new RegExp(`${code}: .*c\\.jsonl: line 3`));
    }
  });

  test('names the line of a prompt that lacks the text of --at', async () => {
    write('e.jsonl', '{"prompt":"Peru"}\n\n{"prompt":"Lima"}\n');
    const { stderr } = await capture('e.jsonl', '--at', 'Peru');
    expect(stderr).toMatch(/e\.jsonl: line 3: .*"Peru" not at all/);
  });

  test('says once what it reads as control tokens; --literal does not', async () => {
    write('d.jsonl', '{"prompt":"<s>Peru"}\n{"prompt":"Lima<s>"}\n');
    expect((await capture('d.jsonl')).stderr.match(/--literal/g)?.length).toBe(1);
    expect((await capture('d.jsonl', '--literal')).stderr).toBe('');
  });

  test.each([
    ['--image', 'x.png'],
    ['--heads', '0'],
  ])('refuses %s, which a single prompt has', async (...option) => {
    write('e.jsonl', '{"prompt":"Peru"}\n');
    const { code, stderr } = await capture('e.jsonl', ...option);
    expect([code, stderr]).toEqual([2, expect.stringMatching(/--prompts/)]);
  });
});

test.each([['score'], ['circuit', 'ablate', '--layers', '0']])(
  '%s says once what it reads as control tokens; --literal does not',
  async (...command) => {
    const lines = ['<s>Peru', 'Lima<s>'].map((prompt) => JSON.stringify({ prompt, options: ['a', 'b'], right: 'a' }));
    write('f.jsonl', `${lines.join('\n')}\n`);
    const said = async (...more: string[]) => (await xpatch([...command, at('f.jsonl'), ...LLAMA, ...more])).stderr;
    expect((await said()).match(/--literal/g)?.length).toBe(1);
    expect(await said('--literal')).toBe('');
  },
);

test('a prompt from a file or a pipe begins behind the mark of an editor, and is UTF-8', async () => {
  const tokens = async (args: string[], stdin?: string) => {
    const file = at('p.safetensors');
    const { code, stderr } = await xpatch(['run', ...LLAMA, ...args, '-n', '1', '--json', '--save-logits', file], {
      ...(stdin !== undefined && { stdin }),
    });
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    return (await xpatch(['run', ...LLAMA, ...args, '-n', '3'], { ...(stdin !== undefined && { stdin }) })).stdout;
  };
  const plain = await tokens(['-p', 'Q: Peru']);
  expect(await tokens(['--prompt-file', write('p.txt', '\uFEFFQ: Peru\r\n')])).toBe(plain);
  expect(await tokens(['-p', '-'], '\uFEFFQ: Peru\n')).toBe(plain);
  const { code, stderr } = await xpatch([
    'run',
    ...LLAMA,
    '--prompt-file',
    write('l.txt', Buffer.from('\xe9', 'latin1')),
  ]);
  expect([code, stderr]).toEqual([2, expect.stringMatching(/l\.txt is not a text in UTF-8/)]);
});

describe('circuit', () => {
  const items = () => write('items.jsonl', '{"prompt":"Q: Peru","right":"a"}\n');
  const map = ['circuit', 'map', ...LLAMA, '--from', 'a<s>', '--into', 'b<s>', '--right', 'c', '--layers', '0'];

  test.each<[string, () => string[]]>([
    ['map', () => map],
    ['attribute', () => ['circuit', 'attribute', ...LLAMA, '-p', 'a', '--right', 'b', '--wrong', 'c']],
    ['ablate', () => ['circuit', 'ablate', items(), ...LLAMA]],
    ['steer', () => ['steer', ...LLAMA, '--positive', 'a', '--negative', 'b', '-p', 'c', '-n', '2']],
  ])('%s finds a folder that is taken before its work', async (_, args) => {
    mkdirSync(at('taken'), { recursive: true });
    write('taken/notes.txt', '');
    const { code, stdout, stderr } = await xpatch([...args(), '--report', at('taken')]);
    expect([code, stdout, stderr]).toEqual([1, '', expect.stringMatching(/FILE_WRITE: .*not empty \(notes\.txt\)/)]);
    expect(stderr).not.toMatch(/loading/);
  });

  test('says what it reads as control tokens in its prompts', async () => {
    expect((await xpatch([...map, '--positions', 'last'])).stderr).toMatch(/<s> .*--literal/);
    expect((await xpatch([...map, '--positions', 'last', '--literal'])).stderr).not.toMatch(/--literal/);
  });

  test('ablate needs prompts', async () => {
    const { stderr } = await xpatch(['circuit', 'ablate', write('none.jsonl', '\n'), ...LLAMA]);
    expect(stderr).toMatch(/DATA_INVALID: .*none\.jsonl has no prompts/);
  });
});
