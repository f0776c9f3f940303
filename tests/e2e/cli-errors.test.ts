// What the command line says and leaves behind when something is wrong.
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from '@jest/globals';
import { commandLine, FIXTURES, finish } from './cli-helpers.js';

const cli = commandLine();
const model = (name: string) => join(FIXTURES, `${name}.gguf`);
const LLAMA = ['-m', model('llama'), '--tokens', '1,2,3'];
const OUT = ['-o', 'out.safetensors'];

beforeAll(async () => {
  const bytes = readFileSync(model('llama'));
  writeFileSync(join(cli.folder, 'truncated.gguf'), bytes.subarray(0, bytes.length >> 1));
  writeFileSync(join(cli.folder, 'notes.gguf'), 'no model at all');
  writeFileSync(join(cli.folder, 'notes.txt'), 'a prompt');
  writeFileSync(join(cli.folder, 'broken.safetensors'), 'no vector at all');
  writeFileSync(join(cli.folder, 'broken.json'), '[{"input": "Peru"}]');
  mkdirSync(join(cli.folder, 'folder'));
  await cli.json('capture', ...LLAMA, '--positions', 'last', '-o', 'vector.safetensors');
  await cli.json('capture', ...LLAMA, '--layers', '0', '--positions', 'last', '-o', 'layer0.safetensors');
});

const VECTOR = ['--vector', 'vector.safetensors'];
const PATCH = ['--vector', 'vector.safetensors'];

describe('wrong arguments end with code 2', () => {
  test.each<[string, string[], RegExp]>([
    ['no command', [], /Name a command/],
    ['an unknown command', ['captrue'], /There is no command "captrue"\. Did you mean capture\?/],
    ['an unknown option', ['run', ...LLAMA, '--n-cxt', '4'], /no option --n-cxt\. Did you mean --n-ctx\?/],
    ['a missing option', ['capture', ...LLAMA], /--output is missing/],
    ['an option twice', ['run', ...LLAMA, '--layers', '1', '--layers', '2'], /--layers was given 2 times/],
    ['no prompt', ['run', '-m', model('llama')], /--prompt, --prompt-file or --tokens/],
    ['two prompts', ['run', ...LLAMA, '--prompt', 'x'], /not both/],
    ['bad token ids', ['run', '-m', model('llama'), '--tokens', '1,x'], /--tokens takes token ids/],
    ['bad layers', ['capture', ...LLAMA, '--layers', '5-3', ...OUT], /"5-3" runs backwards/],
    ['repeated layers', ['capture', ...LLAMA, '--layers', '0,0-1', ...OUT], /Layers repeat/],
    ['bad positions', ['capture', ...LLAMA, '--positions', 'first', ...OUT], /--positions takes all, last/],
    ['a bad position', ['run', ...LLAMA, ...PATCH, '--layers', '0', '--positions', 'x'], /--positions takes all, last/],
    ['a patch without a layer', ['run', ...LLAMA, ...PATCH], /--vector needs --layers/],
    ['a layer without a patch', ['run', ...LLAMA, '--layers', '1'], /--layers needs a patch/],
    ['every step without a patch', ['run', ...LLAMA, '--every-step'], /--every-step needs a patch/],
    [
      'an unknown operation',
      ['run', ...LLAMA, ...PATCH, '--layers', '0', '--op', 'scale'],
      /--op takes replace or add/,
    ],
    ['no new tokens and no logits', ['run', ...LLAMA, '-n', '0'], /-n 0 generates nothing/],
    ['a negative number of tokens', ['run', ...LLAMA, '-n', '-1'], /--max-tokens must be a whole number from 0/],
    ['a value with a dash', ['run', ...LLAMA, '--stop', '-x'], /--stop="-x"/],
    ['a nameless output', ['capture', ...LLAMA, '-o', ''], /has no name/],
    ['a negative temperature', ['run', ...LLAMA, '--temperature', '-1'], /--temperature must be a number from 0/],
    [
      'fewer pictures than marks',
      ['run', '-m', 'm.gguf', '--prompt', '<image><image>', '--image', 'a.png'],
      /has 2 <image> and 1 --image/,
    ],
    [
      'a map from a prompt into itself',
      ['circuit', 'map', '-m', 'm.gguf', '--from', 'Q:a', '--into', 'Q:a', '--right', 'b'],
      /are the same prompt/,
    ],
    ['pictures for token ids', ['run', ...LLAMA, '--image', 'a.png'], /--image needs --prompt/],
    [
      'shots for an instruction',
      ['extract', '-m', 'm.gguf', '--tasks', 'food-color', '--specs', 'instruction', '--shots', '3', ...OUT],
      /--shots has no effect/,
    ],
    [
      'an instruction for a shipped task',
      ['extract', '-m', 'm.gguf', '--tasks', 'food-color', '--specs', 'instruction', '--instruction', 'x:', ...OUT],
      /a shipped task has its own instruction/,
    ],
    [
      'more prompts than items',
      ['extract', '-m', 'm.gguf', '--tasks', 'food-color', '--specs', 'text', '--shots', '0', ...OUT],
      /--shots must be a whole number from 1/,
    ],
  ])('%s', async (_, args, message) => {
    const error = await cli.error(...args);
    expect(error).toEqual({ code: 'INVALID_ARGUMENT', message: expect.stringMatching(message), exit: 2 });
  });
});

describe('what cannot be done ends with code 1', () => {
  test.each<[string, string[], string, RegExp]>([
    ['a missing model', ['run', '-m', 'nope.gguf', '--tokens', '1'], 'FILE_NOT_FOUND', /nope\.gguf/],
    ['a truncated model', ['run', '-m', 'truncated.gguf', '--tokens', '1'], 'GGUF_INVALID', /truncated\.gguf/],
    ['a file that is not a model', ['run', '-m', 'notes.gguf', '--tokens', '1'], 'GGUF_INVALID', /notes\.gguf/],
    ['a missing mmproj', ['run', ...LLAMA, '--mmproj', 'nope.gguf'], 'FILE_NOT_FOUND', /nope\.gguf/],
    ['an unknown device', ['run', ...LLAMA, '--device', 'Toaster0'], 'DEVICE_UNKNOWN', /Toaster0/],
    ['a token outside the vocabulary', ['run', '-m', model('llama'), '--tokens', '288'], 'TOKEN_INVALID', /288/],
    [
      'a text for a model without a tokenizer',
      ['run', '-m', model('qwen2'), '--prompt', 'x'],
      'TOKEN_INVALID',
      /no tokenizer/,
    ],
    [
      'a picture for a text model',
      ['run', '-m', model('llama'), '--prompt', '<image>', '--image', 'a.png'],
      'IMAGE_UNSUPPORTED',
      /mmproj/,
    ],
    ['a layer too far', ['capture', ...LLAMA, '--layers', '999', ...OUT], 'LAYER_OUT_OF_RANGE', /layers 0 to 2/],
    [
      'a position too far',
      ['capture', ...LLAMA, '--positions', '0,3', ...OUT],
      'POSITION_OUT_OF_RANGE',
      /has 3 positions/,
    ],
    ['a prompt too long', ['capture', ...LLAMA, '--n-ctx', '2', ...OUT], 'CONTEXT_OVERFLOW', /--n-ctx/],
    [
      'an output folder that is not there',
      ['capture', ...LLAMA, '-o', 'nope/out.safetensors'],
      'FILE_WRITE',
      /does not exist/,
    ],
    ['an output that is a folder', ['capture', ...LLAMA, '-o', 'folder'], 'FILE_WRITE', /is a folder/],
    [
      'an output that is the vector',
      ['sweep', ...LLAMA, ...VECTOR, '--save-logits', 'vector.safetensors'],
      'FILE_WRITE',
      /reads this file/,
    ],
    [
      'an output that is the prompt',
      ['capture', '-m', model('llama'), '--prompt-file', 'notes.txt', '-o', './notes.txt'],
      'FILE_WRITE',
      /reads this file/,
    ],
    [
      'logits in place of the prompt',
      ['run', '-m', model('llama'), '--prompt-file', 'notes.txt', '--save-logits', 'notes.txt'],
      'FILE_WRITE',
      /reads this file/,
    ],
    [
      'a missing vector',
      ['sweep', ...LLAMA, '--vector', 'nope.safetensors'],
      'FILE_NOT_FOUND',
      /nope\.safetensors: there is no such file\. Check the path\.$/,
    ],
    [
      'a missing control vector',
      ['sweep', ...LLAMA, '--vector', 'nope.gguf'],
      'FILE_NOT_FOUND',
      /'nope\.gguf' cannot be opened: there is no such file\.$/,
    ],
    [
      'a text as a control vector',
      ['sweep', ...LLAMA, '--vector', 'notes.gguf'],
      'VECTOR_INVALID',
      /it is a text file\. Name a \.gguf file of `xpatch steer -o`/,
    ],
    ['a broken vector', ['sweep', ...LLAMA, '--vector', 'broken.safetensors'], 'VECTOR_INVALID', /broken\.safetensors/],
    [
      'a vector without the layer',
      ['sweep', ...LLAMA, '--vector', 'layer0.safetensors'],
      'LAYER_OUT_OF_RANGE',
      /no layer 1/,
    ],
    [
      'a vector of another width',
      ['sweep', '-m', model('gemma2'), '--tokens', '1', ...VECTOR],
      'VECTOR_MISMATCH',
      /width 64/,
    ],
    ['a layer beyond the vector', ['run', ...LLAMA, ...PATCH, '--layers', '999'], 'LAYER_OUT_OF_RANGE', /no layer 999/],
    [
      'a patch outside the prompt',
      ['run', ...LLAMA, ...PATCH, '--layers', '0', '--positions', '3'],
      'POSITION_OUT_OF_RANGE',
      /3/,
    ],
    [
      'an unknown task',
      ['extract', '-m', 'm.gguf', '--tasks', 'nope', '--specs', 'text', ...OUT],
      'TASK_INVALID',
      /Shipped tasks: /,
    ],
    ['one of the demo', ['demo', '--tasks', 'contry-capital'], 'TASK_INVALID', /no task named "contry-capital"/],
    [
      'a broken task file',
      ['extract', '-m', 'm.gguf', '--tasks', 'broken.json', '--specs', 'text', ...OUT],
      'TASK_INVALID',
      /field "output"/,
    ],
    [
      'more prompts than items',
      ['extract', '-m', 'm.gguf', '--tasks', 'food-color', '--specs', 'text', '--prompts', '9999', ...OUT],
      'TASK_INVALID',
      /9999/,
    ],
  ])('%s', async (_, args, code, message) => {
    const error = await cli.error(...args);
    expect(error).toEqual({ code, message: expect.stringMatching(message), exit: 1 });
    expect(readdirSync(cli.folder)).not.toContain('out.safetensors');
  });
});

test('an error is one line on stderr, and stdout stays empty', async () => {
  const { code, stdout, stderr } = await cli.spawned(['run', '-m', 'nope.gguf', '--tokens', '1']);
  expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
  expect(stderr).toMatch(/^xpatch: FILE_NOT_FOUND: [^\n]*\n$/);
  const verbose = await cli.run(['run', '-m', 'nope.gguf', '--tokens', '1', '--verbose']);
  expect(verbose.stderr).toMatch(/\n {4}at /);
});

describe('an interrupt', () => {
  // A model without a tokenizer has no end token, so this runs until it is stopped.
  const endless = [
    'run',
    '-m',
    model('qwen2'),
    '--tokens',
    '1,2',
    '-n',
    '100000',
    '--n-ctx',
    '131072',
    '--save-logits',
    'cut.safetensors',
  ];

  test.each(['SIGINT', 'SIGTERM'] as const)('of %s ends a run cleanly and leaves no file', async (name) => {
    const child = cli.start(endless);
    const ended = finish(child);
    // The first line of progress says that it decodes.
    await new Promise<void>((resolve) =>
      child.stderr?.on('data', (chunk) => /generating|decoding/.test(String(chunk)) && resolve()),
    );
    child.kill(name);
    const { code, stderr } = await ended;
    expect(code).toBe(name === 'SIGINT' ? 130 : 143);
    expect(stderr).toMatch(/xpatch: ABORTED: Interrupted\.\n$/);
    expect(readdirSync(cli.folder).filter((file) => file.includes('cut'))).toEqual([]);
  });
});

describe('help', () => {
  test('lists the commands, and each command its options with examples', async () => {
    const { code, stdout } = await cli.run(['--help']);
    expect(code).toBe(0);
    const list = stdout.slice(0, stdout.indexOf('Options:'));
    const commands = [...list.matchAll(/^ {2}xpatch ([a-z-]+) /gm)].map(([, name]) => name as string);
    expect(commands.length).toBeGreaterThan(20);
    for (const command of commands) {
      const help = await cli.run([command, '--help']);
      expect(help.code).toBe(0);
      expect(help.stdout).toMatch(new RegExp(`Examples:[\\s\\S]*xpatch ${command} `));
    }
  });

  test('the version is that of the package', async () => {
    const { version } = JSON.parse(readFileSync(join(import.meta.dirname, '../../package.json'), 'utf8'));
    expect(await cli.run(['--version'])).toEqual({ code: 0, stdout: `${version}\n`, stderr: '' });
  });
});
