import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, test } from '@jest/globals';
import { xpatch } from '../command.js';

const run = promisify(execFile);

/** Prints a line `TYPED => WORD WORD …` for every line typed, as the shell itself completes it. */
const ASK: Record<string, string> = {
  bash: `. "$1"; shift
for line; do
  COMP_WORDS=($line); [[ $line == *' ' ]] && COMP_WORDS+=('')
  COMP_CWORD=$((\${#COMP_WORDS[@]} - 1)) COMPREPLY=()
  _xpatch
  echo "$line => \${COMPREPLY[*]}"
done`,
  zsh: `zmodload zsh/zpty
zpty z zsh -i
zpty -w z "PROMPT=; autoload -Uz compinit; compinit -u -D; source $1; bindkey '^I' list-choices; stty columns 1000 -echo; echo READ''Y"
zpty -r z out '*READY*'
for line in "\${@:2}"; do
  zpty -n -w z "$line"$'\\t'
  sleep 1
  reply=
  while zpty -rt z out; do reply+=$out; done
  print -r -- "$line => \${\${reply##*$'\\n'}//[^[:print:]]/ } \${\${(f)reply}//[^[:print:]]/ }"
  zpty -n -w z $'\\x15'
  sleep 0.2
  zpty -rt z out
done
zpty -d z`,
  fish: `source $argv[1]
for line in $argv[2..-1]
  echo "$line => "(complete -C $line | string replace -r '\\t.*' '' | string join ' ')
end`,
};

const shells = Object.keys(ASK).filter((shell) =>
  (process.env.PATH ?? '').split(delimiter).some((folder) => existsSync(join(folder, shell))),
);

const EXPECTED: readonly (readonly [typed: string, words: readonly string[], not: string])[] = [
  ['xpatch mo', ['models'], 'run'],
  ['xpatch models p', ['pull'], 'list'],
  ['xpatch run --vec', ['--vector', '--vector-position'], '--layers'],
  ['xpatch run -m smollm', ['smollm2-135m', 'smollm2-360m', 'smollm2-1.7b'], 'llava'],
  ['xpatch eval --no', ['--no-resume'], '--json'],
  ['xpatch eval lay', ['layer-sweep'], 'main'],
  ['xpatch sweep --op re', ['replace'], 'add'],
  ['xpatch extract --tasks country-cu', ['country-currency'], 'capital'],
  ['xpatch help ev', ['eval', 'evolution'], 'run'],
];

test('the script of the shell in $SHELL is printed, and another shell has to be named', async () => {
  const fish = await xpatch(['completion', 'fish']);
  expect(await xpatch(['completion'], { env: { SHELL: '/usr/local/bin/fish' } })).toEqual(fish);
  expect(fish).toMatchObject({ code: 0, stderr: '' });
  expect(await xpatch(['completion'], { env: { SHELL: '/bin/csh' } })).toMatchObject({ code: 2 });
  expect(await xpatch(['completion', 'bahs'])).toMatchObject({ code: 2, stderr: expect.stringMatching(/mean bash\?/) });
  // an old name of an option is taken, and not offered
  expect(fish.stdout).not.toMatch(/every-step|-l patch\b/);
});

describe.each(shells)('%s', (shell) => {
  test('completes commands, options, and what options take', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'xpatch-completion-'));
    const [script, ask] = [join(folder, 'xpatch'), join(folder, 'ask')];
    await writeFile(script, (await xpatch(['completion', shell])).stdout);
    await writeFile(ask, ASK[shell] as string);
    const env = { ...process.env, HOME: folder, ZDOTDIR: process.env.ZDOTDIR ?? folder, XDG_CONFIG_HOME: folder };
    const { stdout } = await run(shell, [ask, script, ...EXPECTED.map(([typed]) => typed)], { env, timeout: 60_000 });
    for (const [typed, words, not] of EXPECTED) {
      const start = stdout.indexOf(`${typed} => `);
      const reply = stdout.slice(start + typed.length, stdout.indexOf('\nxpatch', start + 1) >>> 0);
      for (const word of words) expect(reply).toContain(word);
      expect(reply).not.toMatch(new RegExp(`(^|\\s)${not}(\\s|$)`));
    }
    await rm(folder, { recursive: true });
  }, 90_000);
});
