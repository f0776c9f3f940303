import { button, h, nearest } from './dom.js';

/** How near the pointer must come to a mark, in pixels. */
const REACH = 24;
/** Marks whose middles are nearer than this speak together, up to a number. */
const OVERLAP = 4;
const MOST_TOGETHER = 6;

const tip = h('div', { id: 'page-tip', 'aria-hidden': 'true' });
let shown: Element | undefined;
let hiding = 0;

/**
 * Gives the marks of every figure (`[data-tip]`) their words on hover, touch and focus. A figure is one tab stop; the left
 * and right arrows go through its marks in order, up and down to the nearest one there, Escape closes the tip.
 */
export function addTips(figures: Iterable<SVGSVGElement>): void {
  document.body.append(tip);
  tip.addEventListener('pointerenter', () => window.clearTimeout(hiding));
  tip.addEventListener('pointerleave', hideSoon);
  document.addEventListener('keydown', (event) => {
    if (event.key === 'Escape') hide();
  });
  for (const figure of figures) enliven(figure);
}

function enliven(figure: SVGSVGElement): void {
  // outerHTML is HTML: a hard space in it is an entity that XML does not know
  const source = new XMLSerializer().serializeToString(figure);
  // the title would come up as a tip of its own wherever the pointer rests
  const title = figure.querySelector(':scope > title');
  const label = figure.getAttribute('aria-label') ?? title?.textContent ?? 'Figure';
  title?.remove();
  figure.setAttribute('aria-label', label);
  // the same figure twice on a page is one file
  if (!figure.closest('.phone')) addDownload(figure, source);
  const marks = [...figure.querySelectorAll<SVGElement>('[data-tip]')];
  if (marks.length === 0) return;
  // an image has no parts for a screen reader; a group has
  figure.setAttribute('role', 'group');
  figure.setAttribute('aria-label', `${label}. ${marks.length} marks; arrow keys go through them.`);
  marks.forEach((mark, i) => {
    mark.setAttribute('role', 'img');
    mark.setAttribute('aria-label', mark.dataset.tip ?? '');
    mark.setAttribute('tabindex', i === 0 ? '0' : '-1');
    mark.addEventListener('focus', () => show(mark));
    mark.addEventListener('blur', hide);
  });
  figure.addEventListener('keydown', (event) => {
    const from = marks.indexOf(event.target as SVGElement);
    const to = from < 0 ? undefined : destination(marks, from, event.key);
    if (to === undefined) return;
    event.preventDefault();
    marks[from]?.setAttribute('tabindex', '-1');
    marks[to]?.setAttribute('tabindex', '0');
    marks[to]?.focus();
  });
  const point = (event: PointerEvent) => {
    const direct = (event.target as Element).closest<SVGElement>('[data-tip]');
    const mark = direct ?? nearestMark(marks, event.clientX, event.clientY);
    if (mark) show(mark, alike(marks, mark));
    else hideSoon();
  };
  figure.addEventListener('pointermove', point);
  figure.addEventListener('pointerdown', point);
  figure.addEventListener('pointerleave', hideSoon);
}

function destination(marks: readonly SVGElement[], from: number, key: string): number | undefined {
  const last = marks.length - 1;
  const steps = { ArrowRight: Math.min(last, from + 1), ArrowLeft: Math.max(0, from - 1), Home: 0, End: last };
  if (key in steps) return steps[key as keyof typeof steps];
  if (key !== 'ArrowUp' && key !== 'ArrowDown') return undefined;
  return (
    nearest(
      marks.map((mark) => mark.getBoundingClientRect()),
      from,
      key,
    ) ?? from
  );
}

function nearestMark(marks: readonly SVGElement[], x: number, y: number): SVGElement | undefined {
  let best: SVGElement | undefined;
  let least = REACH;
  for (const mark of marks) {
    const box = mark.getBoundingClientRect();
    if (box.width > 4 * REACH || box.height > 4 * REACH) continue; // a slice or a line has no middle to be near to
    const distance = Math.hypot(box.x + box.width / 2 - x, box.y + box.height / 2 - y);
    if (distance < least) [best, least] = [mark, distance];
  }
  return best;
}

/** The marks that lie under or over a mark, where the pointer cannot reach them one by one. */
function alike(marks: readonly SVGElement[], mark: SVGElement): SVGElement[] {
  const { x, y, width, height } = mark.getBoundingClientRect();
  if (width > REACH || height > REACH) return [mark];
  const near = marks.filter((other) => {
    const box = other.getBoundingClientRect();
    return Math.hypot(box.x + box.width / 2 - x - width / 2, box.y + box.height / 2 - y - height / 2) < OVERLAP;
  });
  return near.slice(0, MOST_TOGETHER);
}

function show(mark: SVGElement, together: readonly SVGElement[] = [mark]): void {
  window.clearTimeout(hiding);
  if (shown === mark) return;
  hide();
  shown = mark;
  mark.classList.add('pointed');
  tip.textContent = together.map(({ dataset }) => dataset.tip).join('\n');
  tip.classList.add('open');
  const at = mark.getBoundingClientRect();
  const { width, height } = tip.getBoundingClientRect();
  const left = Math.min(window.innerWidth - width - 8, Math.max(8, at.x + at.width / 2 - width / 2));
  const above = at.y - height - 8;
  tip.style.left = `${left}px`;
  tip.style.top = `${above > 8 ? above : Math.min(at.bottom, window.innerHeight - height - 16) + 8}px`;
}

function hide(): void {
  shown?.classList.remove('pointed');
  shown = undefined;
  tip.classList.remove('open');
}

function hideSoon(): void {
  window.clearTimeout(hiding);
  hiding = window.setTimeout(hide, 150);
}

function addDownload(figure: SVGSVGElement, source: string): void {
  const tools = figure.closest('section')?.querySelector('.tools');
  const name = figure.closest('section')?.id ?? 'figure';
  tools?.append(
    button('Save SVG', () => {
      const url = URL.createObjectURL(new Blob([source], { type: 'image/svg+xml' }));
      h('a', { href: url, download: `${name}.svg` }).click();
      window.setTimeout(() => URL.revokeObjectURL(url), 10_000);
    }),
  );
}
