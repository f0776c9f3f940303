// npm's prepare step: in a clone it compiles src/ to dist/, so that `npx xpatch` works right after `npm ci`.
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { PACKAGE_ROOT } from './layout.mjs';

const compiler = join(PACKAGE_ROOT, 'node_modules', 'typescript', 'bin', 'tsc');
if (existsSync(compiler)) {
  const result = spawnSync(process.execPath, [compiler, '-p', 'tsconfig.build.json'], {
    cwd: PACKAGE_ROOT,
    stdio: 'inherit',
  });
  process.exitCode = result.status ?? 1;
} else {
  console.error(
    'xpatch: dist/ was not compiled, because development packages were left out. Run `npm ci` without --omit=dev.',
  );
}
