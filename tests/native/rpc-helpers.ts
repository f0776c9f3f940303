// Servers of `xpatch rpc-server` on this machine, and proxies that count, cut and fall silent in front of them.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createConnection, createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterAll } from '@jest/globals';
import { PACKAGE_ROOT } from '../../src/util/package-root.js';

const MAIN = join(PACKAGE_ROOT, 'dist', 'cli', 'main.js');

const ends: (() => unknown)[] = [];
afterAll(() => Promise.all(ends.map((end) => end())));

export interface RpcServer {
  readonly endpoint: string;
  readonly process: ChildProcess;
  /** What it has said on stderr. */
  log(): string;
  /** Ends it and what it started, at once. */
  kill(): Promise<void>;
}

/** A server on the CPU; on a free port of its own, or on that of an earlier one. */
export async function startServer(endpoint = '127.0.0.1:0', ...more: string[]): Promise<RpcServer> {
  const [host, port] = endpoint.split(':') as [string, string];
  const args = ['rpc-server', '--host', host, '--port', port, '--device', 'cpu', '--threads', '1', '--json', ...more];
  const child = spawn(process.execPath, ['--no-warnings', MAIN, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  const ended = once(child, 'exit');
  const kill = async () => {
    child.kill('SIGKILL'); // the process that serves ends with it
    await ended;
  };
  ends.push(kill);
  let log = '';
  child.stderr.on('data', (chunk) => {
    log += chunk;
  });
  const listening = (async () => {
    for await (const line of createInterface(child.stdout)) {
      const event = JSON.parse(line);
      if (event.event === 'listening') return event.endpoint as string;
    }
    throw new Error(`rpc-server ended: ${log}`);
  })();
  return { endpoint: await listening, process: child, log: () => log, kill };
}

/** Something between a client and a server. */
export interface TestProxy {
  readonly endpoint: string;
  /** Bytes from the client and from the server. */
  readonly bytes: { sent: number; received: number };
  /** From now on nothing gets through, and nobody is told. */
  silence(): void;
  /** Ends all connections. */
  cut(): void;
}

export async function startProxy(to: string): Promise<TestProxy> {
  const [host, port] = to.split(':') as [string, string];
  const bytes = { sent: 0, received: 0 };
  const open = new Set<Socket>();
  let silent = false;
  const server = createServer((client) => {
    const upstream = createConnection({ host, port: Number(port) });
    const pass = (from: Socket, into: Socket, side: keyof typeof bytes) => {
      open.add(from);
      from.on('data', (chunk) => {
        if (silent) return;
        bytes[side] += chunk.length;
        into.write(chunk);
      });
      from.on('error', () => undefined);
      from.on('close', () => {
        open.delete(from);
        into.destroy();
      });
    };
    pass(client, upstream, 'sent');
    pass(upstream, client, 'received');
  });
  const endpoint = await listen(server);
  const cut = () => {
    for (const socket of open) socket.destroy();
  };
  ends.push(cut);
  return {
    endpoint,
    bytes,
    silence: () => {
      silent = true;
    },
    cut,
  };
}

/** A server that answers with what it is given, or not at all. */
export function startImpostor(answer: Buffer | undefined): Promise<string> {
  return listen(
    createServer((socket) => {
      socket.on('error', () => undefined);
      socket.on('data', () => answer && socket.write(answer));
    }),
  );
}

async function listen(server: Server): Promise<string> {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  server.unref();
  ends.push(() => server.close());
  return `127.0.0.1:${(server.address() as { port: number }).port}`;
}

/** The greeting of another release. */
export function greetingOf(version: [number, number, number], words: string): Buffer {
  const answer = Buffer.alloc(36);
  answer.writeBigUInt64LE(28n);
  answer.set(version, 8);
  answer.write(words, 12);
  return answer;
}
