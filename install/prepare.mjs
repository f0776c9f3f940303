// npm's prepare step: in a clone it compiles src/ to dist/, so that `npx xpatch` works right after `npm ci`. Nothing is done when
// dist/ is newer than all that it is made of; `npm run build` compiles it whatever there is.
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
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

if (!process.argv.includes('--force') && isFresh()) process.exit(0);
if (existsSync(compiler)) {
  for (const step of steps) {
    const { status } = spawnSync(process.execPath, step, { cwd: PACKAGE_ROOT, stdio: 'inherit' });
    if (status !== 0) process.exit(status ?? 1);
  }
} else {
  console.error(
    'xpatch: dist/ was not compiled, because development packages were left out. Run `npm ci` without --omit=dev.',
  );
}
