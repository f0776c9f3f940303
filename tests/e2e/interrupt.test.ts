// The end of a command that takes no notice of Ctrl-C.
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { expect, test } from '@jest/globals';
import { PACKAGE_ROOT } from '../../install/layout.mjs';
import { finish } from './cli-helpers.js';

const io = pathToFileURL(join(PACKAGE_ROOT, 'dist', 'cli', 'io.js')).href;
/** Asks for the signal, as every command does, and goes on for ever whatever it says; a child of its own would be ended on `exit`. */
const deaf = `
  import { processIo } from ${JSON.stringify(io)};
  const { signal } = processIo();
  process.on('exit', () => console.log('ended its children'));
  signal.addEventListener('abort', () => console.log('heard', signal.reason.exitCode));
  setInterval(() => undefined, 100);
  console.log('ready');`;

function start() {
  const child = spawn(process.execPath, ['--input-type=module', '-e', deaf], { stdio: ['ignore', 'pipe', 'pipe'] });
  const ready = new Promise<void>((resolve) => child.stdout.once('data', () => resolve()));
  return { child, ready, outcome: finish(child) };
}

test.each([
  ['SIGINT', 130],
  ['SIGTERM', 143],
] as const)('%s: after 8 seconds, by the signal itself', async (name, code) => {
  const { child, ready, outcome } = start();
  await ready;
  const begun = Date.now();
  child.kill(name);
  const { stdout } = await outcome;
  expect(Date.now() - begun).toBeGreaterThan(7900);
  expect(child.signalCode).toBe(name);
  expect(stdout).toBe(`ready\nheard ${code}\nended its children\n`);
});

test('a second one ends it at once', async () => {
  const { child, ready, outcome } = start();
  await ready;
  const begun = Date.now();
  child.stdout.once('data', () => child.kill('SIGINT'));
  child.kill('SIGINT');
  const { stdout } = await outcome;
  expect(Date.now() - begun).toBeLessThan(7000);
  expect(child.signalCode).toBe('SIGINT');
  expect(stdout).toContain('ended its children');
});
