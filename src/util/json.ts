/** None of our files is nested this deeply; code that walks through one recurses as deeply. */
export const MAX_DEPTH = 100;

/**
 * The value of a JSON text in UTF-8. Objects with the same key twice, of which `JSON.parse` would silently keep the last one, and
 * deeper nesting than any of ours are refused.
 *
 * @throws {Error} saying what is wrong, as `is not JSON in UTF-8 (…)`
 */
export function parseJson(bytes: Uint8Array): unknown {
  let [text, value]: [string, unknown] = ['', undefined];
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
    value = JSON.parse(text);
  } catch (cause) {
    throw new Error(`is not JSON in UTF-8 (${(cause as Error).message})`, { cause });
  }
  if (!isShallow(value)) throw new Error(`is nested more than ${MAX_DEPTH} deep`);
  const duplicate = duplicateKey(text);
  if (duplicate !== undefined) throw new Error(`has the key ${duplicate} twice`);
  return value;
}

/** Whether a value is an object, and no list. */
export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Whether a walk through a value comes to an end: it is not nested too deeply, and does not contain itself. */
export function isShallow(value: unknown, depth = 0): boolean {
  if (typeof value !== 'object' || value === null) return true;
  return depth < MAX_DEPTH && Object.values(value).every((part) => isShallow(part, depth + 1));
}

/** The first key that an object of this (valid) JSON text has twice; `JSON.parse` would silently keep the last one. */
function duplicateKey(json: string): string | undefined {
  const open: Set<string>[] = [];
  for (let i = 0; i < json.length; i++) {
    const c = json[i];
    if (c === '{') open.push(new Set());
    else if (c === '}') open.pop();
    if (c !== '"') continue;
    const start = i++;
    while (json[i] !== '"') i += json[i] === '\\' ? 2 : 1;
    let next = i + 1;
    while (json[next] === ' ' || json[next] === '\n' || json[next] === '\t' || json[next] === '\r') next++;
    if (json[next] !== ':') continue;
    const key = JSON.parse(json.slice(start, i + 1)) as string;
    const keys = open.at(-1);
    if (keys?.has(key)) return JSON.stringify(key);
    keys?.add(key);
  }
  return undefined;
}
