// What makes a report interactive. Without it the page is whole: text, tables, figures and the ends of its lenses.
import type { EncodedLens } from '../lens-encoding.js';
import { openDetails } from './details.js';
import { find, h } from './dom.js';
import { addLens } from './lens.js';
import { addMap } from './map.js';
import { schemeToggle } from './scheme.js';
import { enliven, type TableCopies } from './tables.js';
import { addTips } from './tips.js';

/** What the page carries for its script, by the name of the block. */
export interface PageData {
  readonly tables: Readonly<Record<string, TableCopies>>;
  readonly lenses: Readonly<Record<string, EncodedLens>>;
  /** Patching maps, packed. */
  readonly maps: Readonly<Record<string, string>>;
}

const OLD_BROWSER =
  'This browser cannot unpack the numbers of the lens: Chrome 80, Firefox 113 and Safari 16.4 are the first that can. The tables show its last positions.';

const data = JSON.parse(find(document, '#page-data').textContent ?? '') as PageData;
const block = (name: string) => document.getElementById(name) as HTMLElement;

find(document, '.page-tools').append(schemeToggle());
for (const [name, copies] of Object.entries(data.tables)) enliven(block(name), copies);
openDetails();
addTips(document.querySelectorAll<SVGSVGElement>('figure.drawn svg'));
const tooOld = typeof DecompressionStream === 'undefined';
for (const [name, lens] of Object.entries(data.lenses)) {
  if (tooOld) find(block(name), '.lens').prepend(h('p', { class: 'hint', role: 'status' }, OLD_BROWSER));
  else void addLens(block(name), lens);
}
if (!tooOld) for (const [name, map] of Object.entries(data.maps)) void addMap(block(name), map);
