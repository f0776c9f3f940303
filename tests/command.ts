import { PassThrough, Readable, Writable } from 'node:stream';
import { main } from '../src/cli/cli.js';
import type { Io } from '../src/cli/io.js';

export interface Outcome {
  code: number;
  stdout: string;
  stderr: string;
}

export interface World {
  stdin?: string;
  env?: Io['env'];
  /** Whether both outputs are terminals. */
  isTTY?: boolean;
  columns?: number;
  signal?: AbortSignal;
}

/** Runs the command line of the sources in this process: what it prints, and its exit code. */
export function xpatch(args: readonly string[], world?: World): Promise<Outcome> {
  return runMain(main, args, world);
}

export async function runMain(run: typeof main, args: readonly string[], world: World = {}): Promise<Outcome> {
  const { isTTY = false, columns, env = {}, signal = new AbortController().signal } = world;
  const [stdout, stderr] = [new Collected(), new Collected()];
  const stdin = world.stdin === undefined ? new PassThrough() : Readable.from([world.stdin]);
  const exit = (code: number): never => {
    throw new Error(`exit ${code}`);
  };
  const output = (stream: Collected) => Object.assign(stream, { isTTY, columns });
  const io: Io = { stdin, stdout: output(stdout), stderr: output(stderr), env, signal, exit };
  return { code: await run(args, io), stdout: stdout.text, stderr: stderr.text };
}

/** A stream that keeps what is written to it. */
export class Collected extends Writable {
  private readonly chunks: Buffer[] = [];

  get bytes(): Buffer {
    return Buffer.concat(this.chunks);
  }

  get text(): string {
    return this.bytes.toString();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    this.chunks.push(chunk);
    done();
  }
}
