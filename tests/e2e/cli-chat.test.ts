// `run --chat` as a person and a script use it: through a pipe, and on a terminal (that of script(1)).
import { type ChildProcess, spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { printableText } from '../../src/util/printable.js';
import { writeSafetensors } from '../../src/util/safetensors.js';
import { TEMPLATE, writeChatModel } from '../native/chat-model.js';
import { commandLine, FIXTURES, finish, MAIN, type Outcome } from './cli-helpers.js';

const cli = commandLine();
const fixture = (name: string) => join(FIXTURES, `${name}.gguf`);
const picture = (name: string) => join(FIXTURES, 'pictures', name);
writeChatModel(fixture('qwen2-vl'), join(cli.folder, 'chat.gguf'), TEMPLATE);
writeFileSync(join(cli.folder, 'template.jinja'), TEMPLATE);
writeFileSync(join(cli.folder, 'latin-1.jinja'), Buffer.from(`{#${' '.repeat(2000)}caf\xe9 #}`, 'latin1'));
const CHAT = ['run', '--chat', '-m', 'chat.gguf', '--mmproj', fixture('qwen2-vl.mmproj')];
const SHORT = ['-n', '8'];

/** Runs a chat with lines on stdin. */
const pipe = (lines: string, ...args: string[]): Promise<Outcome> => cli.piped(lines, [...CHAT, ...SHORT, ...args]);

async function turns(lines: string, ...args: string[]) {
  const { code, stdout, stderr } = await pipe(lines, '--json', ...args);
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  return stdout
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line));
}

async function writeVector(file: string): Promise<void> {
  const data = Float32Array.from({ length: 64 }, (_, i) => 4 * Math.sin(i + 1));
  await writeSafetensors(
    join(cli.folder, file),
    { resid_post: { data, shape: [1, 1, 64] } },
    { layers: '[0]', positions: '[0]', tokens: '[1]' },
  );
}

describe('through a pipe', () => {
  test('a line is a message, and an answer is printed as it is made', async () => {
    const { code, stdout, stderr } = await pipe('Hello\n\n  \nAnd then?', '--quiet');
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    const [first, second, ...more] = await turns('Hello\nAnd then?\n');
    expect(more).toEqual([]);
    const shown = [first, second].map(({ text }) => printableText(text.endsWith('\n') ? text : `${text}\n`));
    expect(stdout).toBe(shown.join(''));
  });

  test("Unicode's separators are not ends of lines", async () => {
    const lines = await turns('one\u2028and\u2029the same\r\nanother\n');
    expect(lines).toHaveLength(2);
    const [separate] = await turns('one and the same\n');
    expect(lines[0].positions).toBeGreaterThan(separate.positions); // each is three bytes, and tokens of its own
  });

  test('--json gives a line a turn, which says what was computed', async () => {
    const [first, second] = await turns('Hello\nAnd\\\nthen?\n');
    expect(first).toMatchObject({ turn: 1, reused: 0, temperature: 0, model: { architecture: 'qwen2vl' } });
    expect(first.tokens.length).toBeGreaterThan(0);
    const held = first.positions + first.tokens.length - (first.finish === 'length' ? 1 : 0);
    expect(second).toMatchObject({ turn: 2, reused: held, room: 4096 - second.positions - second.tokens.length });
    expect(first).not.toHaveProperty('patch');
  });

  test('pictures, a system message and sampling', async () => {
    const path = picture('grid-a.png');
    const options = ['--image', path, '--system', 'Be brief.', '--temperature', '1', '--seed', '5'];
    const [first, second] = await turns(
      `What?\n/image "${picture('grid-b.png')}"\n/image ${path}\nCompare\n`,
      ...options,
    );
    expect(first).toMatchObject({ images: [path], temperature: 1, seed: 5 });
    expect(second.images).toEqual([picture('grid-b.png'), path]);
    expect(second.positions - first.positions).toBeGreaterThan(2 * 10);
    const [again] = await turns('What?\n', ...options);
    expect(again).toEqual(first);
  });

  test('patching by option and by command is the same, and can be ended', async () => {
    await writeVector('vector.safetensors');
    const [plain, patched, after] = await turns(
      'A\n/patch vector.safetensors --layers 0 --op=add\n/clear\nA\n/patch off\nB\n',
    );
    expect(patched).toMatchObject({ patch: { layer: 0, op: 'add', vector: { file: 'vector.safetensors' } } });
    expect(patched.patch).toMatchObject({ position: patched.positions - 1 });
    expect(patched.patch.delta).toBeGreaterThan(0);
    expect(patched.tokens).not.toEqual(plain.tokens);
    expect(after).not.toHaveProperty('patch');
    const [option] = await turns('A\n', '--vector', 'vector.safetensors', '--layers', '0', '--op', 'add');
    expect(option).toMatchObject({ tokens: patched.tokens, patch: patched.patch });
  });

  test('--system has escapes like other texts', async () => {
    const escaped = await turns('Hello\n', '--system', 'A\\nB');
    expect(escaped).toEqual(await turns('Hello\n', '--system', 'A\nB', '--no-escape'));
    expect(escaped).not.toEqual(await turns('Hello\n', '--system', 'A\\nB', '--no-escape'));
  });

  test('/system changes the start, // is a slash, /exit ends, notes go to stderr', async () => {
    const [first] = await turns('/system Be brief.\n//help\n/exit\nnever\n');
    const [expected] = await turns('//help\n', '--system', 'Be brief.');
    expect(first).toEqual(expected);
    const { stdout, stderr } = await pipe('/help\n/system x\n/patch\n/clear\n');
    expect(stdout).toBe('');
    expect(stderr).toMatch(/\/image PATH[\s\S]*system message set\n.*nothing is patched\n.*cleared/);
  });

  test('the template may come from a file, of any editor', async () => {
    writeFileSync(join(cli.folder, 'windows.jinja'), `\uFEFF${TEMPLATE.replaceAll('\n', '\r\n')}\r\n`);
    const [{ tokens, positions }] = await turns('Hello\n');
    for (const file of ['template.jinja', 'windows.jinja']) {
      const args = ['run', '--chat', '-m', fixture('qwen2-vl'), '--chat-template', file, '-n', '8', '--json'];
      expect(JSON.parse((await cli.piped('Hello\n', args)).stdout)).toMatchObject({ tokens, positions });
    }
  });

  test('what goes wrong ends it, since nobody is there to mend it', async () => {
    const fails = async (lines: string, ...args: string[]) => {
      const { code, stdout } = await pipe(lines, '--json', ...args);
      const all = stdout.trimEnd().split('\n');
      return { code, turns: all.length - 1, ...JSON.parse(all.at(-1) as string).error };
    };
    const wrong = { code: 'INVALID_ARGUMENT', turns: 1 };
    for (const [line, message] of [
      ['/nonsense', /no command \/nonsense.*\/help/],
      ['/image', /needs the path/],
      ['/patch x.safetensors', /--layer/],
      ['/patch x --layers many', /--layers takes all, or layers/],
      ['/patch x --layers 1 --op mul', /replace or add/],
      ['/patch x y --layers 1', /"y"/],
    ] as const) {
      expect(await fails(`A\n${line}\nB\n`)).toEqual({ ...wrong, message: expect.stringMatching(message) });
    }
    expect(await fails('/image nowhere.png\n')).toMatchObject({ code: 'FILE_NOT_FOUND', turns: 0 });
    expect(await fails('/image template.jinja\n')).toMatchObject({ code: 'IMAGE_INVALID' });
    expect(await fails('Tell me more\n'.repeat(5), '--n-ctx', '64')).toMatchObject({
      code: 'CONTEXT_OVERFLOW',
      message: expect.stringMatching(/\/clear.*--n-ctx/),
    });
  });

  test.each<[string, string[], string, RegExp]>([
    ['a model without a template', ['-m', fixture('llama')], 'CHAT_TEMPLATE_MISSING', /--chat-template/],
    ['a model without a tokenizer', ['-m', fixture('qwen2')], 'TOKEN_INVALID', /no tokenizer/],
    [
      'a picture for a text model',
      ['-m', 'chat.gguf', '--image', picture('grid-a.png')],
      'IMAGE_UNSUPPORTED',
      /--mmproj/,
    ],
    ['a template that is not there', ['-m', 'chat.gguf', '--chat-template', 'no.jinja'], 'FILE_NOT_FOUND', /no\.jinja/],
    [
      'a template that is not UTF-8',
      ['-m', 'chat.gguf', '--chat-template', 'latin-1.jinja'],
      'INVALID_ARGUMENT',
      /latin-1\.jinja is not a text in UTF-8/,
    ],
    ['a prompt', ['-m', 'chat.gguf', '--prompt', 'x'], 'INVALID_ARGUMENT', /--prompt does not work with --chat/],
    ['--no-bos', ['-m', 'chat.gguf', '--no-bos'], 'INVALID_ARGUMENT', /--no-bos does not work with --chat/],
    ['--literal', ['-m', 'chat.gguf', '--literal'], 'INVALID_ARGUMENT', /--literal does not work with --chat/],
    ['-n 0', ['-m', 'chat.gguf', '-n', '0'], 'INVALID_ARGUMENT', /no room/],
    ['a patch without a layer', ['-m', 'chat.gguf', '--vector', 'x'], 'INVALID_ARGUMENT', /--layers/],
  ])('%s is refused at the start', async (_, args, code, message) => {
    const { stdout } = await cli.piped('Hello\n', ['run', '--chat', ...args, '--json']);
    expect(JSON.parse(stdout).error).toEqual({ code, message: expect.stringMatching(message) });
  });

  test('--system without --chat is refused', async () => {
    const { code, message } = await cli.error('run', '-m', 'chat.gguf', '--prompt', 'x', '--system', 'y');
    expect({ code, message }).toEqual({ code: 'INVALID_ARGUMENT', message: '--system needs --chat.' });
  });
});

describe('on a terminal', () => {
  /** A chat on a terminal of its own: what it shows, and keys for it. */
  function terminal(...args: string[]) {
    const quoted = [process.execPath, '--no-warnings', MAIN, ...CHAT, ...args].map((word) => `'${word}'`).join(' ');
    const child: ChildProcess = spawn('script', ['-qefc', quoted, '/dev/null'], { cwd: cli.folder });
    const ended = finish(child);
    let seen = '';
    let from = 0;
    child.stdout?.on('data', (data) => {
      seen += data;
    });
    return {
      ended,
      type: (keys: string) => void child.stdin?.write(keys),
      /** Waits for a text behind what was waited for before. */
      async shows(wanted: RegExp): Promise<string> {
        const deadline = Date.now() + 60_000;
        for (;;) {
          const found = wanted.exec(seen.slice(from));
          if (found) {
            from += found.index + found[0].length;
            return found[0];
          }
          if (child.exitCode !== null || Date.now() > deadline) {
            child.kill();
            throw new Error(`It did not show ${wanted}: ${JSON.stringify(seen.slice(from))}`);
          }
          await new Promise((resolve) => setTimeout(resolve, 50));
        }
      },
    };
  }

  test('mistakes do not end it, the arrow keys bring lines back, Ctrl-D does', async () => {
    const chat = terminal(...SHORT);
    await chat.shows(/talking to .*\/help/);
    await chat.shows(/> /);
    chat.type('/nonsense\r');
    await chat.shows(/INVALID_ARGUMENT:.* There is no command \/nonsense/);
    await chat.shows(/> /);
    chat.type('/image nowhere.png\r');
    await chat.shows(/FILE_NOT_FOUND/);
    await chat.shows(/> /);
    chat.type('/patch\r');
    await chat.shows(/nothing is patched/);
    await chat.shows(/> /);
    chat.type('\u001b[A\r'); // up
    await chat.shows(/nothing is patched/);
    await chat.shows(/> /);
    chat.type('Hello\r');
    await chat.shows(/Hello\s+\S[\s\S]*> /);
    chat.type('\u0004');
    expect((await chat.ended).code).toBe(0);
  });

  test('Ctrl-C stops an answer and keeps the conversation; twice at the prompt it ends', async () => {
    // always taking the best token, this model goes on for 1300 of them; sampled answers end after 20 to 600
    const chat = terminal('-n', '4000', '--n-ctx', '8192');
    await chat.shows(/> /);
    chat.type('Hello\r');
    await chat.shows(/Hello\s+[\s\S]{40}/);
    chat.type('\u0003');
    await chat.shows(/stopped; the conversation continues/);
    await chat.shows(/> /);
    chat.type('half a line\u0003');
    await chat.shows(/Ctrl-C again/);
    await chat.shows(/> /);
    chat.type('/help\r');
    await chat.shows(/\/exit/);
    await chat.shows(/> /);
    chat.type('\u0003');
    await chat.shows(/Ctrl-C again/);
    chat.type('\u0003');
    expect((await chat.ended).code).toBe(0);
  });

  test('control characters of an answer do not reach it', async () => {
    const chat = terminal('-n', '300', '--temperature', '50', '--seed', '1');
    await chat.shows(/> /);
    chat.type('Hello\r');
    await chat.shows(/Hello\s+/);
    const answer = await chat.shows(/[\s\S]*?(?=> )/);
    chat.type('\u0004');
    await chat.ended;
    expect(answer).toMatch(/\\u\{[0-9a-f]+\}/);
    // readline and the progress line write some of their own
    const escapeKey = String.fromCharCode(27);
    const own = answer.split(escapeKey).map((piece, i) => (i > 0 ? piece.replace(/^\[\d*[A-GJK]/, '') : piece));
    expect(own.join('').replaceAll('\r', '')).not.toMatch(/[^\P{Cc}\n\t]/u);
  });
});

test('templates are rendered whatever node was started with', async () => {
  const script = `
    import { ChatTemplate } from ${JSON.stringify(new URL('../../dist/index.js', import.meta.url).href)};
    const template = new ChatTemplate('{{ messages[0].content }}', { names: {}, control: [] });
    console.log(JSON.stringify(template.render([{ role: 'user', content: 'Hi' }])));`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
    env: { ...process.env, NODE_OPTIONS: '--input-type=module' },
  });
  expect(await finish(child)).toMatchObject({ code: 0, stdout: '[{"tokens":[]},"Hi"]\n' });
});
