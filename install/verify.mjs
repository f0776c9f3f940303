// Loads an addon in a child process: a binary that crashes or hangs the loader takes nothing else down.
import { spawnSync } from 'node:child_process';
import { BuildError } from './errors.mjs';

/** Throws BuildError with the loader's own message when the addon at `path` cannot be loaded. */
export function verifyAddon(path) {
  const script = `const addon = require(${JSON.stringify(path)}); if (Object.keys(addon).length === 0) throw new Error('it exports nothing');`;
  // LD_BIND_NOW: node binds symbols lazily, so a missing one would otherwise show itself in the middle of a run
  const result = spawnSync(process.execPath, ['-e', script], {
    encoding: 'utf8',
    env: { ...process.env, LD_BIND_NOW: '1', NODE_OPTIONS: '' },
    timeout: 60_000,
    windowsHide: true,
  });
  if (result.status === 0) return;
  const message = /^\S*Error: .*/m.exec(result.stderr)?.[0] ?? result.stderr.trim().split('\n').at(-1);
  const reason =
    message || (result.signal ? `the process was killed by ${result.signal}` : `exit code ${result.status}`);
  throw new BuildError('load', `${path} does not load: ${reason}`, {
    hint: 'Compile llama.cpp for this machine with `XPATCH_LLAMA=source npx xpatch build`.',
    sourceMayHelp: true,
  });
}
