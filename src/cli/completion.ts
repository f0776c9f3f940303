import { basename } from 'node:path';
import { PRESETS } from '../experiment/presets.js';
import { catalogueNames } from '../hub/catalogue.js';
import { listTasks } from '../tasks/task.js';
import { type Command, defineCommand, nameOf } from './command.js';
import { type Entry, type Offer, SCRIPTS, type Shell } from './completion-scripts.js';
import { usageError } from './errors.js';
import { type Completion, choice, dashed, type Option } from './option.js';

const SHELLS = Object.keys(SCRIPTS) as Shell[];

/** `xpatch completion`: what a shell needs to complete commands, options, models and tasks. */
export function completionOf(commands: () => Promise<readonly Command[]>): Command {
  return defineCommand({
    command: 'completion [shell]',
    describe: 'Print a script that completes commands and options in your shell',
    positionals: { shell: choice(SHELLS, 'bash, zsh or fish. Defaults to $SHELL') },
    options: {},
    examples: [
      ['bash: this line; in ~/.bashrc to keep it', 'completion bash > ~/.xpatch-completion; . ~/.xpatch-completion'],
      ['zsh: into a folder in $fpath', 'completion zsh > ~/.zfunc/_xpatch'],
      ['fish', 'completion fish > ~/.config/fish/completions/xpatch.fish'],
    ],
    run: async (args, terminal) => {
      const own = basename(terminal.io.env.SHELL ?? '');
      const shell = args.shell ?? SHELLS.find((name) => name === own);
      if (shell === undefined) throw usageError('Name the shell: bash, zsh or fish.');
      const words = {
        file: [],
        folder: [],
        model: catalogueNames(),
        task: await listTasks(),
        preset: Object.keys(PRESETS),
      };
      terminal.print(SCRIPTS[shell]([...entriesOf(await commands(), [], words)]));
    },
  });
}

type Words = Readonly<Record<Completion, readonly string[]>>;

/** The commands, those of a group after it. */
function* entriesOf(commands: readonly Command[], above: readonly string[], words: Words): Generator<Entry> {
  for (const { command, describe, options, positionals, subcommands = [] } of commands) {
    const path = [...above, nameOf({ command })];
    yield {
      path,
      describe,
      options: [
        ...Object.entries(options).flatMap(([name, option]) => offersOf(name, option, words)),
        { names: ['-h', '--help'], describe: 'Show help', kind: 'flag', words: [] },
      ],
      arguments: Object.entries(positionals).flatMap(([name, option]) => offersOf(name, option, words))[0],
    };
    yield* entriesOf(subcommands, path, words);
  }
}

/** An option, and `--no-NAME` for a switch that is on. */
function offersOf(name: string, option: Option, words: Words): Offer[] {
  const { letter, describe, type, completes, choices, hidden } = option;
  if (hidden) return [];
  const offer: Offer = {
    names: [...(letter === undefined ? [] : [`-${letter}`]), `--${dashed(name)}`],
    describe,
    kind: type === 'boolean' ? 'flag' : completes === 'folder' ? 'folder' : completes ? 'file' : 'value',
    words: choices ?? (completes ? words[completes] : []),
  };
  return type === 'boolean' && option.default === true ? [{ ...offer, names: [`--no-${dashed(name)}`] }] : [offer];
}
