import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { XpatchError } from '../../util/errors.js';
import { PACKAGE_ROOT } from '../../util/package-root.js';

/** What the pages of the server need beyond the style of the reports. */
const OWN = `
body { max-width: none; }
.wide tbody th { min-width: 13rem; }
.wide th, .wide td { padding: .32rem 1rem .32rem 0; vertical-align: top; }
.wide thead th { vertical-align: bottom; }
.list table, .files { margin-top: 1rem; }
.list th { min-width: 0; } .list td { white-space: nowrap; }
.list thead a { color: inherit; text-decoration: none; }
.list thead a:hover { text-decoration: underline; }
th[aria-sort=ascending] a::after { content: " ↑"; }
th[aria-sort=descending] a::after { content: " ↓"; }
td.choice { text-align: center; }
form > p { margin-top: .75rem; }
nav a { margin-right: 1rem; }
button.compare, select { font: inherit; color: var(--ink); background: var(--raised); border: 1px solid var(--muted); border-radius: 4px; padding: .15rem .7rem; max-width: 100%; }
button.compare:hover { background: var(--ink); color: var(--ground); }
.quiet-text, small { color: var(--muted); }
.list tbody th { white-space: normal; max-width: 34rem; }
.list .headline { font-size: .87rem; font-weight: 600; }
.quiet-text, .problem { font-size: .87rem; }
.problem, .broken { color: var(--bad); }
.value { min-width: 6rem; max-width: 36rem; }
.value, .wide tbody th { overflow-wrap: anywhere; }
.merged + .quiet-text { margin-top: .5rem; }
td.difference { font-weight: 650; }
.merged th, .merged td { padding-left: .7rem; }
.merged thead tr:first-child > :first-child, .merged tbody th { padding-left: 0; }
.merged .group { border-left: 1px solid var(--grid); }
summary { cursor: pointer; margin-top: 2rem; }
summary h2 { display: inline; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.25rem; margin-top: 1rem; }
dt { color: var(--muted); }
.files { padding-left: 1.1rem; }
main > h2 { margin-top: 2rem; }
.goto { position: sticky; top: 0; z-index: 1; background: var(--ground); padding: .6rem 0; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 1.25rem; }
.pair section { min-width: 0; margin-top: .5rem; }
.pair iframe { width: 100%; height: 85vh; margin-top: .5rem; border: 1px solid var(--grid); }
@media (max-width: 50rem) {
  .pair { grid-template-columns: 1fr; }
  .pair iframe { height: 70vh; }
  .wide tbody th { min-width: 5.5rem; }
  .list tbody th { min-width: 9rem; }
  .differences .value { min-width: 0; }
}
`;

/**
 * The style sheet of the reports, which the build puts into dist, with what the pages of the server add.
 * @throws {XpatchError} FILE_NOT_FOUND before the build
 */
export async function viewStyle(): Promise<string> {
  const path = join(PACKAGE_ROOT, 'dist', 'report', 'page', 'client.css');
  try {
    return `${await readFile(path, 'utf8')}${OWN}`;
  } catch (cause) {
    throw new XpatchError('FILE_NOT_FOUND', `${path} is missing. In a clone, run \`npm run build\`.`, { cause });
  }
}

/**
 * Scrolls both reports to a block. Their pages are of another origin (they are served in a sandbox), so all that works is
 * to name the element in their addresses.
 */
export const COMPARE_SCRIPT = `
const select = document.getElementById('block');
select?.addEventListener('change', () => {
  for (const frame of document.querySelectorAll('iframe')) {
    frame.contentWindow.location.replace(frame.src + '#' + select.value);
  }
});
`;
