/** A folded section opens when an address names it, and all of them on paper. */
export function openDetails(): void {
  const openNamed = () => {
    const named = document.getElementById(location.hash.slice(1));
    for (const fold of named?.querySelectorAll(':scope > details') ?? []) fold.setAttribute('open', '');
    named?.scrollIntoView();
  };
  window.addEventListener('hashchange', openNamed);
  if (location.hash !== '') openNamed();
  const printed: Element[] = [];
  window.addEventListener('beforeprint', () => {
    for (const fold of document.querySelectorAll('details:not([open])')) {
      fold.setAttribute('open', '');
      printed.push(fold);
    }
  });
  window.addEventListener('afterprint', () => {
    for (const fold of printed.splice(0)) fold.removeAttribute('open');
  });
}
