/**
 * A text that may be anybody's, as one line that shows what it says: characters that steer a terminal, or rearrange what stands
 * around them, are written out.
 */
export function printable(text: string): string {
  return text.replace(/[\p{C}\p{Zl}\p{Zp}]/gu, (character) => `\\u{${character.codePointAt(0)?.toString(16)}}`);
}
