import { setTimeout } from 'node:timers/promises';
import { expect, jest, test } from '@jest/globals';
import { Lanes } from '../../src/experiment/lanes.js';
import type { Context } from '../../src/model/context.js';

/** A context that can only be copied and disposed of; `limit` copies can be made of it. */
function fake(limit = 9) {
  const copies: { dispose: jest.Mock }[] = [];
  const options = { nCtx: 7 };
  const createContext = jest.fn(async (_: unknown) => {
    if (copies.length === limit) throw new Error('no memory');
    const copy = { dispose: jest.fn(async () => undefined) };
    copies.push(copy);
    return copy;
  });
  const dispose = jest.fn(async () => undefined);
  return {
    copies,
    createContext,
    dispose,
    context: { model: { createContext }, options, dispose } as unknown as Context,
  };
}

test('each works in order, in no lane two things at a time, and in all of them', async () => {
  const lanes = await Lanes.open({ context: fake().context, foreign: undefined }, 3);
  const busy = new Map<unknown, number>();
  const begun: number[] = [];
  await lanes.each([30, 1, 1, 20, 1, 1, 1, 5], async (ms, index, lane) => {
    expect(busy.get(lane) ?? 0).toBe(0);
    busy.set(lane, 1);
    begun.push(index);
    await setTimeout(ms);
    busy.set(lane, 0);
  });
  expect(begun).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
  expect(busy.size).toBe(3);
});

test('after a failure nothing more begins, what is under way ends, and the first one is thrown', async () => {
  const lanes = await Lanes.open({ context: fake().context, foreign: undefined }, 3);
  const ended: number[] = [];
  const work = lanes.each([30, 1, 20, 1, 1], async (ms, index) => {
    await setTimeout(ms);
    if (index < 2) throw new Error(`broken ${index}`);
    ended.push(index);
  });
  await expect(work).rejects.toThrow('broken 1');
  expect(ended).toEqual([2]);
});

test('contexts are made like the first ones and disposed of, the first ones not', async () => {
  const [own, other] = [fake(), fake()];
  {
    await using lanes = await Lanes.open({ context: own.context, foreign: other.context }, 3);
    await lanes.each([1, 2, 3, 4], async () => undefined);
    expect(own.createContext).toHaveBeenCalledWith({ nCtx: 7 });
    expect([own.copies.length, other.copies.length]).toEqual([2, 2]);
  }
  for (const { dispose } of [...own.copies, ...other.copies]) expect(dispose).toHaveBeenCalledTimes(1);
  for (const { dispose } of [own, other]) expect(dispose).not.toHaveBeenCalled();
});

test('where one cannot be made those before it are disposed of', async () => {
  const [own, other] = [fake(2), fake(1)];
  await expect(Lanes.open({ context: own.context, foreign: other.context }, 3)).rejects.toThrow('no memory');
  expect([own.copies.length, other.copies.length]).toEqual([2, 1]);
  for (const { dispose } of [...own.copies, ...other.copies]) expect(dispose).toHaveBeenCalledTimes(1);
});
