import { lookup } from 'node:dns/promises';
import { createConnection } from 'node:net';
import { XpatchError } from '../util/errors.js';
import type { RpcTraffic } from './addon.js';
import { native } from './index.js';

/** Port of `xpatch rpc-server`. */
export const RPC_PORT = 50052;
/** So long a server that serves nobody may take to answer a greeting. */
const ANSWER_MS = 5000;

/** A server that takes layers of a model, where `rpc` names it. */
interface Endpoint {
  readonly host: string;
  readonly port: number;
}

/**
 * @param text `host:port` or `host`
 * @throws {XpatchError} INVALID_ARGUMENT
 */
function parseEndpoint(text: string): Endpoint {
  const [, host, digits] = /^([A-Za-z0-9][A-Za-z0-9.-]*)(?::(\d{1,5}))?$/.exec(text.trim()) ?? [];
  const port = digits === undefined ? RPC_PORT : Number(digits);
  if (host !== undefined && port >= 1 && port <= 65535) return { host, port };
  const message = `An RPC server is given as host:port, such as 192.168.1.7:${RPC_PORT}, not ${JSON.stringify(text)}.`;
  throw new XpatchError('INVALID_ARGUMENT', message);
}

/**
 * Makes sure that servers are there, are of this llama.cpp and have time: ggml's own client says nothing of the kind.
 *
 * @param names `host:port` each, of IPv4; the port defaults to 50052
 * @returns their addresses in numbers
 * @throws {XpatchError} INVALID_ARGUMENT; RPC_FAILED, for the first that cannot be used
 */
export async function findServers(names: readonly string[]): Promise<string[]> {
  const found: string[] = [];
  for (const name of names) {
    const { host, port } = parseEndpoint(name);
    const fail = (problem: string, cause?: unknown) => new XpatchError('RPC_FAILED', `${name} ${problem}`, { cause });
    const address = await lookup(host, { family: 4 }).catch((cause: Error) => {
      throw fail(`cannot be found: ${cause.message}. Name a host that has an IPv4 address.`, cause);
    });
    const endpoint = `${address.address}:${port}`;
    if (found.includes(endpoint)) {
      throw new XpatchError('INVALID_ARGUMENT', `The server ${name} is named twice. Name each once.`);
    }
    if (!native().addon.rpcConnected(endpoint)) await greet({ host: address.address, port }, fail);
    found.push(endpoint);
  }
  return found;
}

/** Whether a server answers a greeting as this build of xpatch does. @throws what `fail` makes */
export async function greet(
  { host, port }: Endpoint,
  fail: (problem: string, cause?: unknown) => Error,
  answerMs = ANSWER_MS,
): Promise<void> {
  const { version, greeting } = native().addon.rpcProtocol();
  const caps = Buffer.alloc(CAPS_BYTES);
  caps.write(greeting);
  const answer = await exchange({ host, port }, Buffer.concat([HELLO, number(caps.length), caps]), fail, answerMs);
  const theirs = [...answer.subarray(8, 11)];
  const said = answer
    .subarray(12, 12 + CAPS_BYTES)
    .toString('latin1')
    .replace(/\0+$/, '');
  if (answer.readBigUInt64LE(0) !== BigInt(ANSWER_BYTES - 8) || said === '') {
    throw fail('is not an xpatch server. Start `xpatch rpc-server` there.');
  }
  if (said !== greeting || theirs.join('.') !== version.join('.')) {
    const [there, here] = [said, greeting].map((text) => text.replace('xpatch ', 'llama.cpp '));
    const problem = `runs ${there} with protocol ${theirs.join('.')}, but this is ${here} with ${version.join('.')}`;
    throw fail(`${problem}. Install the same version of xpatch on both machines.`);
  }
}

/** Of the protocol: the first command, its argument, and the bytes of the answer with its length in front. */
const HELLO = Buffer.from([14]);
const CAPS_BYTES = 24;
const ANSWER_BYTES = 8 + 4 + CAPS_BYTES;

function number(value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
}

function exchange(
  { host, port }: Endpoint,
  message: Buffer,
  fail: (problem: string, cause?: unknown) => Error,
  answerMs: number,
): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const socket = createConnection({ host, port });
    let answer = Buffer.alloc(0);
    let connected = false;
    const end = (error: Error) => {
      socket.destroy();
      reject(error);
    };
    const timer = setTimeout(() => {
      const what = connected
        ? 'does not answer: it serves one program at a time and may be busy, or it is not an xpatch server. End the other program, or start a server for each'
        : 'does not answer: the machine is off, or a firewall is in the way. Start `xpatch rpc-server` there';
      end(fail(`${what}.`));
    }, answerMs);
    socket.on('connect', () => {
      connected = true;
      socket.write(message);
    });
    socket.on('data', (chunk: Buffer) => {
      answer = Buffer.concat([answer, chunk]);
      if (answer.length < ANSWER_BYTES) return;
      clearTimeout(timer);
      socket.destroy();
      resolve(answer);
    });
    socket.on('error', (cause) => {
      clearTimeout(timer);
      end(fail(`cannot be reached: ${cause.message}. Start \`xpatch rpc-server\` there.`, cause));
    });
    socket.on('close', () => {
      clearTimeout(timer);
      reject(
        fail('ends the connection: it is not a server of this xpatch. Install the same version on both machines.'),
      );
    });
  });
}

/**
 * What went to the servers of `rpc` and came back so far, of all models and passes of this process: the difference around a pass
 * is what it took.
 *
 * @example
 * ```ts
 * const before = rpcTraffic();
 * // … a pass of a model that was loaded with `rpc`
 * console.log(`${rpcTraffic().received - before.received} bytes came back`);
 * ```
 */
export function rpcTraffic(): RpcTraffic {
  return native().addon.rpcTraffic();
}
