/**
 * A text that may be anybody's, as one line that shows what it says: characters that steer a terminal, or rearrange what is
 * around them, are written out. Joiners stay, as scripts and emoji are made with them.
 */
export function printable(text: string): string {
  return text.replace(
    /(?![\u200c\u200d])[\p{C}\p{Zl}\p{Zp}]/gu,
    (character) => `\\u{${character.codePointAt(0)?.toString(16)}}`,
  );
}

/** A text that may be anybody's, with its line breaks and tabs; see `printable`. */
export function printableText(text: string): string {
  return text.replace(/[^\n\t]+/g, printable);
}
