import { STEPS, stepOf } from '../../figures/steps.js';
import { h } from './dom.js';
import type { LensData, Metric } from './lens-data.js';
import type { LensGrid } from './lens-grid.js';
import { onSchemeChange } from './scheme.js';

/** All positions at once above a grid that shows some of them; a click goes there. Extra to what the keyboard can do. */
export class Overview {
  readonly element: HTMLElement;
  private readonly canvas: HTMLCanvasElement;
  private readonly frame = h('div', { class: 'frame' });
  private metric: Metric = 'probability';

  constructor(
    private readonly data: LensData,
    private readonly grid: LensGrid,
  ) {
    this.canvas = h('canvas', { width: Math.min(2000, data.nPositions), height: data.nLayers });
    this.element = h('div', { class: 'overview', 'aria-hidden': 'true' }, this.canvas, this.frame);
    this.element.addEventListener('pointerdown', (event) => {
      this.element.setPointerCapture(event.pointerId);
      this.point(event);
    });
    this.element.addEventListener('pointermove', (event) => {
      if (event.buttons > 0) this.point(event);
    });
    grid.onWindow(() => this.update());
    onSchemeChange(() => this.draw());
  }

  setMetric(metric: Metric): void {
    this.metric = metric;
    this.draw();
  }

  private point(event: PointerEvent): void {
    const { left, width } = this.element.getBoundingClientRect();
    this.grid.centre((event.clientX - left) / width);
  }

  private update(): void {
    const { from, to } = this.grid.window();
    this.element.classList.toggle('needed', from > 0 || to < 1);
    this.frame.style.left = `${100 * from}%`;
    this.frame.style.width = `${100 * (to - from)}%`;
  }

  /** One pixel a layer; where positions share a pixel, the last of them shows. */
  private draw(): void {
    const { canvas, data } = this;
    const context = canvas.getContext('2d');
    if (context === null) return;
    const colours = stepColours();
    const image = context.createImageData(canvas.width, canvas.height);
    for (let x = 0; x < canvas.width; x++) {
      const p = Math.ceil(((x + 1) / canvas.width) * data.nPositions) - 1;
      for (let l = 0; l < data.nLayers; l++) {
        const colour = colours[stepOf(data.share(this.metric, l, p))] as number[];
        image.data.set([...colour, 255], 4 * ((data.nLayers - 1 - l) * canvas.width + x));
      }
    }
    context.putImageData(image, 0, 0);
  }
}

/** The colours of the scale as the style sheet gives them in the present scheme. */
function stepColours(): number[][] {
  const probe = h('span');
  document.body.append(probe);
  const colours = Array.from({ length: STEPS }, (_, i) => {
    probe.className = `q${i}`;
    return (getComputedStyle(probe).backgroundColor.match(/[\d.]+/g) ?? []).slice(0, 3).map(Number);
  });
  probe.remove();
  return colours;
}
