/** The right form of a word for a number of things. @param many for words that take no s */
export const plural = (n: number, one: string, many = `${one}s`): string => (n === 1 ? one : many);

/** `1 item`, `2 items`. */
export const counted = (n: number, one: string, many?: string): string => `${n} ${plural(n, one, many)}`;
