import { button } from './dom.js';

/** A button for light and dark. The choice lives as long as the page: storage may be closed to files. */
export function schemeToggle(): HTMLElement {
  const system = window.matchMedia('(prefers-color-scheme: dark)');
  const root = document.documentElement;
  const isDark = () => (root.dataset.scheme ?? (system.matches ? 'dark' : 'light')) === 'dark';
  const changed = () => {
    toggle.textContent = isDark() ? 'Light' : 'Dark';
  };
  const toggle = button(
    '',
    () => {
      root.dataset.scheme = isDark() ? 'light' : 'dark';
      changed();
    },
    { class: 'scheme' },
  );
  system.addEventListener('change', changed);
  changed();
  return toggle;
}
