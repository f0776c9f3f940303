import { type ChildProcess, fork } from 'node:child_process';
import { lookup } from 'node:dns/promises';
import { createServer } from 'node:net';
import { availableParallelism } from 'node:os';
import { fileURLToPath } from 'node:url';
import { greet, RPC_PORT } from '../native/rpc.js';
import { ERROR_CODES, XpatchError, type XpatchErrorCode } from '../util/errors.js';
import { defineCommand } from './command.js';
import { usageError } from './errors.js';
import { text, vary } from './option.js';
import { DEVICE, OUTPUT_OPTIONS, PORT, THREADS } from './options.js';
import type { Terminal } from './terminal.js';

/** A starting process loads the addon and its backends. */
const START_MS = 60_000;
const EVERY_MS = 100;

/** `xpatch rpc-server`: offers this machine's devices for layers of models that are loaded elsewhere. */
export const rpcServer = defineCommand({
  command: 'rpc-server',
  describe: 'Hold layers of models that run on another machine (--rpc there)',
  options: {
    host: vary(text('Address to listen on', { value: 'ADDRESS' }), { default: '127.0.0.1' }),
    port: vary(PORT, { default: RPC_PORT }),
    device: DEVICE,
    threads: vary(THREADS, { describe: 'CPU threads. Defaults to the cores, at most 8' }),
    json: vary(OUTPUT_OPTIONS.json, { describe: 'Print events as JSON, one object per line' }),
  },
  examples: [
    ['On this machine, for another that connects by SSH', 'rpc-server'],
    ['There, after ssh -L 50052:127.0.0.1:50052 BIG', 'run -m MODEL --rpc 127.0.0.1:50052 --prompt "Q:France\\nA:"'],
    ['On an address in a private network', 'rpc-server --host 10.0.0.7'],
  ],
  run: async ({ host, port, device, threads = Math.min(availableParallelism(), 8), json }, terminal) => {
    if (port > 65535) throw usageError('--port must be at most 65535.');
    const address = await addressOf(host);
    const given = await freePort(address, port);
    const endpoint = `${address}:${given}`;
    if (!address.startsWith('127.')) {
      terminal.say(
        `xpatch: ${endpoint} can be reached from other machines, and the protocol has no authentication and no encryption: whoever reaches it can run code here. Use it only in a private network, or listen on 127.0.0.1 and connect by SSH or WireGuard.\n`,
      );
    }
    const tell = (event: string, words: string) => {
      if (json) terminal.printJson({ event, endpoint });
      else terminal.print(`${words}\n`);
    };
    await serve([endpoint, device, String(threads)], tell, terminal);
  },
});

async function addressOf(host: string): Promise<string> {
  const { address } = await lookup(host, { family: 4 }).catch((cause: Error) => {
    throw usageError(`--host ${host}: ${cause.message}. Name an IPv4 address of this machine.`);
  });
  return address;
}

/** The port, if it is free. ggml's server does not say why it is not. @throws {XpatchError} PORT_UNAVAILABLE */
function freePort(host: string, port: number): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.on('error', (cause) => {
      const message = `Cannot listen on ${host}:${port}: ${cause.message}. Choose another --port, or 0 for a free one.`;
      reject(new XpatchError('PORT_UNAVAILABLE', message, { cause }));
    });
    server.listen({ host, port }, () => {
      const { port: given } = server.address() as { port: number };
      server.close(() => resolve(given));
    });
  });
}

/** Serves until interrupted. A process that ends is replaced, unless it never answered. */
async function serve(
  args: readonly [string, string, string],
  tell: (event: string, text: string) => void,
  terminal: Terminal,
): Promise<void> {
  const { signal } = terminal;
  const [endpoint] = args;
  for (let first = true; !signal.aborted; first = false) {
    const server = start(args);
    const stop = () => server.child.kill('SIGKILL');
    signal.addEventListener('abort', stop);
    process.on('exit', stop);
    try {
      await answering(endpoint, server);
      if (first) tell('listening', `${endpoint} holds layers for one model at a time. Ctrl-C ends it.`);
      server.onLine = (line) => {
        if (/^Accepted client/.test(line)) tell('connected', 'a client is connected');
        if (/^Client connection closed/.test(line)) tell('free', 'the client has gone');
      };
      await server.ended;
      if (!signal.aborted) tell('restart', `the serving process ended (${server.how}); restarting it`);
    } finally {
      stop();
      signal.removeEventListener('abort', stop);
      process.off('exit', stop);
    }
  }
}

interface Server {
  readonly child: ChildProcess;
  readonly ended: Promise<void>;
  onLine: (line: string) => void;
  how: string | undefined;
  error: Error | undefined;
}

function start(args: readonly string[]): Server {
  const child = fork(fileURLToPath(new URL('./rpc-server-child.js', import.meta.url)), args, {
    execArgv: ['--no-warnings'],
    stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
  });
  let log = '';
  let rest = '';
  const server: Server = {
    child,
    onLine: () => undefined,
    how: undefined,
    error: undefined,
    ended: new Promise<void>((resolve) => {
      child.on('error', (error) => {
        server.error = error;
        resolve();
      });
      child.on('close', (code, name) => {
        server.how = name ?? `code ${code}${log.trim() === '' ? '' : `: ${log.trim()}`}`;
        resolve();
      });
    }),
  };
  child.on('message', ({ code, message }: { code?: string; message: string }) => {
    const known = ERROR_CODES.includes(code as XpatchErrorCode);
    server.error = known ? new XpatchError(code as XpatchErrorCode, `${message}.`) : new Error(message);
  });
  child.stderr?.on('data', (chunk: Buffer) => {
    log = (log + chunk).slice(-1000);
  });
  child.stdout?.on('data', (chunk: Buffer) => {
    const lines = (rest + chunk).split('\n');
    rest = lines.pop() as string;
    for (const line of lines) server.onLine(line);
  });
  return server;
}

/** Resolves when the server answers a greeting. */
async function answering(endpoint: string, server: Server): Promise<void> {
  const [host, port] = endpoint.split(':') as [string, string];
  const until = Date.now() + START_MS;
  for (;;) {
    const ended = await Promise.race([server.ended.then(() => true), pause()]);
    if (server.error) throw server.error;
    const failed = (why: string) => new XpatchError('RPC_FAILED', `The server at ${endpoint} did not start: ${why}.`);
    if (ended) throw failed(server.how ?? 'it ended');
    try {
      await greet({ host, port: Number(port) }, (problem) => failed(problem), EVERY_MS * 10);
      return;
    } catch (error) {
      if (Date.now() > until) throw error;
    }
  }
}

const pause = () => new Promise<false>((resolve) => setTimeout(() => resolve(false), EVERY_MS));
