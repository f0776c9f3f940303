import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { writeCircuit } from '../../src/cli/circuit-report.js';
import type { Session } from '../../src/cli/common.js';
import type { Report } from '../../src/report/report.js';
import { expectError, temporaryFolder } from './helpers.js';

const report = await temporaryFolder();

test('what a circuit command found is printed, if its report can be written or not', async () => {
  await writeFile(join(report, 'file'), ''); // a folder that is not empty is refused
  const printed: string[] = [];
  const session = {
    terminal: {
      out: {},
      print: (text: string) => printed.push(text),
      printJson: (value: object) => printed.push(JSON.stringify(value)),
    },
    model: { identity: {} },
    progress: { done: () => undefined },
  } as unknown as Session;
  const table = { title: 'Found', columns: [{ name: 'head' }], rows: [['7']], notes: [] };
  const blocks = [{ kind: 'table', name: 'heads', heading: 'Heads', table }] as const;
  const make = (given: Pick<Report, 'provenance'>): Report => ({ title: 'T', introduction: [], blocks, ...given });
  for (const json of [false, true]) {
    await expectError(
      () => writeCircuit(session, { json, report }, { result: { heads: [7] }, make }),
      'FILE_WRITE',
      /not empty/,
    );
  }
  expect(printed).toEqual([expect.stringContaining('Found'), expect.stringContaining('"heads":[7]')]);
});
