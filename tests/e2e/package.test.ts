// What npm publishes, with this platform's prebuilt addon in it, in an empty project: nothing is compiled, nothing but its
// dependencies is there.
import { execFileSync } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { findFolders, PACKAGE_ROOT } from '../../install/layout.mjs';

const work = mkdtempSync(join(tmpdir(), 'xpatch-package-'));
const project = join(work, 'project');
const installed = join(project, 'node_modules', 'xpatch');
// no compiler, no CMake, no git
const env = { ...process.env, PATH: join(work, 'empty'), XPATCH_LLAMA: '' };

afterAll(() => rmSync(work, { recursive: true, force: true }));

/** The folder that npm packs: what is listed in package.json, and the addon as a release has it. */
function stage(folder: string): void {
  const { files } = JSON.parse(readFileSync(join(PACKAGE_ROOT, 'package.json'), 'utf8')) as { files: string[] };
  const listed = files.map((file) => file.replace(/\/\*.*$/, '')).filter((file) => file !== 'prebuilds');
  for (const file of new Set(['package.json', 'README.md', 'LICENSE', ...listed]))
    cpSync(join(PACKAGE_ROOT, file), join(folder, file), {
      recursive: true,
      filter: (source) => source !== join(PACKAGE_ROOT, 'native', 'bin'),
    });
  const { binary, prebuilt } = findFolders(PACKAGE_ROOT);
  const addon = existsSync(join(binary, 'xpatch.node')) ? binary : prebuilt;
  for (const file of ['xpatch.node', 'build.json'])
    cpSync(join(addon, file), join(findFolders(folder).prebuilt, file), { recursive: true });
}

/** Links the packages that `npm install xpatch` would bring, and none of those for development. */
function linkDependencies(): void {
  const { packages } = JSON.parse(readFileSync(join(PACKAGE_ROOT, 'package-lock.json'), 'utf8')) as {
    packages: Record<string, { dev?: boolean }>;
  };
  for (const [path, { dev }] of Object.entries(packages)) {
    const own = path.startsWith('node_modules/') && path.lastIndexOf('node_modules/') === 0;
    if (!own || dev || !existsSync(join(PACKAGE_ROOT, path))) continue;
    mkdirSync(dirname(join(project, path)), { recursive: true });
    symlinkSync(join(PACKAGE_ROOT, path), join(project, path), 'junction');
  }
}

const node = (args: string[]) => execFileSync(process.execPath, args, { cwd: project, encoding: 'utf8', env });

beforeAll(() => {
  const folder = join(work, 'staged');
  stage(folder);
  const shell = process.platform === 'win32';
  execFileSync('npm', ['pack', '--silent', '--ignore-scripts'], { cwd: folder, shell, stdio: 'pipe' });
  const tarball = readdirSync(folder).find((file) => file.endsWith('.tgz')) as string;
  mkdirSync(installed, { recursive: true });
  execFileSync('tar', ['-xzf', join(folder, tarball), '--strip-components=1', '-C', installed]);
  linkDependencies();
  writeFileSync(join(project, 'package.json'), JSON.stringify({ private: true, type: 'module' }));
});

test('the install step takes the prebuilt addon', () => {
  expect(node([join(installed, 'install', 'install.mjs')])).toMatch(/addon ready \(prebuilt; llama\.cpp/);
  expect(readdirSync(findFolders(installed).cache)).toEqual([]);
});

test('the library loads the demo model and generates', () => {
  writeFileSync(
    join(project, 'try.js'),
    `import { loadModel } from 'xpatch';
import 'xpatch/experiment';
import 'xpatch/report';
import 'xpatch/convert';

const model = await loadModel('demo');
const context = await model.createContext();
const [{ text }] = await context.generate([{ prompt: 'Q:Japan\\nA:Tokyo\\n\\nQ:Peru\\nA:' }], { maxTokens: 4, stop: ['\\n'] });
console.log(text);
await model.dispose();
`,
  );
  expect(node(['try.js']).trim()).toBe('Lima');
});

test('the command checks the installation', () => {
  const said = node([join(installed, 'dist', 'cli', 'main.js'), 'doctor']);
  expect(said).toMatch(/^addon: .* came with the package$/m);
  expect(said).toContain('Everything works.');
});
