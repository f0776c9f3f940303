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
    await refused(options, { thread: 2 }, /^f: x has no "thread"; did you mean "threads"\?\.$/);
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
  test('of several forms is told by the form that it comes nearest to', () =>
    refused(
      { any: ['string', { list: { fields: { n: { type: 'number' } } } }] },
      [{ n: 'a' }],
      /x\[0\]\.n must be a number/,
    ));
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
