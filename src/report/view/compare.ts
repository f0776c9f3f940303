/** A key of two manifests whose values differ; undefined where one has none. */
export interface Difference {
  readonly key: string;
  readonly left?: string;
  readonly right?: string;
}

/** Deeper values are not looked into: no manifest of ours goes half as deep. */
const MAX_DEPTH = 20;

/** What differs between two manifests, with keys such as `model.name` or `devices.0.name`, in the order of `left`. */
export function manifestDifferences(left: object, right: object): Difference[] {
  const [a, b] = [flatten(left), flatten(right)];
  const keys = new Set([...a.keys(), ...b.keys()]);
  return [...keys]
    .map((key) => ({ key, left: a.get(key), right: b.get(key) }))
    .filter((difference) => difference.left !== difference.right);
}

function flatten(value: unknown, prefix = '', out = new Map<string, string>(), depth = 0): Map<string, string> {
  const isBranch = value !== null && typeof value === 'object';
  const entries = isBranch ? Object.entries(value) : [];
  const isList = Array.isArray(value) && !value.some((item) => item !== null && typeof item === 'object');
  if (depth > MAX_DEPTH) out.set(prefix, `nested deeper than ${MAX_DEPTH} levels`);
  else if (isList) out.set(prefix, value.join(', '));
  else if (isBranch && entries.length > 0) {
    for (const [key, item] of entries) flatten(item, prefix === '' ? key : `${prefix}.${key}`, out, depth + 1);
  } else out.set(prefix, isBranch ? '{}' : String(value));
  return out;
}

/** Two tables of the same rows, cell beside cell. */
export interface MergedTable {
  /** Names of the columns that only one of them has. */
  readonly unshared: readonly string[];
  /** Head of the column of row names. */
  readonly corner: string;
  /** `same` in both runs, `number` (with differences) or `text`. */
  readonly columns: readonly { readonly name: string; readonly kind: 'same' | 'number' | 'text' }[];
  readonly rows: readonly {
    readonly label: string;
    readonly cells: readonly { readonly left: string; readonly right: string; readonly difference?: number }[];
  }[];
}

interface Grid {
  /** Whether a column says something about the others, as a mean does, so that all of them must be the same. */
  readonly whole: boolean;
  readonly corner: string;
  readonly columns: readonly string[];
  readonly labels: readonly string[];
  readonly cells: readonly (readonly string[])[];
}

/**
 * Puts the columns that two tables share, as CSV, beside each other. One line a cell (row, column, value, low, high, ...),
 * as our tables with intervals are written, is read as a grid of the values, whose columns must all be the same.
 * @returns undefined when their rows are not the same, or no columns are
 */
export function mergeTables(leftCsv: string, rightCsv: string): MergedTable | undefined {
  const [left, right] = [gridOf(parseCsv(leftCsv)), gridOf(parseCsv(rightCsv))];
  if (!left || !right || left.corner !== right.corner || !sameList(left.labels, right.labels)) return undefined;
  if ((left.whole || right.whole) && !sameList(left.columns, right.columns)) return undefined;
  const shared = [...new Set(left.columns)].filter((name) => right.columns.includes(name));
  if (shared.length === 0) return undefined;
  const unshared = [...left.columns, ...right.columns].filter((name) => !shared.includes(name));
  const rows = left.labels.map((label, row) => ({
    label,
    cells: shared.map((name) => {
      const [a = '', b = ''] = [left, right].map((grid) => grid.cells[row]?.[grid.columns.indexOf(name)]);
      const difference = isNumber(a) && isNumber(b) ? Number(b) - Number(a) : undefined;
      return { left: a, right: b, difference };
    }),
  }));
  const columns = shared.map((name, column) => {
    const cells = rows.flatMap((row) => row.cells[column] ?? []);
    const fits = (value: string) => value === '' || isNumber(value);
    if (cells.every((cell) => cell.left === cell.right)) return { name, kind: 'same' as const };
    const numbers = cells.every((cell) => fits(cell.left) && fits(cell.right));
    return { name, kind: numbers ? ('number' as const) : ('text' as const) };
  });
  return { corner: left.corner, columns, rows, unshared };
}

const sameList = (a: readonly string[], b: readonly string[]) =>
  a.length === b.length && a.every((value, i) => value === b[i]);

export const isNumber = (value: string): boolean => /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(value);

function gridOf([head, ...lines]: readonly string[][]): Grid | undefined {
  if (!head) return undefined;
  if (head.slice(0, 3).join() !== 'row,column,value') {
    const [corner = '', ...columns] = head;
    const cells = lines.map((line) => line.slice(1));
    return { whole: false, corner, columns, labels: lines.map(([label = '']) => label), cells };
  }
  const columns = [...new Set(lines.map((line) => line[1] ?? ''))];
  const rows = new Map<string, string[]>();
  for (const [label = '', column = '', value = ''] of lines) {
    const cells = rows.get(label) ?? columns.map(() => '');
    cells[columns.indexOf(column)] = value;
    rows.set(label, cells);
  }
  return { whole: true, corner: '', columns, labels: [...rows.keys()], cells: [...rows.values()] };
}

/** Lines of fields after RFC 4180; an empty last line is dropped. */
export function parseCsv(text: string): string[][] {
  const lines: string[][] = [];
  let line: string[] = [];
  // A field, quoted or not, and what ends it; the position only moves on, so that this stays linear.
  const field = /(?:"([^"]*(?:""[^"]*)*)"|([^,\r\n]*))[^,\r\n]*(,|\r?\n|\r|$)/gy;
  for (let at = 0; at < text.length; at = field.lastIndex) {
    field.lastIndex = at;
    const [, quoted, plain = '', end] = field.exec(text) ?? [];
    line.push(quoted?.replaceAll('""', '"') ?? plain);
    if (end === ',' && field.lastIndex < text.length) continue;
    if (end === ',') line.push('');
    lines.push(line);
    line = [];
  }
  return lines;
}
