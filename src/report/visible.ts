/** Characters that reorder what is around them. */
export const REORDERING = /[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;

const MARKS: Record<string, string> = { '\n': '⏎', '\r': '␍', '\t': '⇥' };

/**
 * The text of a token with everything that cannot be seen made visible: spaces at its ends, line breaks, control and
 * format characters (which could also rearrange what is around them, as right-to-left overrides do). A token without
 * text shows as `∅`.
 */
export function visibleText(text: string): string {
  if (text === '') return '∅';
  return text
    .replace(/^ +| +$/g, (blanks) => '␣'.repeat(blanks.length))
    .replace(
      /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Co}\p{Cs}]/gu,
      (character) => MARKS[character] ?? `\\u{${(character.codePointAt(0) as number).toString(16)}}`,
    );
}
