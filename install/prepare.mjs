// npm's prepare step: in a clone it compiles src/ to dist/, as `npm run build` does, so that `npx xpatch` works right after
// `npm ci`.
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { PACKAGE_ROOT } from './layout.mjs';

const compiler = join(PACKAGE_ROOT, 'node_modules', 'typescript', 'bin', 'tsc');
const script = (name) => [join(PACKAGE_ROOT, 'scripts', name)];
if (existsSync(compiler)) {
  const steps = [[compiler, '-p', 'tsconfig.build.json'], script('checked-interface.mjs'), script('bundle-client.mjs')];
  for (const step of steps) {
    const { status } = spawnSync(process.execPath, step, { cwd: PACKAGE_ROOT, stdio: 'inherit' });
    if (status !== 0) process.exit(status ?? 1);
  }
} else {
  console.error(
    'xpatch: dist/ was not compiled, because development packages were left out. Run `npm ci` without --omit=dev.',
  );
}
