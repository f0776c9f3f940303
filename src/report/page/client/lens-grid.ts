import { stepOf } from '../../figures/steps.js';
import { percent, tokenLabel } from '../text.js';
import { beforeFrame, h, tokenNode } from './dom.js';
import type { Cell, LensData, Metric } from './lens-data.js';
import { describeInput, inputNode } from './lens-panel.js';

export interface GridEvents {
  /** The cell that the keyboard or a click went to. */
  onActive(cell: Cell): void;
  /** The cell under the pointer; undefined when it left the grid. */
  onHover(cell: Cell | undefined): void;
  onPin(cell: Cell): void;
  onUnpin(): void;
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
export class LensGrid {
  readonly element: HTMLElement;
  private readonly rows: HTMLElement[] = [];
  private readonly headRow: HTMLElement;
  private readonly slots: Slot[] = [];
  /** What tokens look like, made once and copied. */
  private readonly looks = new Map<number, HTMLElement>();
  private active: Cell = { l: 0, p: 0 };
  private metric: Metric = 'probability';
  private pinned: { token: number; p: number } | undefined;

  constructor(
    private readonly data: LensData,
    private readonly id: string,
    private readonly events: GridEvents,
  ) {
    const { layers } = data.head;
    const width = `${ROW_HEAD + data.nPositions * COLUMN}px`;
    const corner = h('div', { role: 'columnheader', class: 'corner', 'aria-colindex': 1 }, 'layer');
    this.headRow = h('div', { role: 'row', class: 'row heads', 'aria-rowindex': 1 }, corner);
    this.headRow.style.width = width;
    for (let l = 0; l < data.nLayers; l++) {
      const rowIndex = data.nLayers - l + 1;
      const head = h('div', { role: 'rowheader', class: 'row-head', 'aria-colindex': 1 }, String(layers[l]));
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
        'aria-label': `Lens: ${data.nLayers} layers by ${data.nPositions} positions`,
        'aria-rowcount': data.nLayers + 1,
        'aria-colcount': data.nPositions + 1,
        'aria-readonly': 'true',
      },
      this.headRow,
      ...[...this.rows].reverse(),
    );
    // few layers get room, many stay in sight
    const row = Math.max(22, Math.min(30, Math.floor(480 / data.nLayers)));
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

  setMetric(metric: Metric): void {
    this.metric = metric;
    this.repaint();
  }

  setPinned(pinned: { token: number; p: number } | undefined): void {
    this.pinned = pinned;
    this.repaint();
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
      this.events.onPin(cell);
    });
    this.element.addEventListener('keydown', (event) => this.key(event));
  }

  private key(event: KeyboardEvent): void {
    const { l, p } = this.active;
    const [top, end] = [this.data.nLayers - 1, this.data.nPositions - 1];
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
    else if (event.key === 'Enter' || event.key === ' ') this.events.onPin(this.active);
    else if (event.key === 'Escape') this.events.onUnpin();
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

  private repaint(): void {
    for (const slot of this.slots) slot.p = -1;
    this.draw();
  }

  /** Puts the columns in sight into the document. A position's slot is its number modulo that of the slots. */
  private draw(): void {
    const { scrollLeft, clientWidth } = this.element;
    const count = Math.min(this.data.nPositions, Math.ceil(clientWidth / COLUMN) + 2 * MARGIN);
    while (this.slots.length < count) this.addSlot();
    if (this.slots.length > count) {
      for (const { head, cells } of this.slots.splice(count)) for (const element of [head, ...cells]) element.remove();
      for (const slot of this.slots) slot.p = -1;
    }
    const wanted = Math.floor(scrollLeft / COLUMN) - MARGIN;
    const first = Math.max(0, Math.min(this.data.nPositions - count, wanted));
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
    const { data } = this;
    slot.p = p;
    const left = `${ROW_HEAD + p * COLUMN}px`;
    slot.head.style.left = left;
    slot.head.setAttribute('aria-colindex', String(p + 2));
    slot.head.replaceChildren(h('small', {}, String(data.head.positions[p])), inputNode(data, p));
    slot.cells.forEach((cell, l) => {
      const best = data.best(l, p);
      cell.style.left = left;
      cell.dataset.l = String(l);
      cell.dataset.p = String(p);
      cell.id = `${this.id}-${l}-${p}`;
      cell.setAttribute('aria-colindex', String(p + 2));
      const classes = ['cell', `q${stepOf(data.share(this.metric, l, p))}`];
      if (data.head.settled[p] === l) classes.push('settled');
      if (this.pinned?.token === best.token) classes.push('same');
      cell.className = classes.join(' ');
      cell.replaceChildren(this.look(best.token, best.text));
    });
  }

  private look(token: number, text: string): Node {
    let look = this.looks.get(token);
    if (look === undefined) {
      look = tokenNode(text);
      this.looks.set(token, look);
    }
    return look.cloneNode(true);
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
    const best = this.data.best(l, p);
    const where = `Layer ${this.data.head.layers[l]}, position ${this.data.head.positions[p]}, ${describeInput(this.data, p)}`;
    cell.classList.add('active');
    cell.setAttribute('aria-label', `${where}: ${tokenLabel(best.text)}, ${percent(best.probability)}`);
    this.element.setAttribute('aria-activedescendant', cell.id);
  }
}
