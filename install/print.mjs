// What a build says on a terminal.

import { openSync, writeSync } from 'node:fs';

const QUIET_MS = 2000;

/**
 * Where a person sees progress. npm keeps what the scripts of dependencies print to itself, so that minutes would pass in silence:
 * the terminal itself is written to then, a line at a time beside npm's own, unless npm is told to be silent.
 */
export function terminalOf(stream, { env = process.env, path = '/dev/tty' } = {}) {
  if (stream.isTTY || env.CI || env.npm_command === undefined || env.npm_config_loglevel === 'silent') return stream;
  try {
    const terminal = openSync(path, 'w');
    return { isTTY: false, write: (text) => writeSync(terminal, `\r\x1b[K${text}`) };
  } catch {
    return stream; // no terminal: a service, Windows
  }
}

/** Shows nothing for two seconds, then one line that is rewritten (terminal) or a line every ten percent (log). */
export function progressPrinter(stream) {
  const started = Date.now();
  let shown = -1;
  const update = ({ step, percent }) => {
    if (Date.now() - started < QUIET_MS) return;
    const line = `xpatch: ${step} ${percent} % (${Math.round((Date.now() - started) / 1000)} s)`;
    if (stream.isTTY) {
      stream.write(`\r\x1b[K${line}`);
      shown = percent;
    } else if (shown === -1 || percent - shown >= 10 || (percent === 100 && shown !== 100)) {
      stream.write(`${line}\n`);
      shown = percent;
    }
  };
  const done = () => {
    if (stream.isTTY && shown !== -1) stream.write('\r\x1b[K');
  };
  return { update, done };
}

export function describeResult({ mode, path, info }) {
  const how =
    mode === 'prebuilt' ? 'prebuilt' : info.upToDate ? `${mode}, up to date` : `${mode}, built in ${info.seconds} s`;
  return `xpatch: addon ready (${how}; llama.cpp ${info.llamaTag}; ${info.compiler}): ${path}`;
}

export function describeFailure(error) {
  const lines = [`xpatch: the addon was not built. ${error.message}`];
  if (error.hint) lines.push(`  ${error.hint}`);
  if (error.name !== 'BuildError') lines.push(error.stack);
  return lines.join('\n');
}
