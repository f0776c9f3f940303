// The check of arguments against their declared types. tests/faults tries it on the whole public interface.
import { describe, expect, test } from '@jest/globals';
import { checked, checkedClass, type Interface, type Shape } from '../../src/util/arguments.js';
import { expectError } from './helpers.js';

class Row {
  constructor(readonly n: number) {}
  scale(by: number) {
    return new Row(this.n * by);
  }
  static async of(text: string) {
    return new Row(Number(text));
  }
}
const all: Interface = {
  classes: { Row },
  shapes: {
    Options: {
      fields: {
        threads: { type: 'number', optional: true },
        onProgress: { type: 'function', optional: true },
        kind: { type: { oneOf: ['a', 'b'] }, optional: true },
      },
      closed: true,
    },
    Tree: { fields: { of: { type: { list: { see: 'Tree' } }, optional: true } } },
  },
};
const call = (type: Shape, value: unknown, optional?: true) =>
  checked(all, 'f', { parameters: [{ name: 'x', type, ...(optional && { optional }) }] }, (x: unknown) => x)(value);
const refused = (type: Shape, value: unknown, message: RegExp) =>
  expectError(() => call(type, value), 'INVALID_ARGUMENT', message);

describe('options', () => {
  const options = { see: 'Options' };
  test('that are right, or left out, are handed on', () => {
    const given = { threads: 2, kind: 'b', onProgress: undefined };
    expect(call(options, given)).toBe(given);
    expect(call(options, undefined, true)).toBeUndefined();
  });
  test('with a name that there is not are refused with the one that was meant', async () => {
    await refused(options, { thread: 2 }, /^f: x has no "thread"; did you mean "threads"\?$/);
    await refused(options, { colour: 2 }, /has no "colour"; it may have threads, onProgress, kind\./);
  });
  test('of wrong types are refused by their names', async () => {
    await refused(options, { onProgress: {} }, /x\.onProgress must be a function, not an object/);
    await refused(options, { kind: 'c' }, /x\.kind must be "a" or "b", not "c"/);
    await refused(options, { threads: Number.NaN }, /x\.threads must be a number, not NaN/);
    await refused(options, [], /x must be an object, not a list/);
    await refused(options, null, /not null/);
  });
});

describe('data', () => {
  test('may hold more than is declared, and NaN', () => {
    const open: Shape = { fields: { y: { type: { list: 'number' } } } };
    expect(call(open, { y: [Number.NaN], label: 1 })).toEqual({ y: [Number.NaN], label: 1 });
  });
  test('of lists, tuples, records and typed arrays is told by the place of the first fault', async () => {
    await refused({ list: { list: 'number' } }, [[1], [2, '3']], /x\[1\]\[1\] must be a number, not "3"/);
    await refused({ list: 'number' }, Array(2), /x\[0\] must be a number, not undefined/);
    await refused({ tuple: ['number', 'number'] }, [1], /a list of 2/);
    await refused({ fields: {}, others: 'string' }, { a: 1 }, /x\.a must be a string/);
    await refused('numbers', Object.assign(Array(3), { 0: 1 }), /a list of numbers/);
    await refused({ is: 'Float32Array' }, new Float64Array(1), /a Float32Array/);
    expect(call('numbers', Int32Array.of(1))).toHaveLength(1);
  });
  test("whose memory is another thread's by now, and classes as callbacks, are refused", async () => {
    const gone = new Float32Array(4);
    structuredClone(gone, { transfer: [gone.buffer] });
    await refused('numbers', gone, /cannot be read.*detached/);
    await refused({ is: 'Float32Array' }, gone, /cannot be read.*detached/);
    expect(call('numbers', new Float32Array(0))).toHaveLength(0);
    await refused('function', class {}, /a function/);
  });
  test('that holds itself ends', async () => {
    const tree: { of: unknown[] } = { of: [] };
    tree.of.push(tree);
    await refused({ see: 'Tree' }, tree, /nested too deeply/);
  });
  test('that throws when it is read is refused with the reason', async () => {
    const trap = new Proxy(
      {},
      {
        get: () => {
          throw new Error('no');
        },
      },
    );
    await refused({ see: 'Options' }, trap, /x cannot be read: no/);
    const gone = Proxy.revocable({}, {});
    gone.revoke();
    await refused({ list: 'number' }, gone.proxy, /cannot be read/);
    await refused('string', gone.proxy, /not an object/);
  });
  test('under a slip of a name that it must have is told by that name', () =>
    refused(
      { fields: { picture: { type: 'number' } } },
      { label: 1, pictur: 1 },
      /x has no "pictur"; did you mean "picture"\?$/,
    ));
});

describe('a value that may have several forms', () => {
  const one = (name: string, type: Shape): Shape => ({ fields: { [name]: { type } }, closed: true });
  const part: Shape = { any: ['string', one('literal', 'string'), one('tokens', 'numbers'), one('image', 'string')] };
  const row: Shape = {
    any: [
      part,
      { list: part },
      {
        fields: {
          prompt: { type: { any: [part, { list: part }] } },
          topK: { type: 'number', optional: true },
          capture: { type: { any: [one('layers', { list: 'number' }), { oneOf: ['all'] }] }, optional: true },
          value: { type: { any: [{ is: 'Float32Array' }, { list: { is: 'Float32Array' } }] }, optional: true },
        },
        closed: true,
      },
    ],
  };
  test('is told by the form that it comes nearest to', async () => {
    await refused(row, { prompt: 'x', captur: 'all' }, /^f: x has no "captur"; did you mean "capture"\?$/);
    await refused(row, { prompt: 'x', topk: 5 }, /x has no "topk"; did you mean "topK"\?$/);
    await refused(row, { promt: 'x' }, /x has no "promt"; did you mean "prompt"\?$/);
    await refused(row, { captuer: 'all' }, /x has no "captuer"; did you mean "capture"\?$/);
    await refused(row, { prompt: 'x', colour: 1 }, /x has no "colour"; it may have prompt, topK, capture, value\.$/);
    await refused(row, { prompt: 'x', topK: '5' }, /x\.topK must be a number, not "5"\.$/);
    await refused(
      row,
      { prompt: 5 },
      /x\.prompt must be a string, an object with literal, tokens or image or a list, not 5/,
    );
    await refused(row, { topK: 5 }, /x\.prompt must be .*, not undefined/);
    await refused(row, { tokens: 'x' }, /x\.tokens must be a list of numbers/);
    await refused(row, { prompt: 'x', capture: { layers: [3], layer: 3 } }, /x\.capture has no "layer"/);
    await refused(row, { prompt: 'x', capture: { layers: ['3'] } }, /x\.capture\.layers\[0\] must be a number/);
    await refused(row, { prompt: ['a', { img: 'x' }] }, /x\.prompt\[1\] has no "img"; did you mean "image"\?$/);
    await refused(part, { litteral: 'x' }, /did you mean "literal"\?$/);
  });
  test('is told all of them if it resembles none', async () => {
    const all = /^f: x must be a string, an object with literal, tokens, image or prompt or a list, not an object\.$/;
    for (const value of [{}, { foo: 1 }, new Map()]) await refused(row, value, all);
    await refused(
      row,
      { prompt: 'x', capture: 'everything' },
      /x\.capture must be an object with layers or "all", not/,
    );
  });
  test('of numbers where vectors belong is told as a whole', async () => {
    const whole = /x\.value must be a Float32Array or a list of Float32Arrays, not a list of numbers\.$/;
    await refused(row, { prompt: 'x', value: [1, 2] }, whole);
    await refused(row, { prompt: 'x', value: [new Float32Array(1), 2] }, /x\.value\[1\] must be a Float32Array, not 2/);
  });
  test('of objects with one of several tags is told by its tag', () =>
    refused(
      {
        any: ['bars', 'table', 'lens'].map((kind) => ({
          fields: { kind: { type: { oneOf: [kind] } }, title: { type: 'string' }, [`${kind}Data`]: { type: 'number' } },
        })),
      },
      { kind: 'table', title: 'a', tableData: 'b' },
      /x\.tableData must be a number/,
    ));
  test('and belongs in another argument is told which', async () => {
    const parameters = [
      { name: 'row', type: row },
      { name: 'options', type: { fields: { stop: { type: 'number', optional: true } }, closed: true } as Shape },
    ];
    const both = checked(all, 'f', { parameters }, (x: unknown) => x) as (...given: unknown[]) => unknown;
    const given = (fields: object) => () => both({ prompt: 'x', ...fields }, {});
    await expectError(given({ stop: 1 }), 'INVALID_ARGUMENT', /^f: row has no "stop"; it belongs in options\.$/);
    await expectError(given({ sotp: 1 }), 'INVALID_ARGUMENT', /did you mean "stop" of options\?$/);
  });
});

describe('classes', () => {
  const Checked = checkedClass(
    all,
    'Row',
    {
      new: { parameters: [{ name: 'n', type: 'number' }] },
      scale: { parameters: [{ name: 'by', type: 'number' }] },
      'static of': { parameters: [{ name: 'text', type: 'string' }], promises: true },
    },
    Row,
  );
  test('keep what they are', async () => {
    const row = new Checked(2);
    expect(row).toBeInstanceOf(Row);
    expect(row).toBeInstanceOf(Checked);
    expect(row.scale(3).n).toBe(6);
    expect((await Checked.of('4')).n).toBe(4);
    expect(call({ is: 'Row' }, row)).toBe(row);
  });
  test('refuse by throwing, and by rejecting where they give promises', async () => {
    const wrong = 'x' as unknown as number;
    expect(() => new Checked(wrong)).toThrow('new Row: n must be a number, not "x".');
    expect(() => new Checked(1).scale(wrong)).toThrow('row.scale: by must be');
    await expect(Checked.of(1 as unknown as string)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    await refused({ is: 'Row' }, { n: 1 }, /a Row, not an object/);
  });
});
