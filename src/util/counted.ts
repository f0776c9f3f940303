/** `1 item`, `2 items`; `plural` for words that take no s. */
export function counted(n: number, one: string, plural = `${one}s`): string {
  return `${n} ${n === 1 ? one : plural}`;
}
