/**
 * An untrusted text as one line that shows what it says: characters that control a terminal, or rearrange what is
 * around them, are escaped. Joiners stay, as scripts and emoji need them.
 */
export function printable(text: string): string {
  return text.replace(
    /(?![\u200c\u200d])[\p{C}\p{Zl}\p{Zp}]/gu,
    (character) => `\\u{${character.codePointAt(0)?.toString(16)}}`,
  );
}

/** An untrusted text, with its line breaks and tabs; see `printable`. */
export function printableText(text: string): string {
  return text.replace(/[^\n\t]+/g, printable);
}
