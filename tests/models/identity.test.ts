// Writing a state back: rounding that depends on a row's company passes, a patch that changes something does not.

import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { ownStates, requireUnchanged } from '../../src/experiment/identity.js';
import { type Context, type Intervention, loadModel, type Model } from '../../src/index.js';
import type { PassRow } from '../../src/model/pass.js';
import type { Prompt } from '../../src/prompt/prompt.js';
import { DELIMITER } from '../../src/tasks/prompts.js';
import { expectError } from '../unit/helpers.js';

let model: Model;
let context: Context;
let prompt: Prompt;
beforeAll(async () => {
  model = await loadModel('demo', { threads: 1 });
  context = await model.createContext();
  prompt = await model.prompt(['Q:Peru\nA', { mark: DELIMITER }, ':']);
});
afterAll(() => model.dispose());

const LAYER = 3;
const own = async () => {
  const [at] = await ownStates(context, [{ prompt, layers: [LAYER] }]);
  return (at as NonNullable<typeof at>)(LAYER);
};

/** The context, but what is written in is not what it should be. */
function broken(change: (value: Float32Array) => Float32Array): Context {
  const changed = (one: Intervention) => ({ ...one, value: change(one.value as Float32Array) }) as Intervention;
  return new Proxy(context, {
    get: (target, name) =>
      name === 'pass'
        ? (rows: readonly PassRow[]) =>
            target.pass(
              rows.map(({ interventions = [], ...row }) => ({ ...row, interventions: interventions.map(changed) })),
            )
        : Reflect.get(target, name),
  });
}

test('what was written back is the state that was read', async () => {
  const state = await own();
  const [result] = await context.pass([{ prompt, interventions: [state.writtenBack], topK: 1 }]);
  expect(result?.interventions[0]?.delta).toBeLessThan(1e-4 * state.norm);
  expect(result?.top[0]).toEqual(state.top);
});

test('a state that another batch rounded otherwise is asked alone', async () => {
  const state = await own();
  const { top, norm } = state;
  const far = { ...top, probability: top.probability - 0.2 };
  for (const seen of [
    { delta: 0, top },
    { delta: 0, top: far },
    { delta: norm, top },
    { delta: undefined, top: undefined },
  ]) {
    await requireUnchanged(context, prompt, state, seen);
  }
});

test('a patch that writes something else is found, whether it moves the state or the answer', async () => {
  const state = await own();
  const seen = { delta: state.norm, top: state.top };
  for (const change of [
    (value: Float32Array) => value.map((x) => 1.2 * x),
    (value: Float32Array) => value.map(() => 0),
    (value: Float32Array) => value.toReversed(),
  ]) {
    await expectError(
      () => requireUnchanged(broken(change), prompt, state, seen),
      'NATIVE_FAILURE',
      /own state back moved it by .* patches do not work/,
    );
  }
});
