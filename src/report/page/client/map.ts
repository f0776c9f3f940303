import { stepOf } from '../../figures/steps.js';
import type { BestToken, PatchMapView } from '../../report.js';
import { percent, tokenLabel } from '../text.js';
import { debounce, fact, find, h, inputNode, ramp, tokenNode } from './dom.js';
import { type Cell, CellGrid, type GridSource } from './grid.js';
import { unpack } from './lens-data.js';

/** Puts a grid with a panel, which says what the chosen cell is, in the place of a patching map's table. */
export async function addMap(block: HTMLElement, packed: string): Promise<void> {
  const map = await unpack<PatchMapView>(packed);
  let active = furthest(map);
  const panel = new MapPanel(map);
  const grid = new CellGrid(mapSource(map), `${block.id}-grid`, {
    onActive: (cell) => {
      active = cell;
      panel.show(cell);
      panel.say(cell);
    },
    onHover: (cell) => panel.show(cell ?? active),
  });
  const [low, high] = rangeOf(map);
  const legend = h('div', { class: 'legend' }, ...ramp(low.toFixed(2), high.toFixed(2)));
  const keys = 'Choose a cell to see what it is. Arrow keys move, Home and End go to the first and the last column.';
  const controls = h('div', { class: 'controls' }, h('span', {}, map.metric), legend);
  const main = h('div', { class: 'lens-main' }, controls, grid.element, h('p', { class: 'keys' }, keys));
  const table = find(block, '.wide');
  table.before(h('div', { class: 'lens-live' }, main, panel.element));
  table.classList.add('print-only');
  grid.start(active);
  panel.show(active);
}

/** The cell that changes the corrupt prompt most. */
function furthest({ values, corrupt }: PatchMapView): Cell {
  const change = ({ l, p }: Cell) => Math.abs((values[l]?.[p] as number) - corrupt);
  const cells = values.flatMap((row, l) => row.map((_, p) => ({ l, p })));
  return cells.reduce((best, cell) => (change(cell) > change(best) ? cell : best));
}

function rangeOf({ values, corrupt }: PatchMapView): [low: number, high: number] {
  const extreme = (of: (a: number, b: number) => number) => values.flat().reduce((a, b) => of(a, b), corrupt);
  return [extreme(Math.min), extreme(Math.max)];
}

const inputLabel = (text: string | null): string => (text === null ? 'row of a picture' : tokenLabel(text));

function mapSource(map: PatchMapView): GridSource {
  const [low, high] = rangeOf(map);
  return {
    label: `${map.metric}: ${map.layers.length} layers by ${map.columns.length} ${map.unit}s`,
    layers: map.layers,
    nColumns: map.columns.length,
    head(p) {
      const { number, inputs } = map.columns[p] as PatchMapView['columns'][number];
      return inputs
        ? [h('small', {}, String(number)), inputNode(inputs[0])]
        : [h('small', {}, map.unit), h('span', {}, String(number))];
    },
    cell({ l, p }) {
      const value = map.values[l]?.[p] as number;
      const look = h('span', { class: 'value' }, shown(value));
      return { look, classes: [`q${stepOf(high > low ? (value - low) / (high - low) : 0)}`] };
    },
    describe: (cell) => describe(map, cell),
  };
}

/** As many digits as a cell has room for. */
const shown = (value: number): string =>
  value !== 0 && Math.abs(value) < 0.001 ? value.toExponential(0) : value.toFixed(Math.abs(value) < 100 ? 3 : 0);

function describe({ layers, columns, unit, values, clean, corrupt }: PatchMapView, { l, p }: Cell): string {
  const { number, inputs } = columns[p] as PatchMapView['columns'][number];
  const input = inputs ? `, ${inputLabel(inputs[0])}` : '';
  const numbers = `patched ${values[l]?.[p]?.toFixed(3)}, clean ${clean.toFixed(3)}, corrupt ${corrupt.toFixed(3)}`;
  return `Layer ${layers[l]}, ${unit} ${number}${input}: ${numbers}`;
}

/** Beside the grid: what one patch does. */
class MapPanel {
  readonly element: HTMLElement;
  private readonly cellPart = h('div', { class: 'cell-part' });
  private readonly status = h('p', { role: 'status', class: 'visually-hidden' });

  constructor(private readonly map: PatchMapView) {
    this.element = h('div', { class: 'panel', role: 'group', 'aria-label': 'The chosen cell' });
    this.element.append(this.cellPart, this.status);
  }

  show({ l, p }: Cell): void {
    const { layers, columns, unit, values, clean, corrupt, top } = this.map;
    const { number, inputs } = columns[p] as PatchMapView['columns'][number];
    const value = values[l]?.[p] as number;
    const facts = [
      fact('patched', value.toFixed(4)),
      fact('clean', clean.toFixed(4)),
      fact('corrupt', corrupt.toFixed(4)),
      ...(clean === corrupt
        ? []
        : [fact('way to clean', `${((100 * (value - corrupt)) / (clean - corrupt)).toFixed(1)} %`)]),
    ];
    const tokens = inputs ? [inputNode(inputs[0])] : [];
    const was =
      inputs && inputs[1] !== inputs[0]
        ? [h('p', { class: 'place' }, 'in the clean prompt ', inputNode(inputs[1]))]
        : [];
    this.cellPart.replaceChildren(
      h('p', { class: 'place' }, `Layer ${layers[l]} · ${unit} ${number} `, ...tokens),
      ...was,
      h('dl', { class: 'facts' }, ...facts),
      ...bestTokens('Best tokens with this patch', top?.patched[l]?.[p]),
      ...bestTokens('Clean prompt', top?.clean),
      ...bestTokens('Corrupt prompt', top?.corrupt),
    );
  }

  /** Tells a screen reader what a cell holds, once the reader rests on it. */
  readonly say = debounce(400, (cell: Cell) => {
    const best = this.map.top?.patched[cell.l]?.[cell.p] ?? [];
    const tokens = best.map(([text, probability]) => `${tokenLabel(text)} ${percent(probability)}`);
    this.status.textContent = [describe(this.map, cell), ...tokens].join(', ');
  });
}

function bestTokens(label: string, best: readonly BestToken[] = []): HTMLElement[] {
  if (best.length === 0) return [];
  const items = best.map(([text, probability], i) => {
    const share = h('span', { class: 'share', 'aria-hidden': 'true' });
    share.style.width = `${100 * probability}%`;
    const rank = h('span', { class: 'rank' }, String(i + 1));
    const said = h('span', { class: 'percent' }, percent(probability));
    return h('li', {}, h('div', { class: 'score' }, share, rank, tokenNode(text), said));
  });
  return [h('p', { class: 'label' }, label), h('ol', { class: 'scores', 'aria-label': label }, ...items)];
}
