import { stepOf } from '../../figures/steps.js';
import { percent, tokenLabel } from '../text.js';
import { find, h, nearest } from './dom.js';
import type { Cell } from './grid.js';
import type { LensData, Metric } from './lens-data.js';

export interface PatchEvents {
  onActive(cell: Cell): void;
  onHover(cell: Cell | undefined): void;
  onPin(cell: Cell): void;
}

/** A patch of the picture and its place in the lens. */
interface Patch {
  readonly p: number;
  readonly group: SVGGElement;
  readonly word: SVGTextElement;
  readonly ground: SVGRectElement;
}

/** The decoded words over a picture, one layer at a time. */
export class PatchView {
  private readonly patches: Patch[];
  private readonly slider: HTMLInputElement;
  private readonly output = h('output');
  private metric: Metric = 'probability';
  private current = 0;

  constructor(
    private readonly element: HTMLElement,
    private readonly data: LensData,
    id: string,
    private readonly events: PatchEvents,
  ) {
    const columns = new Map(data.head.positions.map((position, p) => [position, p]));
    this.patches = [...element.querySelectorAll<SVGGElement>('[data-position]')].flatMap((group) => {
      const p = columns.get(Number(group.dataset.position));
      if (p === undefined) return [];
      return {
        p,
        group,
        word: find<SVGTextElement>(group, 'text'),
        ground: find<SVGRectElement>(group, '.word-ground'),
      };
    });
    const top = data.nLayers - 1;
    this.slider = h('input', { type: 'range', id, min: 0, max: top, step: 1, value: top });
    this.slider.value = String(top);
    this.slider.addEventListener('input', () => this.draw());
    element.prepend(h('div', { class: 'slider' }, h('label', { for: id }, 'Layer'), this.slider, this.output));
    this.listen();
    this.draw();
  }

  setMetric(metric: Metric): void {
    this.metric = metric;
    this.draw();
  }

  private get layer(): number {
    return Number(this.slider.value);
  }

  private listen(): void {
    const figure = find<SVGSVGElement>(this.element, 'svg');
    // an image has no parts for a screen reader; a group has
    figure.setAttribute('role', 'group');
    this.patches.forEach(({ group }, i) => {
      group.setAttribute('role', 'button');
      group.setAttribute('tabindex', i === 0 ? '0' : '-1');
      group.addEventListener('pointerenter', () => this.events.onHover(this.cell(i)));
      group.addEventListener('focus', () => {
        this.current = i;
        this.events.onActive(this.cell(i));
      });
      group.addEventListener('click', () => {
        this.focus(i);
        this.events.onPin(this.cell(i));
      });
    });
    figure.addEventListener('pointerleave', () => this.events.onHover(undefined));
    figure.addEventListener('keydown', (event) => this.key(event));
  }

  private key(event: KeyboardEvent): void {
    const last = this.patches.length - 1;
    if (event.key === 'Enter' || event.key === ' ') this.events.onPin(this.cell(this.current));
    else if (event.key === 'Home') this.focus(0);
    else if (event.key === 'End') this.focus(last);
    else if (event.key.startsWith('Arrow')) {
      const rectangles = this.patches.map(({ group }) => group.getBoundingClientRect());
      this.focus(nearest(rectangles, this.current, event.key) ?? this.current);
    } else return;
    event.preventDefault();
  }

  private focus(i: number): void {
    this.patches[this.current]?.group.setAttribute('tabindex', '-1');
    this.patches[i]?.group.setAttribute('tabindex', '0');
    this.patches[i]?.group.focus();
  }

  private cell(i: number): Cell {
    return { l: this.layer, p: (this.patches[i] as Patch).p };
  }

  private draw(): void {
    const { data, layer } = this;
    const name = String(data.head.layers[layer]);
    this.output.textContent = name;
    this.slider.setAttribute('aria-valuetext', `layer ${name}`);
    for (const { p, group, word, ground } of this.patches) {
      const best = data.best(layer, p);
      const label = tokenLabel(best.text);
      const step = `q${stepOf(data.share(this.metric, layer, p))}`;
      word.textContent = label;
      word.setAttribute('class', `word ${step}`);
      ground.setAttribute('class', `word-ground ${step}`);
      group.setAttribute('aria-label', `Position ${data.head.positions[p]}: ${label}, ${percent(best.probability)}`);
    }
  }
}
