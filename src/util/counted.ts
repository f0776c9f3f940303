/** The right form of a word for a number of things. @param many for words that take no s */
export const plural = (n: number, one: string, many = `${one}s`): string => (n === 1 ? one : many);

/** `1 item`, `2 items`. */
export const counted = (n: number, one: string, many?: string): string => `${n} ${plural(n, one, many)}`;

/** `12.3 GB`, and below a tenth of one `12.3 MB`. */
export const gigabytes = (bytes: number): string =>
  bytes < 1e8 ? `${(bytes / 1e6).toFixed(1)} MB` : `${(bytes / 1e9).toFixed(1)} GB`;
