import { beforeFrame, h } from './dom.js';

/** Indices into the layers and columns of a grid. */
export interface Cell {
  readonly l: number;
  readonly p: number;
}

/** What a grid shows. `l` and `p` are indices. */
export interface GridSource {
  /** Of the whole, for a screen reader. */
  readonly label: string;
  /** Ascending. */
  readonly layers: readonly number[];
  readonly nColumns: number;
  head(p: number): readonly Node[];
  /** What stands in a cell, and its classes. */
  cell(cell: Cell): { readonly look: Node; readonly classes: readonly string[] };
  /** What is said of the active cell. */
  describe(cell: Cell): string;
}

export interface GridEvents {
  /** The cell that the keyboard or a click went to. */
  onActive(cell: Cell): void;
  /** The cell under the pointer; undefined when it left the grid. */
  onHover(cell: Cell | undefined): void;
  /** A click, Enter or the space bar. */
  onPin?(cell: Cell): void;
  /** Escape. */
  onUnpin?(): void;
}

/** Pixels. The style sheet gives rows their height. */
const COLUMN = 68;
const ROW_HEAD = 44;
/** Columns drawn outside the window on each side. */
const MARGIN = 3;

/** A column's elements, used again for another position when they leave the window. */
interface Slot {
  p: number;
  readonly head: HTMLElement;
  /** By layer. */
  readonly cells: HTMLElement[];
}

/**
 * The heatmap: highest layer on top, one column a position. Only the columns in sight are in the document, so that a prompt
 * may have any length.
 */
export class CellGrid {
  readonly element: HTMLElement;
  private readonly rows: HTMLElement[] = [];
  private readonly headRow: HTMLElement;
  private readonly slots: Slot[] = [];
  private active: Cell = { l: 0, p: 0 };

  constructor(
    private readonly source: GridSource,
    private readonly id: string,
    private readonly events: GridEvents,
  ) {
    const { layers, nColumns } = source;
    const width = `${ROW_HEAD + nColumns * COLUMN}px`;
    const corner = h('div', { role: 'columnheader', class: 'corner', 'aria-colindex': 1 }, 'layer');
    this.headRow = h('div', { role: 'row', class: 'row heads', 'aria-rowindex': 1 }, corner);
    this.headRow.style.width = width;
    for (const [l, layer] of layers.entries()) {
      const rowIndex = layers.length - l + 1;
      const head = h('div', { role: 'rowheader', class: 'row-head', 'aria-colindex': 1 }, String(layer));
      const row = h('div', { role: 'row', class: 'row', 'aria-rowindex': rowIndex }, head);
      row.style.width = width;
      this.rows.push(row);
    }
    this.element = h(
      'div',
      {
        role: 'grid',
        class: 'grid',
        tabindex: 0,
        'aria-label': source.label,
        'aria-rowcount': layers.length + 1,
        'aria-colcount': nColumns + 1,
        'aria-readonly': 'true',
      },
      this.headRow,
      ...[...this.rows].reverse(),
    );
    // few layers get room, many stay in sight
    const row = Math.max(22, Math.min(30, Math.floor(480 / layers.length)));
    this.element.style.setProperty('--row', `${row}px`);
    this.listen();
  }

  /** Goes to the first cell shown, without the focus. The element must be in the document. */
  start(cell: Cell): void {
    this.active = cell;
    this.draw();
    this.reveal();
    new ResizeObserver(beforeFrame(() => this.draw())).observe(this.element);
  }

  /** Goes to a cell, as the keyboard does. */
  activate(cell: Cell): void {
    this.active = cell;
    this.reveal();
  }

  /** Draws the cells again, as the source says now. */
  repaint(): void {
    for (const slot of this.slots) slot.p = -1;
    this.draw();
  }

  private listen(): void {
    const draw = beforeFrame(() => this.draw());
    this.element.addEventListener('scroll', draw, { passive: true });
    this.element.addEventListener('pointermove', (event) => this.events.onHover(this.cellAt(event.target)));
    this.element.addEventListener('pointerleave', () => this.events.onHover(undefined));
    this.element.addEventListener('click', (event) => {
      const cell = this.cellAt(event.target);
      if (cell === undefined) return;
      this.go(cell);
      this.events.onPin?.(cell);
    });
    this.element.addEventListener('keydown', (event) => this.key(event));
  }

  private key(event: KeyboardEvent): void {
    const { l, p } = this.active;
    const [top, end] = [this.source.layers.length - 1, this.source.nColumns - 1];
    const page = Math.max(1, Math.floor((this.element.clientWidth - ROW_HEAD) / COLUMN) - 1);
    const moves: Record<string, Cell> = {
      ArrowUp: { l: Math.min(top, l + 1), p },
      ArrowDown: { l: Math.max(0, l - 1), p },
      ArrowLeft: { l, p: Math.max(0, p - 1) },
      ArrowRight: { l, p: Math.min(end, p + 1) },
      PageUp: { l, p: Math.max(0, p - page) },
      PageDown: { l, p: Math.min(end, p + page) },
      Home: { l: event.ctrlKey ? top : l, p: 0 },
      End: { l: event.ctrlKey ? 0 : l, p: end },
    };
    const to = moves[event.key];
    if (to) this.go(to);
    else if (event.key === 'Enter' || event.key === ' ') this.events.onPin?.(this.active);
    else if (event.key === 'Escape') this.events.onUnpin?.();
    else return;
    event.preventDefault();
  }

  private go(cell: Cell): void {
    this.active = cell;
    this.reveal();
    this.events.onActive(cell);
  }

  /** Scrolls so that the active cell is in sight, not behind the heads. */
  private reveal(): void {
    const { element } = this;
    const left = this.active.p * COLUMN;
    const right = left + COLUMN + ROW_HEAD;
    if (element.scrollLeft > left) element.scrollLeft = left;
    else if (element.scrollLeft + element.clientWidth < right) element.scrollLeft = right - element.clientWidth;
    const row = this.rows[this.active.l] as HTMLElement;
    const above = row.offsetTop - this.headRow.offsetHeight;
    const below = row.offsetTop + row.offsetHeight;
    if (element.scrollTop > above) element.scrollTop = above;
    else if (element.scrollTop + element.clientHeight < below) element.scrollTop = below - element.clientHeight;
    this.draw();
  }

  private cellAt(target: EventTarget | null): Cell | undefined {
    const cell = target instanceof Element ? target.closest<HTMLElement>('[role=gridcell]') : null;
    return cell ? { l: Number(cell.dataset.l), p: Number(cell.dataset.p) } : undefined;
  }

  /** Puts the columns in sight into the document. A position's slot is its number modulo that of the slots. */
  private draw(): void {
    const { scrollLeft, clientWidth } = this.element;
    const count = Math.min(this.source.nColumns, Math.ceil(clientWidth / COLUMN) + 2 * MARGIN);
    while (this.slots.length < count) this.addSlot();
    if (this.slots.length > count) {
      for (const { head, cells } of this.slots.splice(count)) for (const element of [head, ...cells]) element.remove();
      for (const slot of this.slots) slot.p = -1;
    }
    const wanted = Math.floor(scrollLeft / COLUMN) - MARGIN;
    const first = Math.max(0, Math.min(this.source.nColumns - count, wanted));
    for (let p = first; p < first + count; p++) {
      const slot = this.slots[p % count] as Slot;
      if (slot.p !== p) this.fill(slot, p);
    }
    this.markActive();
  }

  private addSlot(): void {
    const head = h('div', { role: 'columnheader', class: 'column-head' });
    this.headRow.append(head);
    const cells = this.rows.map((row) => {
      const cell = h('div', { role: 'gridcell' });
      row.append(cell);
      return cell;
    });
    for (const slot of this.slots) slot.p = -1; // the slots of the positions change with their number
    this.slots.push({ p: -1, head, cells });
  }

  private fill(slot: Slot, p: number): void {
    slot.p = p;
    const left = `${ROW_HEAD + p * COLUMN}px`;
    slot.head.style.left = left;
    slot.head.setAttribute('aria-colindex', String(p + 2));
    slot.head.replaceChildren(...this.source.head(p));
    slot.cells.forEach((cell, l) => {
      const { look, classes } = this.source.cell({ l, p });
      cell.style.left = left;
      cell.dataset.l = String(l);
      cell.dataset.p = String(p);
      cell.id = `${this.id}-${l}-${p}`;
      cell.setAttribute('aria-colindex', String(p + 2));
      cell.className = ['cell', ...classes].join(' ');
      cell.replaceChildren(look);
    });
  }

  /** Only a cell that is in the document can be named as the active one. */
  private markActive(): void {
    const { l, p } = this.active;
    for (const old of this.element.querySelectorAll('.active')) {
      old.classList.remove('active');
      old.removeAttribute('aria-label');
    }
    const cell = this.slots.find((slot) => slot.p === p)?.cells[l];
    if (cell === undefined) {
      this.element.removeAttribute('aria-activedescendant');
      return;
    }
    cell.classList.add('active');
    cell.setAttribute('aria-label', this.source.describe({ l, p }));
    this.element.setAttribute('aria-activedescendant', cell.id);
  }
}
