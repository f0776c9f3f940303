// Damaged and foreign model files. Each is loaded in another process, with states, logits and a few tokens read where it
// loads: the answer is a coded error or success, never the end of that process. XPATCH_MUTANTS=5000 makes a longer run.
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { env } from 'node:process';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { readGgufHeader } from '../../src/gguf/gguf.js';
import { XpatchError } from '../../src/util/errors.js';
import { temporaryFolder } from '../unit/helpers.js';
import { type Attempt, Attempts, headerFields, mutate, type Outcome, put } from './damage.js';
import { fixture, picture } from './helpers.js';

const MUTANTS = Number(env.XPATCH_MUTANTS ?? 40);
const tokens = [10, 88, 147];
const attempts = new Attempts();
const folder = await temporaryFolder();

afterAll(() => attempts.close());

/** Outcomes that are no answer. */
const FATAL = /^SIG|^exit|^hang$|^uncoded$/;

/** Which file is damaged, and what is loaded with it. */
const TARGETS: { file: string; attempt: (path: string) => Attempt }[] = [
  ...['llama', 'qwen2', 'gemma2', 'gpt-neox', 'phi3', 'persimmon'].map((name) => ({
    file: `${name}.gguf`,
    attempt: (model: string) => ({ model, tokens }),
  })),
  ...(['llava', 'llava-siglip', 'gemma3', 'qwen2-vl', 'mantis-fuyu', 'idefics2'] as const).flatMap((name) => {
    const image = picture(name === 'qwen2-vl' ? 'grid-a.png' : 'square-a.png');
    const [model, mmproj] = [`${name}.gguf`, `${name}.mmproj.gguf`];
    return [
      { file: model, attempt: (path: string) => ({ model: path, mmproj: fixture(mmproj), picture: image, tokens }) },
      { file: mmproj, attempt: (path: string) => ({ model: fixture(model), mmproj: path, picture: image, tokens }) },
    ];
  }),
];

const load = (target: (typeof TARGETS)[number], bytes: Buffer) =>
  attempts.run(target.attempt(put(folder, target.file, bytes)));

describe.each(TARGETS)('$file', (target) => {
  let whole: Buffer;
  beforeAll(() => {
    whole = readFileSync(fixture(target.file));
  });

  test('loads undamaged', async () => {
    expect(await load(target, whole)).toEqual({ outcome: 'loaded' });
  });

  test('cut at any boundary of its header is refused by our own check', () => {
    const { fields, data } = headerFields(whole);
    const path = join(folder, 'cut.gguf');
    const step = Math.ceil(fields.length / 400); // the long lists of the vocabulary are all alike
    const cuts = [0, data, ...fields.filter((_, i) => i % step === 0).map((field) => field.at), whole.length - 1];
    for (const cut of cuts) {
      writeFileSync(path, whole.subarray(0, cut));
      let error: unknown;
      try {
        readGgufHeader(path);
      } catch (thrown) {
        error = thrown;
      }
      expect(error).toBeInstanceOf(XpatchError);
      expect((error as XpatchError).code).toBe('GGUF_INVALID');
    }
  });

  test('cut inside its data is refused', async () => {
    const { data } = headerFields(whole);
    for (const part of [0, 0.1, 0.5, 0.9, 0.999]) {
      const cut = Math.floor(data + part * (whole.length - data - 1));
      expect(await load(target, whole.subarray(0, cut))).toMatchObject({
        outcome: 'GGUF_INVALID',
        message: expect.stringMatching(/truncated/),
      });
    }
  });

  test(`${MUTANTS} seeded mutants never end the process`, async () => {
    const fatal: (Outcome & { seed: number })[] = [];
    const counts: Record<string, number> = {};
    for (let seed = 0; seed < MUTANTS; seed++) {
      const answer = await load(target, mutate(whole, seed, target.file));
      counts[answer.outcome] = (counts[answer.outcome] ?? 0) + 1;
      if (FATAL.test(answer.outcome)) fatal.push({ seed, ...answer });
    }
    expect(fatal).toEqual([]);
    // Most damage is noticed; what only changes a weight is not, and need not be.
    expect(counts.GGUF_INVALID ?? 0).toBeGreaterThan(MUTANTS / 3);
  }, 1_000_000);
});

describe('what is no such file', () => {
  const model = fixture('llava-siglip.gguf');
  const mmproj = fixture('llava-siglip.mmproj.gguf');
  const make = (name: string, bytes: string | Buffer) => put(folder, name, Buffer.from(bytes));
  const safetensors = Buffer.concat([Buffer.from('4000000000000000', 'hex'), Buffer.alloc(200, '{"a":{}} ')]);
  const cases: [string, () => Partial<Attempt>, string, RegExp][] = [
    ['safetensors as model', () => ({ model: make('x.safetensors', safetensors) }), 'GGUF_INVALID', /safetensors/],
    ['text as model', () => ({ model: make('x.txt', 'hello\n'.repeat(50)) }), 'GGUF_INVALID', /it is a text file/],
    ['an empty file as model', () => ({ model: make('empty.gguf', '') }), 'GGUF_INVALID', /it is empty/],
    ['a folder as model', () => ({ model: folder }), 'GGUF_INVALID', /it is a folder/],
    ['nothing as model', () => ({ model: join(folder, 'absent.gguf') }), 'FILE_NOT_FOUND', /absent\.gguf/],
    ['a device file as model', () => ({ model: '/dev/zero' }), 'GGUF_INVALID', /it is a device/],
    ['an mmproj as model', () => ({ model: mmproj }), 'GGUF_INVALID', /is an mmproj/],
    ['safetensors as mmproj', () => ({ mmproj: make('y.safetensors', safetensors) }), 'GGUF_INVALID', /safetensors/],
    ['an empty file as mmproj', () => ({ mmproj: make('empty.mmproj', '') }), 'GGUF_INVALID', /it is empty/],
    ['a folder as mmproj', () => ({ mmproj: folder }), 'GGUF_INVALID', /it is a folder/],
    ['nothing as mmproj', () => ({ mmproj: join(folder, 'absent') }), 'FILE_NOT_FOUND', /absent/],
    ['a model as mmproj', () => ({ mmproj: model }), 'MMPROJ_INVALID', /architecture is 'llama'/],
    [
      'the mmproj of a model of another width',
      () => ({ mmproj: fixture('gemma3.mmproj.gguf') }),
      'MMPROJ_INVALID',
      /gemma3/,
    ],
    [
      'a model without a final norm',
      () => {
        const text = readFileSync(model).toString('latin1').replace('output_norm.weight', 'output_gone.weight');
        return { model: make('no-norm.gguf', Buffer.from(text, 'latin1')) };
      },
      'MODEL_LOAD',
      /output_norm\.weight/,
    ],
    ['version 1', () => ({ model: make('v1.gguf', Buffer.from('GGUF\x01\0\0\0')) }), 'GGUF_INVALID', /version 1/],
    [
      'the other byte order',
      () => ({ model: make('be.gguf', Buffer.from('GGUF\0\0\0\x03')) }),
      'GGUF_INVALID',
      /big-endian/,
    ],
  ];

  test.each(cases)('%s', async (_, files, outcome, message) => {
    const answer = await attempts.run({ model, tokens, ...files() });
    expect(answer).toEqual({ outcome, message: expect.stringMatching(message) });
  });

  test('the mmproj of another model of the same width loads: that is how encoders are exchanged', async () => {
    const swapped = { model: fixture('llava.gguf'), mmproj, picture: picture('square-a.png'), tokens };
    expect(await attempts.run(swapped)).toEqual({ outcome: 'loaded' });
  });

  test('a file whose name is not plain text loads', async () => {
    mkdirSync(join(folder, 'mañana 模型'), { recursive: true });
    const path = put(join(folder, 'mañana 模型'), "it's a model.gguf", readFileSync(model));
    expect(await attempts.run({ model: path, tokens })).toEqual({ outcome: 'loaded' });
  });
});
