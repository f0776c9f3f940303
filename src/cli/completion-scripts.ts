import { groupBy } from '../util/group.js';

/** A command as a shell shows it. */
export interface Entry {
  /** `['models', 'pull']` */
  readonly path: readonly string[];
  readonly describe: string;
  readonly options: readonly Offer[];
  /** What comes after the command's name. */
  readonly arguments: Offer | undefined;
}

/** An option, or what follows the name of a command. */
export interface Offer {
  /** `['-m', '--model']` */
  readonly names: readonly string[];
  readonly describe: string;
  /** A `flag` takes no value; a `file` may also be one of the words. */
  readonly kind: 'flag' | 'value' | 'file' | 'folder';
  readonly words: readonly string[];
}

export type Shell = 'bash' | 'zsh' | 'fish';

export const SCRIPTS: Readonly<Record<Shell, (entries: readonly Entry[]) => string>> = {
  bash: bashScript,
  zsh: zshScript,
  fish: fishScript,
};

/** Commands under `path`, of which a group has some. */
function under(path: readonly string[], entries: readonly Entry[]): Entry[] {
  return entries.filter(
    (entry) => entry.path.length === path.length + 1 && path.every((name, i) => entry.path[i] === name),
  );
}

const groupsOf = (entries: readonly Entry[]) => entries.filter(({ path }) => under(path, entries).length > 0);
const namesOf = (entries: readonly Entry[]) => entries.map(({ path }) => path.at(-1)).join(' ');

function bashScript(entries: readonly Entry[]): string {
  const groups = groupsOf(entries);
  const cases = entries.map((entry) => {
    const values = bashValues(entry.options);
    const names = entry.options.flatMap(({ names }) => names).join(' ');
    const subcommands = under(entry.path, entries);
    const operand = subcommands.length > 0 ? `words="${namesOf(subcommands)}"` : bashOperand(entry.arguments);
    return `    '${entry.path.join(' ')}')
      case "$previous" in
${values}        *) ${operand}; options="${names}" ;;
      esac ;;
`;
  });
  return `# xpatch completion for bash. Load it with: . FILE
_xpatch() {
  local current="\${COMP_WORDS[COMP_CWORD]}" previous="\${COMP_WORDS[COMP_CWORD-1]}" command="\${COMP_WORDS[1]}"
  local words= options= files= IFS=$' \\t\\n'
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "${namesOf(under([], entries))} help --help --version" -- "$current"))
    return
  fi
  case "$command" in
    ${groups.map(({ path }) => path.join(' ')).join('|')}) [ "$COMP_CWORD" -gt 2 ] && command="$command \${COMP_WORDS[2]}" ;;
    help) COMPREPLY=($(compgen -W "${namesOf(under([], entries))}" -- "$current")); return ;;
  esac
  case "$command" in
${cases.join('')}  esac
  case "$current" in -*) words="$options"; files= ;; esac
  COMPREPLY=($(compgen -W "$words" -- "$current"))
  [ -z "$files" ] && return
  compopt -o filenames 2>/dev/null
  IFS=$'\\n'
  COMPREPLY+=($(compgen "$files" -- "$current"))
}
complete -F _xpatch xpatch
`;
}

const BASH_FILES = { flag: '', value: '', file: '-f', folder: '-d' } as const;

/** Options that take the same values share a line. */
function bashValues(offers: readonly Offer[]): string {
  const taking = offers.filter(({ kind }) => kind !== 'flag');
  const line = ([values, alike]: [string, Offer[]]) =>
    `        ${alike.flatMap(({ names }) => names).join('|')}) ${values} ;;\n`;
  return Array.from(groupBy(taking, bashOperand), line).join('');
}

function bashOperand(offer: Offer | undefined): string {
  return offer === undefined ? 'words=' : `words="${offer.words.join(' ')}" files=${BASH_FILES[offer.kind]}`;
}

/** Where a command name goes. */
const HELPED = '[[ CURRENT -eq 2 || ( CURRENT -eq 3 && $words[2] == help ) ]]';

function zshScript(entries: readonly Entry[]): string {
  const describe = (list: readonly Entry[]) =>
    list.map(({ path, describe }) => `    ${quote(`${path.at(-1)}:${describe}`)}`).join('\n');
  const lists = [[], ...groupsOf(entries).map(({ path }) => path)].map((path) => {
    const condition = path.length === 0 ? HELPED : `[[ CURRENT -eq 3 && $words[2] == ${path.join(' ')} ]]`;
    return `  if ${condition}; then
    commands=(
${describe(under(path, entries))}
    )
    _describe command commands
    return
  fi
`;
  });
  const cases = entries.map(({ path, options, arguments: operand }) => {
    const specs = options.flatMap(zshOption);
    const last = operand ? [quote(`*:${escapeZsh(operand.names[0] as string)}:${zshValue(operand)}`)] : [];
    return `    ${quote(path.join(' '))}) _arguments ${[...specs, ...last].join(' ')} ;;\n`;
  });
  return `#compdef xpatch
# xpatch completion for zsh. Put it into a folder of $fpath as _xpatch, or load it with: source FILE
_xpatch() {
  local -a commands
${lists.join('')}  local command=$words[2]
  integer skip=1
  if [[ $command == (${groupsOf(entries)
    .map(({ path }) => path.join(' '))
    .join('|')}) ]]; then
    command="$command $words[3]"
    skip=2
  fi
  shift $skip words
  (( CURRENT -= skip ))
  case $command in
${cases.join('')}  esac
}
if [[ $funcstack[1] == _xpatch ]]; then _xpatch "$@"; else compdef _xpatch xpatch; fi
`;
}

function zshOption({ names, describe, ...offer }: Offer): string[] {
  const value = offer.kind === 'flag' ? '' : `:value:${zshValue(offer)}`;
  return names.map((name) => quote(`*${name}[${escapeZsh(describe)}]${value}`));
}

/** An action of _arguments. */
function zshValue({ kind, words }: Pick<Offer, 'kind' | 'words'>): string {
  const files = { flag: ' ', value: ' ', file: '_files', folder: '_files -/' }[kind];
  if (words.length === 0) return files;
  return kind === 'file' ? `{ compadd ${words.join(' ')}; _files }` : `(${words.join(' ')})`;
}

function escapeZsh(text: string): string {
  return text.replace(/[[\]:\\]/g, '\\$&');
}

function fishScript(entries: readonly Entry[]): string {
  const lines = entries.flatMap(({ path, describe, options, arguments: operand }) => {
    const own = path.join(' ');
    const parent = path.slice(0, -1).join(' ');
    return [
      `complete -c xpatch -n '__xpatch_at ${parent}' -a ${path.at(-1)} -d ${quote(describe)}`,
      ...options.map((offer) => `complete -c xpatch -n '__xpatch_in ${own}' ${fishOption(offer)}`),
      ...(operand ? [`complete -c xpatch -n '__xpatch_in ${own}' ${fishValue(operand)}`] : []),
    ];
  });
  return `# xpatch completion for fish. Put it into ~/.config/fish/completions/xpatch.fish
function __xpatch_words
    commandline -opc | string match -v -- '-*'
end
# Directly after these words.
function __xpatch_at
    set -l words (__xpatch_words)
    test "$words" = (string join ' ' xpatch $argv)
end
# Anywhere after these words.
function __xpatch_in
    set -l words (__xpatch_words)
    set -l count (math (count $argv) + 1)
    test (count $words) -ge $count; and test "$words[2..$count]" = "$argv"
end
complete -c xpatch -f
complete -c xpatch -n '__xpatch_at help' -a ${quote(namesOf(under([], entries)))}
${lines.join('\n')}
`;
}

function fishOption({ names, describe, ...offer }: Offer): string {
  const flags = names.map((name) => (name.startsWith('--') ? `-l ${name.slice(2)}` : `-s ${name.slice(1)}`));
  return [...flags, ...(offer.kind === 'flag' ? [] : [fishValue(offer)]), `-d ${quote(describe)}`].join(' ');
}

function fishValue({ kind, words }: Pick<Offer, 'kind' | 'words'>): string {
  const list = words.length > 0 ? ` -a ${quote(words.join(' '))}` : '';
  if (kind === 'file') return `-r -F${list}`;
  return kind === 'folder' ? `-x -a '(__fish_complete_directories)'` : `-x${list}`;
}

/** In single quotes, as all three shells accept. */
function quote(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
