/** An option, a command, or nothing, in front of what it does. */
const HEAD = /^ +\S.*? {2,}(?=\S)/;

/** Fits help into the width of a terminal, between words. Commands to be copied stay in one piece. */
export function wrapHelp(help: string, width: number): string {
  return help
    .split('\n')
    .flatMap((line) => wrapLine(line, width))
    .join('\n');
}

function wrapLine(line: string, width: number): string[] {
  const head = HEAD.exec(line)?.[0] ?? '';
  if (head === '' && /^\s/.test(line)) return [line];
  // What kind of value it takes stands behind the text, and not in a column of its own.
  const words = line
    .slice(head.length)
    .replace(/ {2,}\[/g, '  [')
    .split(/(?<!\[[^\]]*) /);
  const lines: string[] = [head];
  let room = width - head.length;
  for (const [i, word] of words.entries()) {
    if (i > 0 && word.length + 1 > room) {
      lines.push(' '.repeat(head.length));
      room = width - head.length;
    }
    const last = lines.length - 1;
    const gap = room === width - head.length ? '' : ' ';
    if (gap === '' && word === '') continue;
    lines[last] += `${gap}${word}`;
    room -= gap.length + word.length;
  }
  return lines.map((one) => one.trimEnd());
}
