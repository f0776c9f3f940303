// The declarations of the built package, as strict projects with old and new compilers read them: `skipLibCheck` off.
import { execFile } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, expect, test } from '@jest/globals';
import { PACKAGE_ROOT } from '../../install/layout.mjs';

const run = promisify(execFile);
const folder = mkdtempSync(join(tmpdir(), 'xpatch-types-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const require = createRequire(join(PACKAGE_ROOT, 'package.json'));
const packageFolder = (name: string) => dirname(require.resolve(`${name}/package.json`));

/** Names everything that there is, and uses what most people use. */
const CONSUMER = `
import * as everything from 'xpatch';
import { type Context, type Intervention, loadModel, type PassRow, TaskVector } from 'xpatch';

export async function patch(): Promise<number | undefined> {
  const model = await loadModel('demo', { threads: 1, onProgress: (fraction) => void fraction.toFixed() });
  const context: Context = await model.createContext({ nCtx: 256 });
  try {
    const prompt = await model.prompt(['Q: ', { image: new Uint8Array(3) }, 'A:', { mark: 'here' }]);
    const row: PassRow = { prompt, capture: { layers: 'all', positions: ['here', -1] }, topK: 1 };
    const [first] = await context.pass([row]);
    const edit: Intervention = { hook: 'resid_post', layer: 0, positions: 'last', op: 'zero' };
    const [second] = await context.generate([{ prompt, interventions: [edit] }], { maxTokens: 3 });
    const vector: TaskVector = await TaskVector.load('x');
    // @ts-expect-error there is no such option
    await model.createContext({ nCtxx: 1 });
    return (first.top?.[0]?.token ?? 0) + second.tokens.length + vector.info.layers.length;
  } finally {
    await context.dispose();
    await model.dispose();
  }
}
export { everything };
`;

mkdirSync(join(folder, 'node_modules', '@types'), { recursive: true });
symlinkSync(PACKAGE_ROOT, join(folder, 'node_modules', 'xpatch'), 'dir');
symlinkSync(packageFolder('@types/node'), join(folder, 'node_modules', '@types', 'node'), 'dir');
writeFileSync(join(folder, 'package.json'), '{ "type": "module" }');
writeFileSync(join(folder, 'consumer.ts'), CONSUMER);

const settings = { strict: true, noEmit: true, skipLibCheck: false, target: 'es2022', types: ['node'] };

test.each(
  ['typescript-5.4', 'typescript'].flatMap((compiler) => [
    [compiler, 'nodenext', 'nodenext'],
    [compiler, 'esnext', 'bundler'],
  ]),
)('%s, module %s, resolution %s', async (compiler, module, moduleResolution) => {
  const project = join(folder, `${compiler}-${module}.json`);
  const compilerOptions = { ...settings, module, moduleResolution };
  writeFileSync(project, JSON.stringify({ compilerOptions, files: ['consumer.ts'] }));
  const { bin } = require(`${compiler}/package.json`);
  const tsc = join(packageFolder(compiler), bin.tsc);
  const output = await run(process.execPath, [tsc, '-p', project]).then(
    ({ stdout }) => stdout,
    (e) => e.stdout,
  );
  expect(output).toBe('');
});
