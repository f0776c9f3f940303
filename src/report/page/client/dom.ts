import { STEPS } from '../../figures/steps.js';
import { tokenLabel, tokenPieces } from '../text.js';

type Child = Node | string;
type Attributes = Readonly<Record<string, string | number | boolean | undefined>>;

/** An element with attributes (`true` is an empty one, false and undefined are none) and children. */
export function h<K extends keyof HTMLElementTagNameMap>(
  name: K,
  attributes: Attributes = {},
  ...children: readonly Child[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(name);
  setAttributes(element, attributes);
  element.append(...children);
  return element;
}

/** The same for SVG. */
export function svg(name: string, attributes: Attributes = {}, ...children: readonly Child[]): SVGElement {
  const element = document.createElementNS('http://www.w3.org/2000/svg', name);
  setAttributes(element, attributes);
  element.append(...children);
  return element;
}

function setAttributes(element: Element, attributes: Attributes): void {
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== false) element.setAttribute(key, value === true ? '' : String(value));
  }
}

/** A button that does one thing. */
export function button(label: string, onClick: () => void, attributes: Attributes = {}): HTMLButtonElement {
  const element = h('button', { type: 'button', ...attributes }, label);
  element.addEventListener('click', onClick);
  return element;
}

/** A token with signs for what cannot be seen; its whole text is the title when it is long. */
export function tokenNode(text: string): HTMLElement {
  const pieces = tokenPieces(text).map((piece) => (piece.sign ? h('i', {}, piece.text) : piece.text));
  const label = tokenLabel(text);
  return h('bdi', { class: 'token', title: label.length > 12 && label }, ...pieces);
}

/** What is at a position of a prompt; null and undefined for a row of a picture. */
export function inputNode(text: string | null | undefined): HTMLElement {
  return typeof text === 'string' ? tokenNode(text) : h('span', { class: 'image-row' }, '▦');
}

/** The colour scale between two numbers. */
export function ramp(low: string, high: string): HTMLElement[] {
  const steps = Array.from({ length: STEPS }, (_, i) => h('span', { class: `step q${i}` }));
  return [h('span', {}, low), h('span', { class: 'ramp', 'aria-hidden': 'true' }, ...steps), h('span', {}, high)];
}

/** An entry of a list of facts. */
export const fact = (name: string, text: string): HTMLElement => h('div', {}, h('dt', {}, name), h('dd', {}, text));

/** The element that must be there. */
export function find<T extends Element = HTMLElement>(parent: ParentNode, selector: string): T {
  const element = parent.querySelector<T>(selector);
  if (element === null) throw new Error(`The page has no ${selector}.`);
  return element;
}

/** Runs `action` after the last call of the returned function by `delay` milliseconds. */
export function debounce<A extends unknown[]>(delay: number, action: (...args: A) => void): (...args: A) => void {
  let timer = 0;
  return (...args) => {
    window.clearTimeout(timer);
    timer = window.setTimeout(() => action(...args), delay);
  };
}

/** Runs `action` once before the next frame, however often it is called until then. */
export function beforeFrame(action: () => void): () => void {
  let waiting = false;
  return () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      action();
    });
  };
}

/** Of `rectangles`, the nearest that lies from number `from` in the direction of an arrow key. */
export function nearest(rectangles: readonly DOMRect[], from: number, key: string): number | undefined {
  const centre = ({ x, y, width, height }: DOMRect) => [x + width / 2, y + height / 2] as const;
  const [x0, y0] = centre(rectangles[from] as DOMRect);
  let best: number | undefined;
  let least = Number.POSITIVE_INFINITY;
  rectangles.forEach((rectangle, i) => {
    const [x, y] = centre(rectangle);
    const [dx, dy] = [x - x0, y - y0];
    const along = { ArrowLeft: -dx, ArrowRight: dx, ArrowUp: -dy, ArrowDown: dy }[key] ?? 0;
    const aside = key === 'ArrowLeft' || key === 'ArrowRight' ? Math.abs(dy) : Math.abs(dx);
    if (along < 0.5) return;
    // what lies straight ahead comes before what is nearer but aside
    const distance = along + 3 * aside;
    if (distance < least) [best, least] = [i, distance];
  });
  return best;
}
