import type { TextTable } from './report.js';

type Column = TextTable['columns'][number];

/** Columns of texts. */
export const texts = (...names: string[]): Column[] => names.map((name) => ({ name }));

/** Columns of numbers with so many digits. */
export const numbers = (digits: number, ...names: string[]): Column[] => names.map((name) => ({ name, digits }));
