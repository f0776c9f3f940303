import type { TextTable } from './report.js';

type Column = TextTable['columns'][number];

/** Columns of texts. */
export const texts = (...names: string[]): Column[] => names.map((name) => ({ name }));

/** Columns that repeat the names of others: programs read them with what they are of. */
export const within = (what: string, columns: readonly Column[]): Column[] =>
  columns.map((column) => ({ ...column, csv: `${what}: ${column.name}` }));

/** Columns of numbers with so many digits. */
export const numbers = (digits: number, ...names: string[]): Column[] => names.map((name) => ({ name, digits }));
