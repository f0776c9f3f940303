import { expect, test } from '@jest/globals';
import { Prompt } from '../../src/prompt/prompt.js';
import { counted, plural } from '../../src/util/counted.js';
import { expectError } from './helpers.js';

test('one thing is singular, none and more are plural', () => {
  expect([0, 1, 2].map((n) => counted(n, 'item'))).toEqual(['0 items', '1 item', '2 items']);
  expect([1, 2].map((n) => counted(n, 'query', 'queries'))).toEqual(['1 query', '2 queries']);
  expect([1, 2].map((n) => `${plural(n, 'layer')} 0`)).toEqual(['layer 0', 'layers 0']);
});

test('a mark that is none is told with the marks, and the words that need none', () =>
  expectError(
    () => new Prompt([{ kind: 'tokens', tokens: Int32Array.of(7) }], { end: 0 }, []).positions('first'),
    'POSITION_OUT_OF_RANGE',
    /no mark 'first' \(its marks: end\)\. .*'last' and, for several, 'all'\.$/,
  ));
