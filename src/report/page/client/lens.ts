import { stepOf } from '../../figures/steps.js';
import type { EncodedLens } from '../lens-encoding.js';
import { percent, tokenLabel } from '../text.js';
import { find, h, inputNode, ramp, tokenNode } from './dom.js';
import { type Cell, CellGrid, type GridSource } from './grid.js';
import { LensData, METRICS, type Metric } from './lens-data.js';
import { describeInput, LensPanel, type Pin } from './lens-panel.js';
import { PatchView } from './lens-picture.js';

const NAMES: Record<Metric, string> = {
  probability: 'Probability',
  entropy: 'Entropy',
  kl: 'KL to the top layer',
};

/** The parts of a lens, kept on one cell, one metric and one pinned token. */
export async function addLens(block: HTMLElement, encoded: EncodedLens): Promise<void> {
  const data = await LensData.decode(encoded);
  const root = find(block, '.lens');
  const prefix = block.id;
  let metric: Metric = 'probability';
  let pin: Pin | undefined;
  let active: Cell = { l: data.nLayers - 1, p: data.nPositions - 1 };

  const panel = new LensPanel(data, (token) => setPin(token));
  const source = lensSource(data, () => ({ metric, pin }));
  const grid = new CellGrid(source, `${prefix}-grid`, {
    onActive: (cell) => activate(cell, true),
    onHover: (cell) => panel.show(cell ?? active),
    onPin: pinBest,
    onUnpin: () => setPin(undefined),
  });
  const pictures = [...root.querySelectorAll<HTMLElement>('.patches')].map(
    (element, i) =>
      new PatchView(element, data, `${prefix}-picture-${i}`, {
        onActive: (cell) => {
          activate(cell, true);
          grid.activate(cell);
        },
        onHover: (cell) => panel.show(cell ?? active),
        onPin: pinBest,
      }),
  );

  function activate(cell: Cell, say: boolean): void {
    active = cell;
    panel.show(cell);
    if (say) panel.say(cell);
  }
  function pinBest({ l, p }: Cell): void {
    const { token, text } = data.best(l, p);
    setPin({ token, text, p });
  }
  function setPin(next: Pin | undefined): void {
    pin = next;
    panel.pin(pin);
    grid.repaint();
  }
  const legend = h('div', { class: 'legend' });
  function setMetric(next: Metric): void {
    metric = next;
    grid.repaint();
    for (const picture of pictures) picture.setMetric(metric);
    legend.replaceChildren(...legendOf(metric, data));
  }

  const controls = h('div', { class: 'controls' }, metricSwitch(prefix, metric, setMetric), legend);
  const main = h('div', { class: 'lens-main' }, controls, grid.element, keysHelp());
  main.append(...root.querySelectorAll('.lens-picture'));
  find(root, '.lens-static').classList.add('print-only');
  root.prepend(h('div', { class: 'lens-live' }, main, panel.element));
  setMetric(metric);
  grid.start(active);
  activate(active, false);
}

/** A lens as a grid: the best token of each state, coloured by a metric. */
function lensSource(data: LensData, now: () => { metric: Metric; pin: Pin | undefined }): GridSource {
  /** What tokens look like, made once and copied. */
  const looks = new Map<number, HTMLElement>();
  const { layers, positions, settled } = data.head;
  return {
    label: `Lens: ${data.nLayers} layers by ${data.nPositions} positions`,
    layers,
    nColumns: data.nPositions,
    head: (p) => [h('small', {}, String(positions[p])), inputNode(data.head.inputs[p])],
    cell({ l, p }) {
      const { metric, pin } = now();
      const { token, text } = data.best(l, p);
      if (!looks.has(token)) looks.set(token, tokenNode(text));
      const classes = [`q${stepOf(data.share(metric, l, p))}`];
      if (settled[p] === l) classes.push('settled');
      if (pin?.token === token) classes.push('same');
      return { look: (looks.get(token) as HTMLElement).cloneNode(true), classes };
    },
    describe({ l, p }) {
      const { text, probability } = data.best(l, p);
      const where = `Layer ${layers[l]}, position ${positions[p]}, ${describeInput(data, p)}`;
      return `${where}: ${tokenLabel(text)}, ${percent(probability)}`;
    },
  };
}

function metricSwitch(prefix: string, chosen: Metric, onChange: (metric: Metric) => void): HTMLElement {
  const set = h('fieldset', { class: 'switch' }, h('legend', {}, 'Colour'));
  for (const metric of METRICS) {
    const input = h('input', { type: 'radio', name: `${prefix}-metric`, value: metric, checked: metric === chosen });
    input.addEventListener('change', () => onChange(metric));
    set.append(h('label', {}, input, h('span', {}, NAMES[metric])));
  }
  return set;
}

function legendOf(metric: Metric, data: LensData): HTMLElement[] {
  const most = metric === 'probability' ? '100 %' : `${data.maximum(metric).toFixed(2)} nats`;
  return [
    ...ramp('0', most),
    h('span', { class: 'settled-sample', 'aria-hidden': 'true' }),
    h('span', {}, 'settled: the top layer’s token from here up'),
  ];
}

function keysHelp(): HTMLElement {
  const keys =
    'Arrow keys move, Home and End go to the first and last position, Enter pins the best token, Escape lets go.';
  return h('p', { class: 'keys' }, keys);
}
