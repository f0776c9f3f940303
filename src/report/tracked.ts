import type { RankedToken } from '../model/tracked.js';
import { visibleText } from './visible.js';

/** What a table for the terminal says of a followed token. Ranks count from 1, as in the page. */
export const rankText = ({ probability, rank }: RankedToken): string => `${probability.toFixed(3)} rank ${rank + 1}`;

/** What tokens are called beside each other. Two of them may have one text: then the id tells them apart. */
export function labelsOf(tokens: readonly { token: number; text: string }[]): string[] {
  const texts = tokens.map(({ token, text }) => (text === '' ? `token ${token}` : visibleText(text)));
  return texts.map((text, i) =>
    texts.indexOf(text) === texts.lastIndexOf(text) ? text : `${text} (${tokens[i]?.token})`,
  );
}
