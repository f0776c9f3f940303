// Files that hold many prompts or items: whatever stands in them, each line is itself, or an error that names it.
import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from '@jest/globals';
import { decodeText, splitLines } from '../../src/util/lines.js';
import { readRecords } from '../../src/util/records.js';
import { expectError } from './helpers.js';

const folder = mkdtempSync(join(tmpdir(), 'xpatch-records-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const at = (name: string) => join(folder, name);

async function collect(path: string, options?: Parameters<typeof readRecords>[1]) {
  const records = [];
  for await (const record of readRecords(path, options)) records.push(record);
  return records;
}

function all(name: string, content: string | Uint8Array) {
  writeFileSync(at(name), content);
  return collect(at(name));
}

const prompts = async (name: string, content: string | Uint8Array) =>
  (await all(name, content)).map(({ line, fields }) => [line, fields.prompt]);

describe('records', () => {
  test('are read one by one, with their lines', async () => {
    expect(await prompts('a.txt', '\uFEFFone\r\n\ntwo\n')).toEqual([
      [1, 'one'],
      [3, 'two'],
    ]);
    expect(await all('a.tsv', 'prompt\tlabel\n"a\nb"\tx\n')).toEqual([
      { line: 2, fields: { prompt: 'a\nb', label: 'x' } },
    ]);
    await expectError(() => all('b.csv', 'a,b\n1,2,3\n'), 'DATA_INVALID', /line 2/);
  });

  test.each(['\n', '\r\n'])('of a table have their first lines, with %j in cells, names and between', async (end) => {
    const lines = ['', 'prompt,"la', 'bel"', '', '', '"a', '', 'b","x', 'y"', 'c,z', '', '"d', 'e",', ''];
    expect((await prompts('t.csv', lines.join(end))).map(([line]) => line)).toEqual([6, 10, 12]);
    await expectError(() => all('t.csv', [...lines, '"f', 'g"'].join(end)), 'DATA_INVALID', /line 15 has 1 cell, .* 2/);
  });

  test.each([
    ['\n', '\r\n'],
    ['\r\n', '\n'],
    ['\r', '\r'],
  ])('of a table end at %j in the line of names and at %j below it', async (first, end) => {
    for (const [name, between] of [
      ['e.csv', ','],
      ['e.tsv', '\t'],
    ] as const) {
      const rows = [['a', 'x'], ['"b\r\nc"', '"y"'], [], ['d', 'z']].map((cells) => cells.join(between));
      const records = await all(name, [`prompt${between}label${first}${rows[0]}`, ...rows.slice(1), ''].join(end));
      expect(records.map(({ line, fields }) => [line, ...Object.values(fields)])).toEqual([
        [2, 'a', 'x'],
        [3, 'b\r\nc', 'y'],
        [6, 'd', 'z'],
      ]);
    }
    const damaged = `a,b${first}1,2${end}3${end}`;
    await expectError(() => all('e.csv', damaged), 'DATA_INVALID', /line 3 has 1 cell, the line of names 2/);
  });

  test.each(['\u2028', '\u2029', '\u0085', '\v', '\f', '\r'])('%j ends no line', async (character) => {
    const text = `a${character}b`;
    expect(await prompts('s.txt', `${text}\n${text}\r\n`)).toEqual([
      [1, text],
      [2, text],
    ]);
    expect((await prompts('s.csv', `label,prompt\n1,"${text}"\n`)).map(([, prompt]) => prompt)).toEqual([text]);
    // JSON.stringify leaves some of them as they are.
    expect(await prompts('s.jsonl', `${JSON.stringify({ prompt: text })}\n`)).toEqual([[1, text]]);
  });

  test('begin behind the mark of an editor, with line ends of any system', async () => {
    for (const end of ['\n', '\r\n']) {
      expect(await prompts('m.jsonl', `\uFEFF{"prompt":"a"}${end}${end}{"prompt":"b"}`)).toEqual([
        [1, 'a'],
        [3, 'b'],
      ]);
      expect((await prompts('m.csv', `\uFEFFprompt${end}a${end}b${end}`)).map(([, text]) => text)).toEqual(['a', 'b']);
    }
  });

  test.each([
    ['UTF-16', Buffer.from('\uFEFFprompt\na\n', 'utf16le')],
    ['Latin-1', Buffer.from('prompt\ncaf\xe9\n', 'latin1')],
    ['half a character', Buffer.from('prompt\ncafé').subarray(0, -1)],
  ])('in %s are refused', async (_, bytes) => {
    for (const name of ['u.txt', 'u.jsonl', 'u.csv']) {
      await expectError(() => all(name, bytes), 'DATA_INVALID', /line [12] .*UTF-8/);
    }
  });

  test('are not the lines of JSON', async () => {
    await expectError(
      () => all('j.JSON', '[\n"a"\n]\n'),
      'DATA_INVALID',
      /j\.JSON is JSON.* one object a line .*\.jsonl/,
    );
  });

  test('of a name twice, deeper than anything, or of another kind are refused by their line', async () => {
    const first = '{"prompt":"a"}\n';
    for (const line of [
      '{"prompt":"a","prompt":"b"}',
      `{"a":${'['.repeat(200)}${']'.repeat(200)}}`,
      '[1]',
      'null',
      '{',
    ]) {
      await expectError(() => all('k.jsonl', `${first}${line}\n`), 'DATA_INVALID', /k\.jsonl: line 2 /);
    }
    await expectError(() => all('k.csv', 'prompt,label,prompt\na,b,c\n'), 'DATA_INVALID', /line 1 .*"prompt"/);
  });

  test('that never end a line are given up, whatever the size of the file', async () => {
    for (const name of ['h.jsonl', 'h.csv']) {
      writeFileSync(at(name), 'prompt');
      truncateSync(at(name), 2 ** 36);
      await expectError(() => collect(at(name)), 'DATA_INVALID', /line 1 .*(16 MB|1048576)/);
    }
  }, 300_000);

  test('are read from a file, and from a pipe only where that is enough', async () => {
    for (const name of [folder, at('none.csv'), at('s.txt/inside'), at('x'.repeat(300)), at('a\0b')]) {
      await expectError(() => collect(name), 'FILE_NOT_FOUND', /the file of records/);
    }
    if (spawnSync('mkfifo', [at('pipe.jsonl')]).status !== 0) return;
    await expectError(() => collect(at('pipe.jsonl'), { pipe: false }), 'FILE_NOT_FOUND', /it is a pipe/);
    spawn('sh', ['-c', `printf '{"prompt":"a"}\n' > '${at('pipe.jsonl')}'`], { stdio: 'ignore' });
    expect(await collect(at('pipe.jsonl'))).toEqual([{ line: 1, fields: { prompt: 'a' } }]);
    const controller = new AbortController();
    setTimeout(() => controller.abort(), 100);
    await expectError(() => collect(at('pipe.jsonl'), { signal: controller.signal }), 'ABORTED', /not read to its end/);
  });
});

test('lines are the same however their bytes arrive', async () => {
  const bytes = Buffer.from('\nä\u2028b\r\n\n\nlast');
  for (let size = 1; size <= bytes.length; size++) {
    const chunks = async function* () {
      for (let i = 0; i < bytes.length; i += size) yield bytes.subarray(i, i + size);
    };
    const lines = [];
    for await (const line of splitLines(chunks())) lines.push({ ...line, bytes: decodeText(line.bytes) });
    expect(lines).toEqual([
      { bytes: '', number: 1, offset: 0, ended: true },
      { bytes: 'ä\u2028b\r', number: 2, offset: 1, ended: true },
      { bytes: '', number: 3, offset: 9, ended: true },
      { bytes: '', number: 4, offset: 10, ended: true },
      { bytes: 'last', number: 5, offset: 11, ended: false },
    ]);
  }
});
