import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process';
import type { Readable } from 'node:stream';

/** How much of a process's last output is kept, for crash reports. */
const LOG_CHARACTERS = 4000;

/** One listener for all of them: many may run at once. */
const running = new Set<ChildProcess>();
const killAll = () => running.forEach((child) => void child.kill('SIGKILL'));

/** How to run one of our processes. */
interface ChildOptions<Message> {
  /** What it reads from standard input. Defaults to nothing. */
  input?: Uint8Array;
  env?: NodeJS.ProcessEnv;
  /** Called with everything that it sends. Without it there is no channel, unless there is a `job`. */
  onMessage?: (message: Message) => void;
  /** Sent to it at once. */
  job?: unknown;
  onStart?: (pid: number) => void;
  signal?: AbortSignal | undefined;
  /** On abort it is sent this, and killed only if it does not end in time. Defaults to an immediate kill. */
  stop?: { message: unknown; graceMs: number };
  /** Then it is killed. Defaults to no bound. */
  maxSeconds?: number;
}

/** How a process ended. */
interface ChildEnd {
  /** `was ended by SIGKILL`, `ended with code 3`, `could not be started (ENOENT)`. */
  how: string;
  /** undefined if it was killed, or not started. */
  code: number | undefined;
  /** For one that sends nothing. */
  stdout: Buffer;
  /** Its last output on stderr. */
  log: string;
  /** Whether it took too long. */
  late: boolean;
}

/**
 * Runs Node.js in a separate process, which may crash, hang or be killed without affecting this one. It does not outlive this process.
 *
 * @param args program and arguments
 */
export async function runChild<Message>(
  args: readonly string[],
  { input, env, job, signal, stop, maxSeconds, onStart, onMessage }: ChildOptions<Message> = {},
): Promise<ChildEnd> {
  const isAsked = onMessage !== undefined || job !== undefined;
  const channel = isAsked || input !== undefined ? (['ipc'] as const) : [];
  const options: SpawnOptions = {
    stdio: [input ? 'pipe' : 'ignore', isAsked ? 'ignore' : 'pipe', 'pipe', ...channel],
    ...(env && { env }),
    ...(channel.length > 0 && { serialization: 'advanced' }),
    windowsHide: true,
  };
  const child = spawn(process.execPath, ['--no-warnings', ...args], options);
  const tell = (message: unknown) => void (child.connected && child.send(message as object, () => undefined));
  const kill = () => void child.kill('SIGKILL');
  const timers: NodeJS.Timeout[] = [];
  let late = false;
  const abort = () => {
    if (stop === undefined) return kill();
    tell(stop.message);
    timers.push(setTimeout(kill, stop.graceMs));
  };
  signal?.addEventListener('abort', abort, { once: true });
  if (running.size === 0) process.on('exit', killAll);
  running.add(child);
  if (maxSeconds !== undefined) {
    const end = () => {
      late = true;
      kill();
    };
    timers.push(setTimeout(end, maxSeconds * 1000));
  }
  const stdout: Buffer[] = [];
  let log = '';
  child.stdout?.on('data', (chunk: Buffer) => stdout.push(chunk));
  (child.stderr as Readable).on('data', (chunk: Buffer) => {
    log = (log + chunk).slice(-LOG_CHARACTERS);
  });
  if (onMessage) child.on('message', onMessage as (message: unknown) => void);
  child.stdin?.on('error', () => undefined); // it ended before it had read everything: see how
  const ended = new Promise<Pick<ChildEnd, 'how' | 'code'>>((resolve) => {
    child.on('error', ({ message }) => resolve({ how: `could not be started (${message})`, code: undefined }));
    child.on('close', (code, name) => {
      resolve({ how: name ? `was ended by ${name}` : `ended with code ${code}`, code: code ?? undefined });
    });
  });
  try {
    if (child.pid !== undefined) onStart?.(child.pid);
    child.stdin?.end(input);
    if (job !== undefined) tell(job);
    if (signal?.aborted) abort();
    return { ...(await ended), stdout: Buffer.concat(stdout), log: log.trim(), late };
  } finally {
    for (const timer of timers) clearTimeout(timer);
    signal?.removeEventListener('abort', abort);
    running.delete(child);
    if (running.size === 0) process.off('exit', killAll);
  }
}

/** In a process that was started here: resolves once the message is sent, as what comes next may take the process down. */
export function tellParent(message: object): Promise<void> {
  return new Promise((resolve) => {
    process.send?.(message, () => resolve());
  });
}
