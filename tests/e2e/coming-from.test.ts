// The TypeScript of docs/coming-from.md, on the demo model: types and calls are those of the package.
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { expect, test } from '@jest/globals';
import { PACKAGE_ROOT } from '../../install/layout.mjs';

/** Inside the package, so that `xpatch` is found as a user's program finds it. */
const file = join(PACKAGE_ROOT, 'build', `coming-from-${process.pid}.mts`);

test('the programs of docs/coming-from.md run', () => {
  const text = readFileSync(join(PACKAGE_ROOT, 'docs', 'coming-from.md'), 'utf8');
  const blocks = [...text.matchAll(/```ts\n(.*?)```/gs)].map(([, code = '']) => code);
  expect(blocks).toHaveLength(4);
  const [load, ...programs] = blocks.map((code) => code.replace(/^import .*\n/gm, ''));
  const shown = ['top.length', '[patched, zeroed].map(({ logits }) => logits.positions.length)', 'text.length > 0'];
  const parts = programs.map((code, i) => `{\n${code}\nconsole.log(JSON.stringify(${shown[i]}));\n}`);
  const source = [
    `import { loadModel, logitDifference, patchLayers, steeringVector } from 'xpatch';`,
    load?.replace(/loadModel\('[^']+'\)/, `loadModel('demo')`),
    `const texts = ['It rains.', 'Hello there.'];`,
    ...parts,
  ].join('\n');
  // the demo model has eight layers
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, source.replace('[12, 13, 14, 15, 16]', '[2, 3, 4]'));
  try {
    const stdout = execFileSync(process.execPath, ['--import', 'tsx', file], { cwd: PACKAGE_ROOT, encoding: 'utf8' });
    expect(stdout.match(/^(5|\[1,1\]|true)$/gm)).toEqual(['5', '[1,1]', 'true']);
  } finally {
    rmSync(file);
  }
});
