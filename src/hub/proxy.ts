import { request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { type Socket, connect as tcpConnect } from 'node:net';
import { connect as tlsConnect } from 'node:tls';

/** A server as the agent of Node's fetch wants to reach it. */
interface Target {
  /** An IPv6 address is in brackets. */
  readonly hostname: string;
  /** Empty for that of the protocol. */
  readonly port: string;
  readonly protocol: string;
}
type Done = (error: Error | null, socket: Socket | null) => void;

/** Where Node keeps the agent of fetch. */
const DISPATCHER = Symbol.for('undici.globalDispatcher.1');
const TIMEOUT_MS = 30_000;

/**
 * Makes fetch of this process go through the proxies that HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY name, in capitals or
 * not. By itself Node's fetch knows them only from 22.21 on, and when asked to. For a process of our own only: it changes
 * fetch everywhere.
 *
 * @throws Error for a proxy that is no http: or https: URL, and where this version of Node is built differently
 */
export async function useProxies(): Promise<void> {
  const protocols = ['https:', 'http:'].map((protocol) => ({ protocol, hostname: '', port: '' }));
  if (protocols.every((target) => proxyFor(target) === undefined)) return;
  await fetch('data:,'); // its first use makes the agent
  const Agent = (Reflect.get(globalThis, DISPATCHER) as object | undefined)?.constructor;
  if (Agent?.name !== 'Agent') throw new Error('This version of Node needs NODE_USE_ENV_PROXY=1 for a proxy.');
  const connect = (target: Target, done: Done) => {
    const proxy = proxyFor(target);
    if (proxy) throughProxy(proxy, target, done);
    else settle(isSecure(target) ? secure(target) : tcpConnect(portOf(target), hostOf(target)), target, done);
  };
  Reflect.set(globalThis, DISPATCHER, Reflect.construct(Agent, [{ connect }]));
}

/** The proxy of a server, by the variables that curl reads; undefined for none. */
export function proxyFor(target: Target): URL | undefined {
  const { env } = process;
  const read = (name: string) => env[name.toLowerCase()] || env[name];
  const proxy = read(isSecure(target) ? 'HTTPS_PROXY' : 'HTTP_PROXY') || read('ALL_PROXY');
  if (!proxy) return undefined;
  const host = hostOf(target).toLowerCase();
  const direct = (read('NO_PROXY') ?? '').split(/[\s,]+/).some((pattern) => {
    const [, name = '', port] = /^\*?\.?(.*?)(?::(\d+))?$/.exec(pattern.toLowerCase()) ?? [];
    if (pattern === '*') return true;
    const named = name !== '' && (host === name || host.endsWith(`.${name}`));
    return named && (port === undefined || Number(port) === portOf(target));
  });
  if (direct) return undefined;
  const url = new URL(proxy.includes('://') ? proxy : `http://${proxy}`);
  if (url.protocol === 'http:' || url.protocol === 'https:') return url;
  throw new Error(
    `The proxy ${url.protocol}//${url.host} is not reached by http: or https:, which are those that work here.`,
  );
}

function throughProxy(proxy: URL, target: Target, done: Done): void {
  const address = `${target.hostname}:${portOf(target)}`;
  const { username, password } = proxy;
  const user = `${decodeURIComponent(username)}:${decodeURIComponent(password)}`;
  const headers = {
    host: address,
    ...(username && { 'proxy-authorization': `Basic ${Buffer.from(user).toString('base64')}` }),
  };
  const request = isSecure(proxy) ? httpsRequest : httpRequest;
  const options = { method: 'CONNECT', host: hostOf(proxy), port: portOf(proxy), path: address, headers };
  const asking = request({ ...options, timeout: TIMEOUT_MS });
  asking
    .on('connect', ({ statusCode }, socket) => {
      if (statusCode !== 200) {
        socket.destroy();
        done(new Error(`the proxy ${proxy.host} answered ${statusCode}`), null);
      } else if (isSecure(target)) settle(secure(target, socket), target, done);
      else done(null, socket);
    })
    .on('timeout', () => asking.destroy(new Error(`the proxy ${proxy.host} does not answer`)))
    .on('error', (error) => done(error, null))
    .end();
}

function secure(target: Target, socket?: Socket): Socket {
  const host = hostOf(target);
  const way = socket ? { socket } : { host, port: portOf(target) };
  return tlsConnect({ ...way, servername: host, ALPNProtocols: ['http/1.1'] });
}

function settle(socket: Socket, target: Target, done: Done): void {
  const ready = isSecure(target) ? 'secureConnect' : 'connect';
  const fail = (error: Error) => done(error, null);
  socket.setTimeout(TIMEOUT_MS, () => socket.destroy(new Error(`${target.hostname} does not answer`)));
  socket.once('error', fail).once(ready, () => {
    socket.setTimeout(0);
    socket.off('error', fail);
    done(null, socket);
  });
}

const isSecure = ({ protocol }: { protocol: string }) => protocol === 'https:';
const hostOf = ({ hostname }: { hostname: string }) => hostname.replace(/^\[|\]$/g, '');
const portOf = (target: Target | URL) => Number(target.port) || (isSecure(target) ? 443 : 80);
