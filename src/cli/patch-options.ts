import type { Argv } from 'yargs';
import { numberOption, textOption, wholeOption } from './options.js';

/** How `run` and `sweep` write a vector into a prompt. Without defaults, so that `run` can tell what was given. */
export interface PatchArguments {
  vectorPosition?: number;
  position?: string;
  op?: 'replace' | 'add';
  strength?: number;
}

export function patchOptions<T>(yargs: Argv<T>): Argv<T & PatchArguments> {
  return yargs
    .option('position', textOption('position', 'Where the vector is written: last, or a position. Defaults to last'))
    .option('op', {
      ...textOption(
        'op',
        'Put the vector in place of the state, or add it. Defaults to replace, for a direction to add',
      ),
      choices: ['replace', 'add'] as const,
    })
    .option('strength', numberOption('strength', 'Factor on the vector. Defaults to 1'))
    .option(
      'vector-position',
      wholeOption('vector-position', 0, 'Of a capture file: which position is the vector. Defaults to its last one'),
    ) as Argv<T & PatchArguments>;
}
