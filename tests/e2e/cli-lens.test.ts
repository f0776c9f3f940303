// The lens command: its numbers are the model's, its report is whole, and what cannot be is refused before any work.
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import sharp from 'sharp';
import type { RankedToken } from '../../src/model/tracked.js';
import { commandLine, FIXTURES } from './cli-helpers.js';

const cli = commandLine();
const read = (path: string) => readFileSync(join(cli.folder, path), 'utf8');
const model = (name: string) => join(FIXTURES, `${name}.gguf`);
const picture = join(FIXTURES, 'pictures', 'square-a.png');
const TEXT = ['lens', '-m', 'demo', '--threads', '1', '--prompt', 'Q:Peru\\nA:Lima\\n\\nQ:Japan\\nA:'];
const IMAGE = ['lens', '-m', 'demo', '--threads', '1', '--prompt', 'Q:<image>\\nA:', '--image', picture];

describe('lens of a text', () => {
  test('says at the highest layer what the model says next, and writes a report', async () => {
    const found = await cli.json(...TEXT, '--top', '3', '--track', 'T', '-o', 'text');
    const { tokens } = await cli.json('run', '-m', 'demo', '--threads', '1', '--prompt', TEXT[6] as string, '-n', '1');
    const top = found.cells[found.layers.length - 1][found.positions.length - 1];
    expect(top.top[0].token).toBe(tokens[0]);
    expect(top.top).toHaveLength(3);
    expect(top.kl).toBe(0);
    expect(top.tokens[0].text).toBe('T');
    // The answer can be followed through all layers, whether it is among the best there or not.
    const answer = top.top[0].token;
    for (const layer of found.cells) {
      const { tokens } = layer.at(-1);
      expect(tokens.find(({ token }: { token: number }) => token === answer).rank).toBeGreaterThanOrEqual(0);
    }
    expect(found.inputs.map(({ text }: { text: string }) => text).join('')).toContain('Q:Japan\nA:');
    // The last position is read again with the tokens that are followed: the same numbers come out.
    expect(found.last.cells.at(-1)[0].top).toEqual(top.top.map((score: object) => like(score)));

    const manifest = JSON.parse(read('text/manifest.json'));
    expect(manifest).toMatchObject({
      status: 'complete',
      experiment: 'lens',
      options: { track: [top.tokens[0].token] },
    });
    expect(read('text/report.html')).toContain('Layers and positions');
    const csv = read('text/figures/lens.csv').split('\r\n');
    expect(csv.length).toBeGreaterThan(found.layers.length * found.positions.length);
    const { width, height } = await sharp(join(cli.folder, 'text/figures/lens.png')).metadata();
    expect(Math.min(width, height)).toBeGreaterThan(100);
    expect(existsSync(join(cli.folder, 'text/tables/last-position.tex'))).toBe(true);
  });

  test('prints a line a layer, the highest on top', async () => {
    const { code, stdout } = await cli.run([...TEXT, '-o', 'printed']);
    expect(code).toBe(0);
    const lines = stdout.split('\n');
    expect(lines[0]).toMatch(/^layer .*:$/);
    expect(lines.slice(1, 9).map((line) => Number.parseInt(line, 10))).toEqual([7, 6, 5, 4, 3, 2, 1, 0]);
    expect(stdout).toMatch(/Report: printed\/report.html\n$/);
  });

  test('prints the tokens that are followed, at the last position', async () => {
    const args = [...TEXT, '--track', 'T', '--track', 'L', '-o'];
    const { last } = await cli.json(...args, 'followed');
    const { stdout } = await cli.run([...args, 'followed-again']);
    const table = stdout.slice(stdout.indexOf('At the last position')).split('\n');
    expect(table[1]).toMatch(/^layer {2}T +L$/);
    for (const [i, line] of table.slice(2, 10).entries()) {
      const { tokens } = last.cells[7 - i][0];
      const of = (n: number) => `${tokens[n].probability.toFixed(3)} rank ${tokens[n].rank + 1}`;
      expect(line.replace(/ +/g, ' ').trim()).toBe(`${7 - i} ${of(0)} ${of(1)}`);
    }
  });

  test('reads through a tuned lens, and not through one of another model', async () => {
    await cli.json('tune', '-m', 'demo-base', '--threads', '1', '--prompts', '10', '-o', 'base.safetensors');
    const base = ['lens', '-m', 'demo-base', ...TEXT.slice(3)];
    const plain = await cli.json(...base, '-o', 'plain');
    const tuned = await cli.json(...base, '--tuned', 'base.safetensors', '-o', 'tuned');
    expect(tuned.tuned).toBe(true);
    // The highest layer needs no translation; the others change.
    expect(tuned.cells.at(-1)).toEqual(plain.cells.at(-1).map((cell: object) => like(cell)));
    expect(tuned.cells[0]).not.toEqual(plain.cells[0]);
    expect(read('tuned/report.html')).toContain('Tuned lens');
    expect(await cli.error(...TEXT, '--tuned', 'base.safetensors')).toMatchObject({ code: 'LENS_MISMATCH', exit: 1 });
  });
});

describe('lens of a picture', () => {
  test('reads its rows too, and draws them on the picture that the model saw', async () => {
    const found = await cli.json(...IMAGE, '-o', 'picture');
    const rows = found.inputs.filter(({ kind }: { kind: string }) => kind === 'image').length;
    expect(rows).toBe(16);
    expect(found.positions).toHaveLength(found.inputs.length);
    expect(existsSync(join(cli.folder, 'picture/figures/lens.picture-1.png'))).toBe(true);
  });

  test('one row of it alone', async () => {
    const found = await cli.json(...IMAGE, '--positions', '4', '--layers', '2,7', '-o', 'row');
    expect(found).toMatchObject({ layers: [2, 7], positions: [4], inputs: [{ kind: 'image' }] });
  });
});

test('what cannot be read is refused with a way out, and no folder is made', async () => {
  const refuse = async (code: string, message: RegExp, ...args: string[]) => {
    expect(await cli.error(...args, '-o', 'refused')).toMatchObject({ code, message: expect.stringMatching(message) });
    expect(existsSync(join(cli.folder, 'refused'))).toBe(false);
  };
  await refuse('LAYER_OUT_OF_RANGE', /0 to 7/, ...TEXT, '--layers', '8');
  await refuse('POSITION_OUT_OF_RANGE', /999/, ...TEXT, '--positions', '999');
  await refuse('PROMPT_EMPTY', /empty/, 'lens', '-m', model('llama'), '--prompt', '');
  await refuse('IMAGE_UNSUPPORTED', /mmproj/, 'lens', '-m', 'demo-base', ...IMAGE.slice(3));
  await refuse('INVALID_ARGUMENT', /not one token.*"L"/, ...TEXT, '--track', 'Lxx');
  // Behind this prompt the model has no token that begins with a blank, as the text after other prompts has.
  for (const blanks of [' ', '  ']) {
    await refuse(
      'INVALID_ARGUMENT',
      /not one token.*; try "Lima", which is one\./,
      ...TEXT,
      '--track',
      `${blanks}Lima`,
    );
  }
  await refuse('INVALID_ARGUMENT', /; leave out the spaces before it\./, ...TEXT, '--track', ' Lxx');
  await refuse('FILE_NOT_FOUND', /nothing/, ...TEXT, '--tuned', 'nothing.safetensors');
  await refuse('INVALID_ARGUMENT', /--top/, ...TEXT, '--top', '0');
  writeFileSync(join(cli.folder, 'file'), '');
  expect(await cli.error(...TEXT, '-o', 'file')).toMatchObject({ code: 'FILE_WRITE' });
});

test('a sweep has a report too', async () => {
  await cli.json(
    'extract',
    '-m',
    'demo',
    '--threads',
    '1',
    '--tasks',
    'country-capital',
    '--specs',
    'text',
    '-o',
    'v.safetensors',
  );
  const args = ['sweep', '-m', 'demo', '--threads', '1', '--prompt', 'Q:Peru\\nA:', '--vector', 'v.safetensors'];
  const { report, layers } = await cli.json(...args, '--report', 'sweep');
  expect(report).toBe('sweep');
  const rows = read('sweep/tables/sweep.csv').trim().split('\r\n');
  expect(rows.length).toBe(layers.length + 2); // the head, the bare prompt
  expect(read('sweep/report.html')).toContain('Next tokens by patched layer');
  const followed = [...args, '--track', 'Lima', '--track', 'Tokyo', '--top', '1'];
  const { plain, tracked, layers: swept } = await cli.json(...followed);
  const { stdout } = await cli.run(followed);
  const [head, ...lines] = stdout.trimEnd().split('\n');
  expect(head).toMatch(/^layer {2}"Lima" +"Tokyo" +next tokens/);
  expect(lines.map((line) => line.replace(/ {2,}/g, '  '))).toEqual(
    [{ top: plain, tracked }, ...swept].map(({ layer, top, tracked }) =>
      [
        layer ?? 'none',
        ...tracked.map(({ probability, rank }: RankedToken) => `${probability.toFixed(3)} rank ${rank + 1}`),
        `${JSON.stringify(top[0].text)} ${top[0].probability.toFixed(2)}`,
      ].join('  '),
    ),
  );
});

/** Equal but for the last bits of floating point: another batch may sum in another order. */
function like(value: unknown): unknown {
  if (typeof value === 'number') return Number.isInteger(value) ? value : expect.closeTo(value, 4);
  if (Array.isArray(value)) return value.map(like);
  if (value === null || typeof value !== 'object') return value;
  return Object.fromEntries(Object.entries(value).map(([key, entry]) => [key, like(entry)]));
}
