// The examples in the API reference: every value of the root has one, all of them have right types, and they run on the demo model.
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { afterAll, expect, test } from '@jest/globals';
import { PACKAGE_ROOT } from '../../install/layout.mjs';

/** Not run: they fetch a model, need one with a chat template, or a lens that takes minutes to fit. */
const NOT_RUN = ['downloadModel', 'ChatSession', 'ChatTemplate', 'TunedLens'];
/** Run first: they write the files that others read. */
const FIRST = ['extractTaskVector', 'HiddenStates'];

const declarations = readFileSync(join(PACKAGE_ROOT, 'dist', 'index.d.ts'), 'utf8');
const values = [...declarations.matchAll(/export \{([^}]*)\} from '(.*)\.js'/g)].flatMap(([, names = '', file = '']) =>
  names
    .split(',')
    .map((name) => name.trim())
    .filter((name) => name !== '' && !name.startsWith('type '))
    .map((name) => ({ name, file: join(PACKAGE_ROOT, 'dist', `${file}.d.ts`) })),
);

function exampleOf({ name, file }: (typeof values)[number]): string {
  const text = readFileSync(file, 'utf8');
  const declared = new RegExp(`^export declare (?:class|function|const) ${name}\\b`, 'm').exec(text);
  const comment = text.slice(0, declared?.index).split('/**').at(-1) ?? '';
  const [, code = ''] = /@example\s*\n \* ```ts\n(.*?) \* ```/s.exec(comment) ?? [];
  return code.replace(/^ \* ?/gm, '');
}

// Inside the package, so that `xpatch` is found as a user's program finds it.
mkdirSync(join(PACKAGE_ROOT, 'build'), { recursive: true });
const folder = mkdtempSync(join(PACKAGE_ROOT, 'build', 'api-examples-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const order = (name: string) => (FIRST.includes(name) ? 0 : 1);
const sorted = [...values].sort((a, b) => order(a.name) - order(b.name));
const file = join(folder, 'examples.mts');
writeFileSync(
  file,
  `import { ${values.map(({ name }) => name).join(', ')} } from 'xpatch';
const model = await loadModel('demo');
const context = await model.createContext();
const examples = {
${sorted.map((value) => `async ${value.name}() {\n${exampleOf(value)}},\n`).join('')}};
for (const name of ${JSON.stringify(sorted.map(({ name }) => name).filter((name) => !NOT_RUN.includes(name)))} as const) {
  await examples[name]().catch((error) => { throw new Error(name, { cause: error }); });
  console.log('ran', name);
}
await model.dispose();
`,
);
symlinkSync(join(PACKAGE_ROOT, 'data'), join(folder, 'data'), 'dir');

test.each(values.map((value) => [value.name, value] as const))('%s has one', (_, value) => {
  expect(exampleOf(value)).not.toBe('');
});

test('they have right types', () => {
  const require = createRequire(join(PACKAGE_ROOT, 'package.json'));
  const manifest = require.resolve('typescript/package.json');
  const tsc = join(dirname(manifest), require(manifest).bin.tsc);
  const options = ['--strict', '--noEmit', '--target', 'es2023', '--lib', 'es2023,esnext.disposable'];
  const args = [tsc, ...options, '--module', 'nodenext', '--types', 'node', '--ignoreConfig', file];
  const run = () => execFileSync(process.execPath, args, { cwd: PACKAGE_ROOT, encoding: 'utf8', stdio: 'pipe' });
  let output = '';
  try {
    output = run();
  } catch (error) {
    output = (error as { stdout: string }).stdout;
  }
  expect(output).toBe('');
});

test('they run', () => {
  const options = { cwd: folder, encoding: 'utf8' } as const;
  const stdout = execFileSync(process.execPath, ['--import', 'tsx', file], options);
  const ran = [...stdout.matchAll(/^ran (.*)$/gm)].map(([, name]) => name);
  expect(ran.sort()).toEqual(
    values
      .map(({ name }) => name)
      .filter((name) => !NOT_RUN.includes(name))
      .sort(),
  );
}, 120_000);
