import { readFileSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { FAMILIES, hashOf } from './families.js';
import { records, render } from './table.js';

test('docs/families.md says what was measured, on the files that are there', () => {
  const measured = records();
  // Another hash: run `node --import tsx tests/parity/measure.ts NAME` and `node --import tsx tests/parity/table.ts`.
  expect(FAMILIES.map((family) => [family.name, hashOf(family)])).toEqual(
    Object.entries(measured).map(([name, { files }]) => [name, files]),
  );
  expect(readFileSync(new URL('../../docs/families.md', import.meta.url), 'utf8')).toBe(render());
});
