import { button, find, h } from './dom.js';

/** The formats of a table, ready to be copied; none where the page has no room for them. */
export type TableCopies = Readonly<Record<string, string>>;

/** Makes a table sortable and gives it buttons that copy it, if there are copies. */
export function enliven(block: HTMLElement, copies: TableCopies): void {
  const table = find<HTMLTableElement>(block, 'table');
  makeSortable(table);
  if (Object.keys(copies).length > 0) find(block, '.tools').append(copyTools(copies));
}

function makeSortable(table: HTMLTableElement): void {
  const body = table.tBodies[0] as HTMLTableSectionElement;
  const original = [...body.rows];
  const heads = [...(table.tHead?.rows[0]?.cells ?? [])];
  heads.forEach((head, column) => {
    const sort = button(
      '',
      () => {
        const before = head.getAttribute('aria-sort');
        const numeric = original.some((row) => row.cells[column]?.dataset.value !== undefined);
        // numbers start with the greatest, texts with A; the third time gives the order of the report back
        const cycle = numeric ? ['none', 'descending', 'ascending'] : ['none', 'ascending', 'descending'];
        const order = cycle[(cycle.indexOf(before ?? 'none') + 1) % 3] as string;
        for (const other of heads) other.removeAttribute('aria-sort');
        if (order !== 'none') head.setAttribute('aria-sort', order);
        body.append(...sorted(original, column, order));
      },
      { class: 'sort' },
    );
    sort.append(...head.childNodes);
    head.append(sort);
  });
}

function sorted(rows: readonly HTMLTableRowElement[], column: number, order: string): HTMLTableRowElement[] {
  if (order === 'none') return [...rows];
  const sign = order === 'ascending' ? 1 : -1;
  const keyOf = (row: HTMLTableRowElement) => {
    const cell = row.cells[column];
    if (cell === undefined || cell.dataset.missing !== undefined) return undefined;
    return cell.dataset.value === undefined ? (cell.textContent ?? '') : Number(cell.dataset.value);
  };
  const compare = (a: string | number, b: string | number) =>
    typeof a === 'number' && typeof b === 'number'
      ? a - b
      : String(a).localeCompare(String(b), 'en', { numeric: true });
  return [...rows].sort((a, b) => {
    const [x, y] = [keyOf(a), keyOf(b)];
    // what was not measured stays at the end in both orders
    if (x === undefined || y === undefined) return Number(x === undefined) - Number(y === undefined);
    return sign * compare(x, y);
  });
}

function copyTools(copies: TableCopies): HTMLElement {
  const said = h('span', { role: 'status', class: 'said' });
  const tools = h('div', { class: 'copy', role: 'group', 'aria-label': 'Copy the table' }, h('span', {}, 'Copy as'));
  for (const [format, text] of Object.entries(copies)) {
    const copy = async () => {
      find(tools.parentElement as HTMLElement, '.copy')
        .querySelector('textarea')
        ?.remove();
      try {
        await navigator.clipboard.writeText(text);
        said.textContent = `${format} copied`;
      } catch {
        // no clipboard for this page: the reader copies it by hand
        const area = h('textarea', { readonly: true, rows: 6, 'aria-label': `The table as ${format}` });
        area.value = text;
        tools.append(area);
        area.select();
        said.textContent = 'Press Ctrl+C or ⌘C';
      }
    };
    tools.append(button(format, () => void copy()));
  }
  tools.append(said);
  return tools;
}
