import { createRequire } from 'node:module';
import { MessageChannel, type MessagePort, receiveMessageOnPort, Worker } from 'node:worker_threads';

/** The thread may take long to start on a busy machine; a template takes less than a millisecond. */
const START_MS = 20_000;
const RENDER_MS = 2000;
const MEMORY_MB = 64;
/** Characters of a template, and of what it writes. */
const LONGEST_TEMPLATE = 1 << 20;
const LONGEST_TEXT = 1 << 22;

/**
 * What runs in the thread. A text and no module of its own, so that it is the same from sources and from the build.
 * The globals are those that transformers gives a template; the package's own `strftime_now` would write months in the
 * language of the machine.
 */
const THREAD = `
const { workerData: { port, state, jinja, longest } } = require('node:worker_threads');
const { Template, Environment, Interpreter } = require(jinja);
const part = (date, options) => new Intl.DateTimeFormat('en-US', options).format(date);
const two = (n) => String(n).padStart(2, '0');
const strftime = (d, format) => format.replace(/%([aAbBdHIjmMpSyY%])/g, (_, c) => ({
  a: () => part(d, { weekday: 'short' }), A: () => part(d, { weekday: 'long' }),
  b: () => part(d, { month: 'short' }), B: () => part(d, { month: 'long' }),
  d: () => two(d.getDate()), H: () => two(d.getHours()), I: () => two(d.getHours() % 12 || 12),
  j: () => String(Math.round((Date.UTC(d.getFullYear(), d.getMonth(), d.getDate()) - Date.UTC(d.getFullYear(), 0, 0)) / 864e5)).padStart(3, '0'),
  m: () => two(d.getMonth() + 1), M: () => two(d.getMinutes()), p: () => (d.getHours() < 12 ? 'AM' : 'PM'),
  S: () => two(d.getSeconds()), y: () => two(d.getFullYear() % 100), Y: () => String(d.getFullYear()), '%': () => '%',
})[c]());
const globals = {
  true: true, false: false, none: null, True: true, False: false, None: null,
  raise_exception: (message) => { throw new Error(message); },
  range(start, stop, step = 1) {
    if (stop === undefined) [start, stop] = [0, start];
    return Array.from({ length: Math.max(0, Math.ceil((stop - start) / step)) }, (_, i) => start + i * step);
  },
};
let last;
port.on('message', ({ source, variables, now }) => {
  let reply;
  try {
    if (last?.source !== source) last = { source, template: new Template(source) };
    const scope = new Environment();
    const values = { ...globals, strftime_now: (format) => strftime(now, format), ...variables };
    for (const [name, value] of Object.entries(values)) scope.set(name, value);
    const text = new Interpreter(scope).run(last.template.parsed).value;
    reply = text.length > longest ? { error: 'it writes too much' } : { text };
  } catch (error) {
    reply = { error: String(error?.message ?? error).slice(0, 300) };
  }
  port.postMessage(reply);
  Atomics.add(state, 0, 1);
  Atomics.notify(state, 0);
});
Atomics.add(state, 0, 1);
Atomics.notify(state, 0);
`;

interface Thread {
  worker: Worker;
  port: MessagePort;
  /** How many times the thread has answered, its start included. */
  state: Int32Array;
}

let thread: Thread | undefined;

/** What a template wrote, or why it did not, and whether it had to be given up. */
export type Rendering = { text: string } | { error: string; endless?: boolean };

/**
 * Renders a Jinja template. Templates come with models' files and may be hostile: one that takes more than two seconds or
 * 64 MB is given up, with the thread it runs in.
 */
export function renderJinja(source: string, variables: Record<string, unknown>, now: Date): Rendering {
  if (source.length > LONGEST_TEMPLATE) return { error: `it is longer than ${LONGEST_TEMPLATE} characters` };
  thread ??= start();
  const { port, state } = thread;
  let answered = Atomics.load(state, 0);
  port.postMessage({ source, variables, now });
  const end = Date.now() + RENDER_MS;
  for (let left = RENDER_MS; left > 0; left = end - Date.now()) {
    Atomics.wait(state, 0, answered, left);
    answered = Atomics.load(state, 0);
    const reply = receiveMessageOnPort(port);
    if (reply) return reply.message as Rendering;
  }
  void thread.worker.terminate();
  thread = undefined;
  return { error: `it takes more than ${RENDER_MS / 1000} s or ${MEMORY_MB} MB`, endless: true };
}

function start(): Thread {
  const state = new Int32Array(new SharedArrayBuffer(4));
  const { port1, port2 } = new MessageChannel();
  const jinja = createRequire(import.meta.url).resolve('@huggingface/jinja');
  const worker = new Worker(THREAD, {
    eval: true,
    workerData: { port: port2, state, jinja, longest: LONGEST_TEXT },
    transferList: [port2],
    // What node itself was started with may be meant for another script: `-e`, `--input-type`, `--import`.
    execArgv: [],
    env: Object.fromEntries(Object.entries(process.env).filter(([name]) => name !== 'NODE_OPTIONS')),
    resourceLimits: { maxOldGenerationSizeMb: MEMORY_MB, maxYoungGenerationSizeMb: 16 },
  });
  worker.on('error', () => {}); // out of memory: noticed by the missing answer
  worker.unref();
  port1.unref();
  Atomics.wait(state, 0, 0, START_MS);
  return { worker, port: port1, state };
}
