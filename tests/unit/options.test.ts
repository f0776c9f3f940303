import { describe, expect, test } from '@jest/globals';
import { allCommands, parse } from '../../src/cli/cli.js';
import { type Command, nameOf } from '../../src/cli/command.js';
import { dashed, type Option } from '../../src/cli/option.js';
import { commandWith } from '../../src/cli/report-run.js';
import { Terminal } from '../../src/cli/terminal.js';
import { Collected, xpatch } from '../command.js';

function* every(commands: readonly Command[], above = ''): Generator<readonly [path: string, command: Command]> {
  for (const command of commands) {
    const path = `${above}${nameOf(command)}`;
    yield [path, command];
    yield* every(command.subcommands ?? [], `${path} `);
  }
}
const all = [...every(await allCommands())];
const uses = all.flatMap(([path, { options }]) =>
  Object.entries(options).map(([name, option]) => ({ path, name, option })),
);
const names = [...new Set(uses.map(({ name }) => name))];

/** What may not differ between two commands that have an option of one name. */
function definition({ type, array, formerly, choices, completes, read }: Option) {
  return { type, array, formerly, choices, completes, read };
}

import { HOOK, POSITIONS } from '../../src/cli/options.js';

describe('one vocabulary', () => {
  test.each(names)('--%s means one thing in every command', (name) => {
    // `capture` reads prompts from a file, and the mean of their positions.
    const apart = ['prompts', 'positions'].includes(name) ? 'capture' : '';
    const same = uses.filter((use) => use.name === name && use.path !== apart);
    const [first] = same;
    for (const { path, option } of same) {
      const expected = definition((first as (typeof same)[number]).option);
      // -o is the run folder of one command and the file of another; both are places to write to.
      if (name === 'output') {
        expect([path, option.letter, option.type]).toEqual([path, 'o', 'string']);
        continue;
      }
      expect([path, definition(option)]).toEqual([path, expected]);
      expect([path, option.read === expected.read]).toEqual([path, true]);
    }
  });

  test('a name of earlier versions is an alias, in no command an option of its own', () => {
    for (const [path, { options }] of all) {
      const typed = Object.keys(options).map(dashed);
      const old = Object.values(options).flatMap(({ formerly = [] }) => formerly);
      expect([path, old.filter((name) => typed.includes(name))]).toEqual([path, []]);
      expect([path, new Set(old).size]).toEqual([path, old.length]);
      const letters = Object.values(options).flatMap(({ letter }) => letter ?? []);
      expect([path, new Set(letters).size]).toEqual([path, letters.length]);
    }
  });

  test('names are plural where several can be given anywhere, and singular ones are gone from the help', () => {
    const shown = new Set(uses.filter(({ option }) => !option.hidden).map(({ name }) => dashed(name)));
    for (const plural of ['layers', 'positions', 'tasks', 'specs', 'seeds']) expect([...shown]).toContain(plural);
    for (const gone of ['layer', 'position', 'task', 'spec', 'patch', 'modalities', 'images', 'every-step'])
      expect([...shown]).not.toContain(gone);
  });

  test.each([
    ['run -m demo -p Q --patch v.safetensors --layer 4 --position -1 --every-step'],
    ['extract -m demo --task food-color --spec text --seed 2 -o v.safetensors'],
    ['evolution -m demo --modalities text --seed 2 --output folder'],
    ['embed -m demo --layer 2 --report folder'],
    ['patchscope -m demo -p Q --position 0 --target-layer 2 --target-position last'],
    ['sweep -m demo -p Q --vector v.safetensors --position 3 --naive --save-logits l.safetensors'],
    ['data import a.json --images pictures -o t.json'],
    ['demo --queries image --tasks food-color --seeds 1 --style noto --test 5 --set shots=2 --no-resume'],
    ['verify run --seed 3'],
    ['run -m demo -p Q --maxTokens 3'],
  ])('scripts that say `%s` go on', async (line) => {
    await expect(parse(line.split(' '))).resolves.toBeInstanceOf(Function);
  });
});

/** A command as a shell splits it. */
function words(line: string): string[] {
  return [...line.matchAll(/"([^"]*)"|(\S+)/g)].map(([, quoted, bare]) => quoted ?? bare ?? '');
}

describe.each(all)('%s', (path, command) => {
  test('has examples that are right', async () => {
    expect(command.examples.length).toBeGreaterThan(0);
    for (const [, line] of command.examples) {
      const args = words(line.replace(/ [>;|].*$/, ''));
      expect([line, args.slice(0, path.split(' ').length).join(' ') !== '']).toEqual([line, true]);
      await expect(parse(args)).resolves.toBeInstanceOf(Function);
    }
    expect(command.examples.some(([, line]) => line.startsWith(path))).toBe(true);
  });

  test('has help whose lines fit, and shows every option once', async () => {
    const { code, stdout, stderr } = await xpatch([...path.split(' '), '--help'], { columns: 80 });
    expect([code, stderr]).toEqual([0, '']);
    const [help = ''] = stdout.split('Examples:');
    for (const line of help.split('\n')) expect(line.length).toBeLessThanOrEqual(80);
    for (const [name, { hidden }] of Object.entries(command.options)) {
      const shown = [...help.matchAll(new RegExp(`^ {2}(-.,|   ) --(\\[no-\\])?${dashed(name)}( |$)`, 'gm'))];
      expect([name, shown.length]).toEqual([name, hidden ? 0 : 1]);
    }
  });
});

describe('what was most likely meant is said', () => {
  test.each([
    [['extarct'], /There is no command "extarct"\. Did you mean extract\?/],
    [['models', 'lst'], /There is no command "lst"\. Did you mean list\?/],
    [['help', 'swep'], /Did you mean sweep\?/],
    [['zzzzzzzz'], /Commands: demo, eval, /],
    [['run', '-m', 'demo', '--promtp', 'Q'], /There is no option --promtp\. Did you mean --prompt\?/],
    [['run', '-m', 'demo', '-p'], /^xpatch: INVALID_ARGUMENT: -p needs a value; one with a dash .* -p="-x"/],
    [['run', '-p', 'Q', '-m'], / -m needs a value; .* -m="-x"/],
    [['run', '-p', 'Q', '--model'], / --model needs a value; .* --model="-x"/],
    [['run', '-m', 'demo', '-p', 'Q', '-z'], /There is no option -z\./],
    [['sweep', '-m', 'demo', '-p', 'Q', '--vector', 'v', '--op', 'replce'], /Did you mean replace\?/],
    [['eval', 'layer-swep', '-m', 'demo'], /There is no preset "layer-swep"\. Did you mean layer-sweep\?/],
    [['data', 'check', 'food-colour'], /There is no task named "food-colour"\. Did you mean food-color\?/],
    [['decode', '-m', 'demo', '--specs', 'txt'], /Did you mean text\?/],
    [['run', '-m', 'dmeo', '-p', 'Q'], /There is no model 'dmeo'\. Did you mean demo\?/],
  ])('xpatch %j', async (args, message) => {
    const { code, stderr } = await xpatch(args);
    expect(code).toBeGreaterThan(0);
    expect(stderr.trim()).toMatch(message);
    expect(stderr.trim().split('\n')).toHaveLength(1);
  });

  test('one value where a command takes no more', async () => {
    const base = ['extract', '-m', 'demo', '-o', 'v.safetensors'];
    const two = await xpatch([...base, '--tasks', 'food-color,food-flavor', '--specs', 'text']);
    expect(two).toMatchObject({ code: 2, stderr: expect.stringMatching(/--tasks takes one here, not 2/) });
    const kinds = await xpatch([...base, '--tasks', 'food-color', '--specs', 'text,image']);
    expect(kinds).toMatchObject({ code: 2, stderr: expect.stringMatching(/--specs takes one here, not 2/) });
    const all = await xpatch(['patchscope', '-m', 'demo', '-p', 'Q', '--positions', 'all']);
    expect(all).toMatchObject({ code: 2, stderr: expect.stringMatching(/--positions takes one here, not all/) });
  });
});

test('lists of positions and of points', () => {
  const read = <T>({ read }: { read: (given: never, name: string) => T }, given: unknown, name: string) =>
    read(given as never, name);
  expect(read(POSITIONS, '0,3-5, last,-2', '--positions')).toEqual([0, 3, 4, 5, -1, -2]);
  for (const wrong of ['5-3', '0,all', '1,,2', '', '-0x1', '3-', 'last-1'])
    expect(() => read(POSITIONS, wrong, '--positions')).toThrow(/--positions takes all, last, or positions/);
  expect(read(HOOK, 'z, pattern', '--hook')).toEqual(['z', 'pattern']);
  expect(read(HOOK, ['z,q', 'k'], '--hook')).toEqual(['z', 'q', 'k']);
  expect(() => read(HOOK, 'z,', '--hook')).toThrow(/not ""/);
  expect(() => read(HOOK, ['z,q', 'z'], '--hook')).toThrow(/names a point twice/);
});

describe('colours', () => {
  const ESCAPE = String.fromCharCode(27);
  const coloured = async (world: Parameters<typeof xpatch>[1]) => {
    const help = await xpatch(['help', 'view'], world);
    const error = await xpatch(['view', '--prot', '1'], world);
    return [help.stdout.includes(`${ESCAPE}[1m`), error.stderr.includes(`${ESCAPE}[31m`)];
  };

  test('are where the terminal has them, and what NO_COLOR and FORCE_COLOR say', async () => {
    expect(await coloured({})).toEqual([false, false]);
    expect(await coloured({ isTTY: true })).toEqual([true, true]);
    expect(await coloured({ isTTY: true, env: { NO_COLOR: '1' } })).toEqual([false, false]);
    expect(await coloured({ isTTY: true, env: { TERM: 'dumb' } })).toEqual([false, false]);
    expect(await coloured({ env: { FORCE_COLOR: '1' } })).toEqual([true, true]);
    expect(await coloured({ isTTY: true, env: { FORCE_COLOR: '0' } })).toEqual([false, false]);
    // and nothing else changes
    const plain = await xpatch(['--help']);
    const bold = await xpatch(['--help'], { isTTY: true });
    expect(bold.stdout.replace(/\p{Cc}\[\d+m/gu, '')).toBe(plain.stdout);
  });
});

test('a prompt may come from a file, to the letter but for its last line end', async () => {
  const { mkdtemp, rm, writeFile } = await import('node:fs/promises');
  const { tmpdir } = await import('node:os');
  const { join } = await import('node:path');
  const folder = await mkdtemp(join(tmpdir(), 'xpatch-prompt-'));
  const file = join(folder, 'prompt.txt');
  await writeFile(file, 'Q:<image>\\n<image>\n');
  const marks = await xpatch(['run', '-m', 'demo', '--prompt-file', file]);
  expect(marks).toMatchObject({ code: 2, stderr: expect.stringMatching(/The prompt has 2 <image> and 0 --image/) });
  const both = await xpatch(['run', '-m', 'demo', '--prompt-file', file, '-p', 'Q']);
  expect(both).toMatchObject({
    code: 2,
    stderr: expect.stringMatching(/Give either --prompt or --prompt-file, not both/),
  });
  const none = await xpatch(['run', '-m', 'demo', '--prompt-file', join(folder, 'none')]);
  expect(none).toMatchObject({ code: 1, stderr: expect.stringMatching(/FILE_NOT_FOUND/) });
  await rm(folder, { recursive: true });
});

test.each(['-o', '--output', '--report'])(
  'the command that resumes a run names its folder once, given as %s',
  (name) => {
    const { signal } = new AbortController();
    const exit = (): never => {
      throw new Error('exit');
    };
    const io = { stdin: process.stdin, stdout: new Collected(), stderr: new Collected(), env: {}, signal, exit };
    const given = ['eval', 'main', '-m', 'demo', name, 'folder'];
    expect(commandWith(new Terminal(given, io), 'folder')).toBe(`xpatch ${given.join(' ')}`);
    const bare = new Terminal(given.slice(0, 4), io);
    expect(commandWith(bare, 'folder')).toBe('xpatch eval main -m demo -o folder');
  },
);
