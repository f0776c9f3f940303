export const VIEW_STYLE = `
:root { color-scheme: light dark; --ink: #222; --muted: #5c5c5c; --grid: #ddd; --ground: #fff; --link: #0b57a4; --bad: #a4262c; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e6e6; --muted: #a8a8a8; --grid: #444; --ground: #161616; --link: #7db7f5; --bad: #ff9a93; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--ground); margin: 1.5rem auto; padding: 0 1.5rem; }
a { color: var(--link); } h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; } h3 { font-size: 1rem; }
table { border-collapse: collapse; font-size: .9rem; }
th, td { padding: .35rem .6rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--grid); }
thead th { border-bottom: 2px solid var(--muted); vertical-align: bottom; }
.wide { overflow-x: auto; }
th[aria-sort=ascending] a::after { content: " ▲"; } th[aria-sort=descending] a::after { content: " ▼"; }
tbody th { font-weight: normal; min-width: 14rem; }
small, .note { color: var(--muted); } .problem { color: var(--bad); } .problem, .note { margin: .2rem 0; font-size: .85rem; }
.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; } .choice { text-align: center; }
.text { overflow-wrap: anywhere; min-width: 6rem; max-width: 40rem; }
.difference { font-weight: bold; border-right: 2px solid var(--grid); } .state.broken { color: var(--bad); font-weight: bold; }
.hidden { position: absolute; clip-path: inset(50%); width: 1px; height: 1px; overflow: hidden; }
summary > h2 { display: inline; } summary { cursor: pointer; margin: 1rem 0 .5rem; }
button, select { font: inherit; max-width: 100%; }
dt { color: var(--muted); } dd { margin: 0 0 .5rem; overflow-wrap: anywhere; }
.goto { position: sticky; top: 0; background: var(--ground); margin: 0; padding: .5rem 0; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 1rem; } .pair section { min-width: 0; }
.pair iframe { width: 100%; height: 85vh; border: 1px solid var(--grid); }
@media (max-width: 50rem) { body { padding: 0 .8rem; } .pair { grid-template-columns: 1fr; } .pair iframe { height: 70vh; } }
`;

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
