/**
 * The proxy of a server, by the variables that curl reads: HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY, in capitals or not.
 * Undefined for none.
 *
 * @throws Error for a proxy that is not an http: or https: URL
 */
export function proxyFor(target: URL): URL | undefined {
  const { env } = process;
  const read = (name: string) => env[name.toLowerCase()] || env[name];
  const proxy = read(target.protocol === 'https:' ? 'HTTPS_PROXY' : 'HTTP_PROXY') || read('ALL_PROXY');
  if (!proxy) return undefined;
  const host = target.hostname.replace(/^\[|\]$/g, '').toLowerCase();
  const direct = (read('NO_PROXY') ?? '').split(/[\s,]+/).some((pattern) => {
    const [, name = '', port] = /^\*?\.?(.*?)(?::(\d+))?$/.exec(pattern.toLowerCase()) ?? [];
    if (pattern === '*') return true;
    const named = name !== '' && (host === name || host.endsWith(`.${name}`));
    return named && (port === undefined || port === portOf(target));
  });
  if (direct) return undefined;
  const url = new URL(proxy.includes('://') ? proxy : `http://${proxy}`);
  if (url.protocol === 'http:' || url.protocol === 'https:') return url;
  throw new Error(`The proxy ${url.protocol}//${url.host} cannot be used: its URL must be http: or https:.`);
}

function portOf({ port, protocol }: URL): string {
  return port || (protocol === 'https:' ? '443' : '80');
}
