// The examples run as the README says, against the built package.
import { execFile } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { expect, test } from '@jest/globals';
import { PACKAGE_ROOT } from '../../install/layout.mjs';

const run = promisify(execFile);

/** A line that each of them must print. */
const SAYS: Record<string, RegExp> = {
  'cross-modal-patch.ts':
    /^picture of .+: expected \w+\n {2}nothing: .+ \| text examples in the prompt: .+ \| text vector/m,
  'layer-sweep.ts': /^layer 7: \S+ 0\.\d\d/m,
  'logit-lens.ts': /^patch at 0,0 of 16 x 16 pixels: "/m,
  'main-table.ts': /^Text Patch +0\.\d\d +0\.\d\d +0\.\d\d$/m,
  'patching-map.ts': /^probability of Tokyo: 0\.\d\d for Japan, 0\.\d\d for Egypt\nlayer 0 ( +0\.\d\d)+$/m,
  'question-file.ts': /^ {2}"question": "What is the color of the food\?",$/m,
  'read-and-write-states.ts':
    /^states: 8 layers x \d+ positions x 128 numbers, marks at \{ country: \d, delimiter: \d+ \}$[\s\S]*^as it is: "Lima"[\s\S]*Cuba in its place: "Havana"/m,
  'ten-lines.ts':
    /^128 numbers .*\n.* -> Lima\nLima at layer 2: 0\.\d\d\nrecovered .*\nFinland, steered by -2, 0 and 2: Euro, Finland, Helsinki\npage: .*report\.html$/m,
};

/** What is in folders are job files (scale.test.ts). */
const scripts = readdirSync(join(PACKAGE_ROOT, 'examples')).filter((name) => name.endsWith('.ts'));

test.each(scripts)('%s', async (name) => {
  const { stdout } = await run(process.execPath, ['--import', 'tsx', join('examples', name)], { cwd: PACKAGE_ROOT });
  expect(stdout).toMatch(SAYS[name] as RegExp);
});
