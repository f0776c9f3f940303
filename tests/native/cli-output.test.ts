// Where a command's file goes, and what becomes of a broken output.
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import {
  copyFileSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import { afterAll, describe, expect, test } from '@jest/globals';
import { main } from '../../src/cli/cli.js';
import { PACKAGE_ROOT } from '../../src/util/package-root.js';
import { Collected, xpatch } from '../command.js';
import { splitGguf } from '../e2e/split-gguf.js';
import { fixture } from './helpers.js';

const folder = mkdtempSync(join(tmpdir(), 'xpatch-output-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const at = (name: string) => join(folder, name);
const LLAMA = ['-m', fixture('llama.gguf'), '--tokens', '1,2,3'];
const capture = (output: string, ...more: string[]) => xpatch(['capture', ...LLAMA, '-o', output, ...more]);

test.each<[string, string[]]>([
  ['capture', ['capture', ...LLAMA, '-o']],
  ['run', ['run', ...LLAMA, '-n', '2', '--save-logits']],
  ['extract', ['extract', ...LLAMA.slice(0, 2), '--tasks', 'food-color', '--specs', 'instruction', '-o']],
])('-o - of %s sends the file to stdout, and what it says to stderr', async (name, args) => {
  const file = await xpatch([...args, at(name)]);
  const stdout = new Collected();
  const stderr = new Collected();
  const io = { stdin: process.stdin, stdout, stderr, env: {}, signal: new AbortController().signal };
  const code = await main([...args, '-'], { ...io, exit: () => process.exit() });
  expect({ code, same: stdout.bytes.equals(readFileSync(at(name))) }).toEqual({ code: 0, same: true });
  expect(stderr.text).toBe(file.stdout.replace(at(name), 'the standard output'));
});

test('-o - is refused beside --json and on a terminal', async () => {
  for (const [more, world] of [[['--json'], {}] as const, [[], { isTTY: true }] as const]) {
    const { code, stdout, stderr } = await xpatch(['capture', ...LLAMA, '-o', '-', ...more], world);
    expect([code, `${stdout}${stderr}`]).toEqual([2, expect.stringMatching(/INVALID_ARGUMENT/)]);
  }
});

describe('an output that is no file', () => {
  test('a pipe is waited for and gets the file', async () => {
    execFileSync('mkfifo', [at('pipe')]);
    const writing = capture(at('pipe'));
    const read = await readFile(at('pipe'));
    expect(await writing).toMatchObject({ code: 0, stderr: '' });
    await capture(at('file'));
    expect(read.equals(readFileSync(at('file')))).toBe(true);
    expect(lstatSync(at('pipe')).isFIFO()).toBe(true);
  });

  test('waiting for a reader ends by an interrupt', async () => {
    execFileSync('mkfifo', [at('unread')]);
    const controller = new AbortController();
    const waiting = xpatch(['capture', ...LLAMA, '-o', at('unread')], { signal: controller.signal });
    setTimeout(() => controller.abort(), 300);
    expect(await waiting).toEqual({ code: 130, stdout: '', stderr: 'xpatch: ABORTED: Interrupted.\n' });
  });

  test('a link stays; a folder of a report is no pipe, device or -', async () => {
    symlinkSync('behind', at('link'));
    expect(await capture(at('link'))).toMatchObject({ code: 0 });
    expect(lstatSync(at('link')).isSymbolicLink()).toBe(true);
    expect(lstatSync(at('behind')).isFile()).toBe(true);
    const report = (output: string) => xpatch(['lens', ...LLAMA, '-o', output]);
    for (const output of ['pipe', 'unread', 'behind']) {
      expect(await report(at(output))).toMatchObject({ code: 1, stderr: expect.stringMatching(/FILE_WRITE/) });
    }
    expect(await report('-')).toMatchObject({ code: 2, stderr: expect.stringMatching(/must be a folder/) });
  });
});

describe('is refused before any work', () => {
  const refused = (args: readonly string[], why: RegExp) =>
    expect(xpatch(args)).resolves.toEqual({ code: 1, stdout: '', stderr: expect.stringMatching(why) });
  const file = (output: string, why: RegExp) => refused(['capture', ...LLAMA, '-o', output], why);

  test('a file whose links lead in a circle, whose name is too long, or that is a socket', async () => {
    symlinkSync('round', at('circle'));
    symlinkSync('circle', at('round'));
    await file(at('circle'), /FILE_WRITE: Could not write .*circle\. Its symbolic links form a loop/);
    await file(at('x'.repeat(300)), /FILE_WRITE: .*The name is too long/);
    const server = createServer().listen(at('socket'));
    await once(server, 'listening');
    await file(at('socket'), /FILE_WRITE: .*It is a socket: name a file, or a pipe/);
    server.close();
  });

  test.each(['eval', 'demo', 'lens'])('a folder of %s that is a file, a pipe or a circle of links', async (command) => {
    const args = { eval: ['main', '-m', 'demo'], demo: [], lens: LLAMA }[command] as string[];
    writeFileSync(at('notes'), 'mine');
    for (const [name, why] of [
      ['notes', /not a folder|a file of that name/],
      ['pipe', /not a folder|a file of that name/],
      ['round', /form a loop/],
    ] as const) {
      await refused([command, ...args, '-o', at(name)], new RegExp(`FILE_WRITE: .*${why.source}`));
    }
    expect(readFileSync(at('notes'), 'utf8')).toBe('mine');
  });

  test('a file or a folder at or below the folder of a report', async () => {
    const why = /FILE_WRITE: .*The report's folder .* holds nothing else/;
    mkdirSync(at('page'));
    symlinkSync('page', at('alias'));
    writeFileSync(at('lines.jsonl'), '{"prompt":"x","options":["a","b"]}\n');
    const model = LLAMA.slice(0, 2);
    const report = ['--report', at('page')];
    const steer = ['steer', ...LLAMA, '--positive', 'a', '--negative', 'b', ...report];
    await refused([...steer, '-o', at('alias/v.safetensors')], why);
    await refused(['sweep', ...LLAMA, '--vector', 'none.safetensors', ...report, '--save-logits', at('page/l')], why);
    await refused(['score', at('lines.jsonl'), ...model, ...report, '-o', at('page/s.jsonl')], why);
    await refused(['tune', ...model, ...report, '-o', at('page/lens.safetensors')], why);
    const vector = ['circuit', 'function-vector', ...model, '--tasks', 'country-capital'];
    await refused([...vector, ...report, '-o', at('page/f.safetensors')], why);
    for (const output of ['page', 'page/deep/states', 'alias'])
      await refused(['capture', ...model, '--prompts', at('lines.jsonl'), ...report, '-o', at(output)], why);
    // A name that only begins like the folder's is another one.
    await refused(['score', at('lines.jsonl'), '-m', 'none', ...report, '-o', at('page.jsonl')], /FILE_NOT_FOUND/);
  });

  test('a folder of eval that holds something else', async () => {
    mkdirSync(at('other'));
    writeFileSync(join(at('other'), 'thesis.tex'), 'mine');
    await refused(['eval', 'main', '-m', 'demo', '-o', at('other')], /FILE_WRITE: .*not empty \(thesis\.tex\)/);
  });
});

describe('a standard output that takes no more', () => {
  const broken = async (code: string, args: readonly string[]) => {
    const stderr = new Collected();
    const stdout = new Writable({
      write: (_chunk, _encoding, done) => done(Object.assign(new Error(`write ${code}`), { code })),
    });
    const io = { stdin: process.stdin, stderr, env: {}, signal: new AbortController().signal };
    return { code: await main(args, { ...io, stdout, exit: () => process.exit() }), stderr: stderr.text };
  };

  test.each([[[]], [['--json']]])('is one error where the disk is full: %j', async (more) => {
    const ended = await broken('ENOSPC', ['capture', ...LLAMA, '-o', at('full'), ...more]);
    expect(ended.code).toBe(1);
    expect(ended.stderr).toMatch(
      /^xpatch: FILE_WRITE: Could not write the standard output\. The disk is full[^\n]*\n$/,
    );
    expect(lstatSync(at('full')).isFile()).toBe(true);
  });

  test('is no error where the reader has left', async () => {
    expect(await broken('EPIPE', ['run', ...LLAMA, '-n', '4'])).toEqual({ code: 0, stderr: '' });
    expect(await broken('EPIPE', ['run', '--nonsense'])).toMatchObject({ code: 2 });
  });
});

describe('a file that the command reads is never replaced', () => {
  const refused = { code: 1, stderr: expect.stringMatching(/FILE_WRITE: .*reads this file/) };
  const left = async (file: string, args: readonly string[]) => {
    const before = readFileSync(at(file));
    expect(await xpatch([...args, at(file)])).toMatchObject(refused);
    expect(readFileSync(at(file)).equals(before)).toBe(true);
  };

  test('such as a picture that a record, a task or data to import names', async () => {
    const flag = (name: string) => copyFileSync(join(PACKAGE_ROOT, 'data/images/twemoji/peru.png'), at(name));
    const demo = ['-m', 'demo', '--device', 'cpu'];
    flag('scored.png');
    writeFileSync(at('scored.jsonl'), '{"prompt":"<image>","image":"scored.png","options":["a","b"]}\n');
    await left('scored.png', ['score', at('scored.jsonl'), ...demo, '-o']);
    const items = Array.from({ length: 12 }, (_, i) => ({ input: `${i}`, output: `${i}`, image: `${i}.png` }));
    for (const { image } of items) flag(image);
    writeFileSync(at('task.json'), JSON.stringify(items));
    const few = ['--shots', '2', '--prompts', '5'];
    await left('3.png', ['extract', ...demo, '--tasks', at('task.json'), '--specs', 'image', ...few, '-o']);
    await left('3.png', ['data', 'import', at('task.json'), '--images-root', folder, '--instruction', 'x:', '-o']);
  });

  test('such as any part of a model', async () => {
    const parts = splitGguf(readFileSync(fixture('llama.gguf')), 'split', 2);
    for (const [name, content] of Object.entries(parts)) writeFileSync(at(name), content);
    const [first = '', second = ''] = Object.keys(parts);
    await left(second, ['capture', '-m', at(first), '--tokens', '1,2', '-o']);
  });
});
