import { type Command, type Example, nameOf } from './command.js';
import { dashed, type Option, type Options } from './option.js';
import type { HelpPart } from './terminal.js';

/** Heads longer than this get their own line. */
const MAX_HEAD = 26;
const INDENT = '  ';

/** What `xpatch` and `xpatch --help` print. @param width of the terminal */
export function helpOfAll(commands: readonly Command[], examples: readonly Example[], width: number): HelpPart[] {
  const about = 'Reads and overwrites hidden states of GGUF language and vision-language models.';
  return [
    { text: `xpatch <command>\n\n${wrap(about, width)}\n` },
    {
      heading: 'Commands',
      text: list(
        commands.map(({ command, describe }) => [`xpatch ${command}`, describe]),
        width,
      ),
    },
    { heading: 'Options', text: list(COMMON, width) },
    examplesPart(examples),
  ];
}

/** What a command prints with --help. @param path its name, after those of its parent commands */
export function helpOf(
  { command, subcommands, ...about }: Command,
  path: readonly string[],
  width: number,
): HelpPart[] {
  const { describe, positionals, options, examples, more } = about;
  const parent = ['xpatch', ...path.slice(0, -1)].join(' ');
  const commands = subcommands?.map(
    (sub) => [`${parent} ${nameOf({ command })} ${sub.command}`, sub.describe] as const,
  );
  return [
    { text: `${parent} ${command}\n\n${wrap(describe, width)}\n` },
    ...(commands ? [{ heading: 'Commands', text: list(commands, width) }] : []),
    ...(Object.keys(positionals).length > 0
      ? [
          {
            heading: 'Arguments',
            text: list(
              Object.entries(positionals).map(([name, one]) => [name, one.describe]),
              width,
            ),
          },
        ]
      : []),
    ...groupsOf(options).map(([heading, lines]) => ({ heading, text: list(lines, width) })),
    ...(more === undefined ? [] : [{ text: `${wrap(more, width)}\n` }]),
    examplesPart(examples),
  ];
}

type Line = readonly [head: string, text: string];

const COMMON: readonly Line[] = [
  ['-h, --help', 'Show help'],
  ['    --version', 'Show the version'],
  ['    --verbose', 'Print the stack of an error'],
];

/** The options by heading, those without one last. */
function groupsOf(options: Options): [heading: string, lines: Line[]][] {
  const groups = new Map<string, Line[]>();
  for (const [name, option] of Object.entries(options)) {
    if (option.hidden) continue;
    const { group = 'Options' } = option;
    groups.set(group, [...(groups.get(group) ?? []), [headOf(name, option), textOf(option)]]);
  }
  const others = [...(groups.get('Options') ?? []), ...COMMON.slice(0, 1)];
  groups.delete('Options');
  return [...groups, ['Options', others]];
}

function headOf(name: string, { letter, type, default: fallback, ...option }: Option): string {
  const value = option.value ?? { string: 'TEXT', number: 'N', boolean: '' }[type];
  const no = type === 'boolean' && fallback === true ? '[no-]' : '';
  return `${letter === undefined ? '   ' : `-${letter},`} --${no}${dashed(name)} ${value}`.trimEnd();
}

function textOf({ describe, required, default: fallback, type }: Option): string {
  if (required) return `${describe} [required]`;
  if (fallback === undefined || fallback === '' || type === 'boolean') return describe;
  return `${describe} [default: ${fallback}]`;
}

function list(lines: readonly Line[], width: number): string {
  const column = Math.min(MAX_HEAD, Math.max(...lines.map(([head]) => head.length)));
  const left = INDENT.length + column + 2;
  return lines
    .map(([head, text]) => {
      const body = wrap(text, width - left).replaceAll('\n', `\n${' '.repeat(left)}`);
      const own = head.length > column ? `\n${' '.repeat(left)}` : ' '.repeat(column - head.length + 2);
      return `${INDENT}${head}${own}${body}\n`;
    })
    .join('');
}

/** Commands to copy stay in one piece. */
function examplesPart(examples: readonly Example[]): HelpPart {
  const lines = examples.map(([what, command]) => `${INDENT}# ${what}\n${INDENT}xpatch ${command}\n`);
  return { heading: 'Examples', text: lines.join('') };
}

/** Between words, and never within `[default: …]`. */
function wrap(text: string, width: number): string {
  const lines: string[] = [];
  for (const word of text.split(/(?<!\[[^\]]*) /)) {
    const last = lines.at(-1);
    if (last === undefined || last.length + 1 + word.length > width) lines.push(word);
    else lines[lines.length - 1] = `${last} ${word}`;
  }
  return lines.join('\n');
}
