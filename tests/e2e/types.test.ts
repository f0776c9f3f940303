// The declarations of the built package, the examples, and the TypeScript and JavaScript in the documents, as strict projects with old and new compilers read them: `skipLibCheck`
// off, `noUncheckedIndexedAccess` on.
import { execFile } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
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
import * as core from 'xpatch';
import * as convert from 'xpatch/convert';
import * as experiment from 'xpatch/experiment';
import * as report from 'xpatch/report';
import { type Context, type Intervention, loadModel, logitDifference, mark, type PassRow, patchLayers, sweepLayers, TaskVector } from 'xpatch';
import { lensReport } from 'xpatch/report';

export async function patch(): Promise<number> {
  const model = await loadModel('demo', { threads: 1, onProgress: (fraction) => void fraction.toFixed() });
  const context: Context = await model.createContext({ nCtx: 256 });
  try {
    const { states } = await context.run({ prompt: ['Q:Peru\\nA:', mark('delimiter')], capture: 'all' });
    const one: Float32Array = states.at(3, 'delimiter');
    const other = states.select({ layers: [3, 4] });
    const cosines: number[][] = states.cosine(other);
    await states.save('peru.safetensors');
    const vector: TaskVector = await TaskVector.load('x');
    const q = { prompt: ['Q:', { image: new Uint8Array(3) }, '\\nA:'] };
    const [bare, patched] = await context.generate([q, { ...q, interventions: [vector.at(2)] }]);
    const sweep = await sweepLayers(context, q, vector, { track: ['Lima'] });
    const probability = sweep.layers[3]?.tracked[0]?.probability;
    const map = await patchLayers(context, { from: 'Q:Peru', into: 'Q:Cuba', metric: logitDifference('Lima', 'Tokyo') });
    const steer: Intervention = { layers: [3, 4], positions: 'all', steps: 'generated', op: 'add', value: one, factor: 4 };
    const page = await lensReport(context, q);
    await page.save('lens');

    // Rows made apart from their call: what they ask for is there, what they do not ask for may be missing.
    const rows = ['Peru', 'Cuba'].map((country) => ({ prompt: country, capture: { layers: [1] }, topK: 2 }));
    const widths: number[] = (await context.pass(rows)).map(({ states, top }) => states.shape[2] + top.length);
    const row: PassRow = { prompt: 'x', interventions: [steer] };
    const result = await context.run(row);
    // @ts-expect-error a row of no known request may have no states
    result.states.at(0);
    // @ts-expect-error there is no such option
    await model.createContext({ nCtxx: 1 });
    // @ts-expect-error nobody asked for logits
    bare.logits.data;
    return bare.tokens.length + patched.text.length + (probability ?? 0) + map.at(0, 0) + widths.length + cosines.length;
  } finally {
    await context.dispose();
    await model.dispose();
  }
}
export { convert, core, experiment, report };
`;

/** What comes before blocks of the documents that do not stand alone, by document and number. */
const CONTEXT = `import type { Context } from 'xpatch';\ndeclare const context: Context;\n`;
const BEFORE: Record<string, string> = {
  'coming-from 2': CONTEXT,
  'coming-from 3': CONTEXT,
  'coming-from 4': `${CONTEXT}import { steeringVector } from 'xpatch';\ndeclare const texts: string[];\n`,
  'hooks 2': `${CONTEXT}declare const prompts: string[];\ndeclare const prompt: string;\n`,
  'seeing 1': `${CONTEXT}import { logitLens } from 'xpatch';\ndeclare const prompt: string, token: number, layer: number;\n`,
};

/** Writes every block of a document as a module. */
function blocksOf(document: string): string[] {
  const text = readFileSync(join(PACKAGE_ROOT, document), 'utf8');
  const name = basename(document, '.md');
  return [...text.matchAll(/^```(?:ts|js)\n(.*?)^```/gms)].map(([, code = ''], i) => {
    const file = `${name}-${i + 1}.ts`;
    writeFileSync(join(folder, file), `${BEFORE[`${name} ${i + 1}`] ?? ''}${code}export {};\n`);
    return file;
  });
}

mkdirSync(join(folder, 'node_modules', '@types'), { recursive: true });
symlinkSync(PACKAGE_ROOT, join(folder, 'node_modules', 'xpatch'), 'dir');
symlinkSync(packageFolder('@types/node'), join(folder, 'node_modules', '@types', 'node'), 'dir');
writeFileSync(join(folder, 'package.json'), '{ "type": "module" }');
writeFileSync(join(folder, 'consumer.ts'), CONSUMER);
cpSync(join(PACKAGE_ROOT, 'examples'), join(folder, 'examples'), { recursive: true });
const files = [
  'consumer.ts',
  ...readdirSync(join(folder, 'examples'))
    .filter((name) => name.endsWith('.ts'))
    .map((name) => join('examples', name)),
  ...['README.md', ...readdirSync(join(PACKAGE_ROOT, 'docs')).map((name) => join('docs', name))]
    .filter((name) => name.endsWith('.md'))
    .flatMap(blocksOf),
];

const settings = {
  strict: true,
  noUncheckedIndexedAccess: true,
  noEmit: true,
  skipLibCheck: false,
  target: 'es2022',
  types: ['node'],
};

test.each(
  ['typescript-5.4', 'typescript'].flatMap((compiler) => [
    [compiler, 'nodenext', 'nodenext'],
    [compiler, 'esnext', 'bundler'],
  ]),
)('%s, module %s, resolution %s', async (compiler, module, moduleResolution) => {
  const project = join(folder, `${compiler}-${module}.json`);
  const compilerOptions = { ...settings, module, moduleResolution };
  writeFileSync(project, JSON.stringify({ compilerOptions, files }));
  const { bin } = require(`${compiler}/package.json`);
  const tsc = join(packageFolder(compiler), bin.tsc);
  const output = await run(process.execPath, [tsc, '-p', project]).then(
    ({ stdout }) => stdout,
    (e) => e.stdout,
  );
  expect(output).toBe('');
});
