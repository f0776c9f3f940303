// npm's prepare step: in a clone it compiles src/ to dist/, so that `npx xpatch` works right after `npm ci`. Nothing is done when
// dist/ is newer than all that it is made of; `npm run build` compiles it whatever there is.
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, rmSync, statSync } from 'node:fs';
import { join, relative, sep } from 'node:path';
import { PACKAGE_ROOT } from './layout.mjs';

const at = (...path) => join(PACKAGE_ROOT, ...path);
const compiler = at('node_modules', 'typescript', 'bin', 'tsc');
const steps = [
  [compiler, '-p', 'tsconfig.build.json'],
  [at('scripts', 'bundle-client.mjs')],
  [at('scripts', 'checked-interface.mjs')],
];
/** What the last step writes: it is there when all of them went well. */
const last = at('dist', 'checked', 'index.js');

/** A folder changes with the names in it, so that a source that was removed counts too. */
function newest(path) {
  const entry = statSync(path);
  if (!entry.isDirectory()) return entry.mtimeMs;
  return Math.max(entry.mtimeMs, ...readdirSync(path).map((name) => newest(join(path, name))));
}

function isFresh() {
  const built = statSync(last, { throwIfNoEntry: false });
  const sources = [
    'src',
    'scripts',
    'install',
    'tsconfig.json',
    'tsconfig.build.json',
    'package.json',
    'package-lock.json',
  ];
  return built !== undefined && sources.every((name) => newest(at(name)) < built.mtimeMs);
}

/** Files of dist/ whose source is gone: they would be published with the others. */
function removeStale() {
  const dist = at('dist');
  for (const entry of readdirSync(dist, { withFileTypes: true, recursive: true })) {
    const path = join(entry.parentPath ?? entry.path, entry.name);
    const file = relative(dist, path).replaceAll(sep, '/');
    const made = /^(checked\/signatures\.js|report\/page\/client\.(js|css))$/.test(file);
    const module = file.replace(/^checked\//, '').replace(/\.(js|js\.map|d\.ts)$/, '.ts');
    if (entry.isFile() && !made && !existsSync(at('src', module))) rmSync(path, { force: true });
    else if (entry.isDirectory() && !existsSync(at('src', file)) && file !== 'checked')
      rmSync(path, { recursive: true, force: true });
  }
}

if (!process.argv.includes('--force') && isFresh()) process.exit(0);
if (existsSync(compiler)) {
  for (const step of steps) {
    const { status } = spawnSync(process.execPath, step, { cwd: PACKAGE_ROOT, stdio: 'inherit' });
    if (status !== 0) process.exit(status ?? 1);
  }
  removeStale();
} else {
  console.error(
    'xpatch: dist/ was not compiled, because development packages were left out. Run `npm ci` without --omit=dev.',
  );
}
