import { percent, tokenLabel } from '../text.js';
import { button, debounce, fact, h, inputNode, svg, tokenNode } from './dom.js';
import type { Cell } from './grid.js';
import type { LensData, Score } from './lens-data.js';

/** A token followed through the layers at one position. */
export interface Pin {
  readonly token: number;
  readonly text: string;
  readonly p: number;
}

/** What is at a position of the prompt, in words. */
export function describeInput({ head }: LensData, p: number): string {
  const text = head.inputs[p] ?? null;
  return text === null ? 'row of a picture' : `input ${tokenLabel(text)}`;
}

/** Beside the grid: the best tokens of the cell that is pointed at, and the pinned token across the layers. */
export class LensPanel {
  readonly element: HTMLElement;
  private readonly cellPart = h('div', { class: 'cell-part' });
  private readonly pinPart = h('div', { class: 'pin-part' });
  private readonly status = h('p', { role: 'status', class: 'visually-hidden' });

  constructor(
    private readonly data: LensData,
    private readonly onPin: (pin: Pin | undefined) => void,
  ) {
    this.element = h('div', { class: 'panel', role: 'group', 'aria-label': 'The chosen cell' });
    this.element.append(this.cellPart, this.pinPart, this.status);
    this.pin(undefined);
  }

  show({ l, p }: Cell): void {
    const { data } = this;
    const { layers, positions } = data.head;
    const place = h(
      'p',
      { class: 'place' },
      `Layer ${layers[l]} · position ${positions[p]} `,
      inputNode(data.head.inputs[p]),
    );
    const facts = h(
      'dl',
      { class: 'facts' },
      fact('entropy', `${data.entropy(l, p).toFixed(2)} nats`),
      fact('KL', `${data.kl(l, p).toFixed(2)} nats`),
      fact('settles at', `layer ${layers[data.head.settled[p] as number]}`),
    );
    const parts: HTMLElement[] = [place, facts, this.scores(data.top(l, p), p, 'Best tokens')];
    const tracked = data.tracked(l, p).slice(0, data.head.listed);
    if (tracked.length > 0)
      parts.push(h('p', { class: 'label' }, 'Followed tokens'), this.scores(tracked, p, 'Followed tokens'));
    this.cellPart.replaceChildren(...parts);
  }

  /** Tells a screen reader what a cell holds, once the reader rests on it. */
  readonly say = debounce(400, ({ l, p }: Cell) => {
    const top = this.data.top(l, p).map((score) => `${tokenLabel(score.text)} ${percent(score.probability)}`);
    this.status.textContent = `Layer ${this.data.head.layers[l]}: ${top.join(', ')}`;
  });

  pin(pin: Pin | undefined): void {
    if (pin === undefined) {
      this.pinPart.replaceChildren(h('p', { class: 'hint' }, 'Choose a token to follow it across the layers.'));
      return;
    }
    const { layers, positions } = this.data.head;
    const found = layers.map((_, l) => this.data.find(l, pin.p, pin.token));
    // a followed token is known at any rank
    const known = found.filter((score) => score !== undefined && score.rank < this.data.nRanks).length;
    const summary = `${tokenLabel(pin.text)} pinned at position ${positions[pin.p]}; among the best tokens in ${known} of ${layers.length} layers.`;
    this.status.textContent = summary;
    const rows = found.map((score, l) => {
      const rank = score ? String(score.rank + 1) : `not in the top ${this.data.nRanks}`;
      return h(
        'tr',
        {},
        h('th', { scope: 'row' }, String(layers[l])),
        h('td', {}, score ? percent(score.probability) : '–'),
        h('td', { class: score ? '' : 'unknown' }, rank),
      );
    });
    const head = ['layer', 'probability', 'rank'].map((name) => h('th', { scope: 'col' }, name));
    this.pinPart.replaceChildren(
      h(
        'p',
        { class: 'place' },
        tokenNode(pin.text),
        ` across layers, position ${positions[pin.p]} `,
        button('Let go', () => this.onPin(undefined), { class: 'quiet' }),
      ),
      chart(layers, found, `Probability of ${tokenLabel(pin.text)} by layer`),
      h(
        'div',
        { class: 'ranks', tabindex: 0, role: 'group', 'aria-label': 'Probability and rank by layer' },
        h('table', {}, h('thead', {}, h('tr', {}, ...head)), h('tbody', {}, ...rows.reverse())),
      ),
    );
  }

  private scores(scores: readonly Score[], p: number, label: string): HTMLElement {
    const list = h('ol', { class: 'scores', 'aria-label': label });
    for (const { token, text, probability, rank } of scores) {
      const pin = button('', () => this.onPin({ token, text, p }), { class: 'score' });
      const share = h('span', { class: 'share', 'aria-hidden': 'true' });
      share.style.width = `${100 * probability}%`;
      pin.append(
        share,
        h('span', { class: 'rank' }, String(rank + 1)),
        tokenNode(text),
        h('span', { class: 'percent' }, percent(probability)),
      );
      list.append(h('li', {}, pin));
    }
    return list;
  }
}

/** Probability by layer, from 0 to 1; gaps where it is not known. */
function chart(layers: readonly number[], found: readonly (Score | undefined)[], label: string): SVGElement {
  const [width, height, left, bottom] = [280, 110, 34, 18];
  const low = layers[0] as number;
  const span = (layers.at(-1) as number) - low || 1;
  const toX = (layer: number) => left + 6 + ((layer - low) / span) * (width - left - 12);
  const toY = (share: number) => 6 + (1 - share) * (height - bottom - 6);
  const text = (x: number, y: number, anchor: string, words: string) =>
    svg('text', { x, y, 'text-anchor': anchor, class: 'tick' }, words);
  const out = svg('svg', { viewBox: `0 0 ${width} ${height}`, role: 'img', 'aria-label': label, class: 'chart' });
  for (const share of [0, 0.5, 1]) {
    out.append(svg('path', { d: `M${left} ${toY(share)}H${width}`, class: 'rule' }));
    out.append(text(left - 4, toY(share) + 3.5, 'end', `${100 * share} %`));
  }
  out.append(text(toX(low), height - 4, 'middle', String(low)));
  if (layers.length > 1) out.append(text(toX(low + span), height - 4, 'end', `layer ${low + span}`));
  let line = '';
  found.forEach((score, l) => {
    if (score === undefined) return;
    line += `${found[l - 1] === undefined ? 'M' : 'L'}${toX(layers[l] as number)} ${toY(score.probability)}`;
  });
  out.append(svg('path', { d: line, class: 'line' }));
  found.forEach((score, l) => {
    if (score)
      out.append(svg('circle', { cx: toX(layers[l] as number), cy: toY(score.probability), r: 2.5, class: 'dot' }));
  });
  return out;
}
