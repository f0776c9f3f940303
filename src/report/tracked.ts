import type { RankedToken } from '../model/tracked.js';

/** What a table for the terminal says of a followed token. Ranks count from 1, as in the page. */
export const rankText = ({ probability, rank }: RankedToken): string => `${probability.toFixed(3)} rank ${rank + 1}`;
