// Damaged GGUF files, and processes that try to use them.
import { type ChildProcess, fork } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Random } from '../../src/util/random.js';

/** A field of a GGUF header. `kind` says what its bytes are. */
export interface Field {
  at: number;
  bytes: number;
  kind: 'count' | 'type' | 'text' | 'value' | 'size';
}

const VALUE_BYTES = [1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8];

/** Where every field of a valid GGUF's header is, and where its tensor data begins. */
export function headerFields(file: Buffer): { fields: Field[]; data: number } {
  const fields: Field[] = [];
  let at = 0;
  const take = (bytes: number, kind: Field['kind']) => {
    fields.push({ at, bytes, kind });
    at += bytes;
  };
  const u64 = (kind: Field['kind']) => {
    const n = Number(file.readBigUInt64LE(at));
    take(8, kind);
    return n;
  };
  const u32 = (kind: Field['kind']) => {
    const n = file.readUInt32LE(at);
    take(4, kind);
    return n;
  };
  const text = () => take(u64('count'), 'text');
  const value = (type: number) => {
    if (type === 8) return text();
    if (type !== 9) return take(VALUE_BYTES[type] as number, 'value');
    const item = u32('type');
    for (let n = u64('count'); n > 0; n--) value(item);
  };
  take(4, 'text');
  u32('type');
  const nTensors = u64('count');
  const nPairs = u64('count');
  for (let i = 0; i < nPairs; i++) {
    text();
    value(u32('type'));
  }
  for (let i = 0; i < nTensors; i++) {
    text();
    for (let d = u32('type'); d > 0; d--) u64('size');
    u32('type');
    u64('size');
  }
  return { fields: fields.filter((field) => field.bytes > 0), data: Math.ceil(at / 32) * 32 };
}

/** A copy of a GGUF with one to three seeded injuries: a header field set to a telling or random value, or bytes anywhere. */
export function mutate(file: Buffer, seed: number, label: string): Buffer {
  const random = new Random(seed, label);
  const whole = (n: number) => Math.floor(random.uniform() * n);
  const copy = Buffer.from(file);
  const { fields, data } = headerFields(file);
  // Long lists (the vocabulary) would take nearly every draw otherwise.
  const short = fields.filter((field, i) => field.kind !== 'text' && fields[i - 1]?.kind !== 'text');
  for (let n = 1 + whole(3); n > 0; n--) {
    const draw = random.uniform();
    if (draw < 0.6) {
      const pool = draw < 0.45 ? fields.filter((f) => f.kind !== 'text') : short;
      const { at, bytes } = pool[whole(pool.length)] as Field;
      const telling = [0n, 1n, 2n, 3n, 7n, 31n, 255n, 65536n, 0x7fffffffn, 0xffffffffn, 0xffffffffffffffffn];
      const old = bytes === 8 ? file.readBigUInt64LE(at) : BigInt(file.readUIntLE(at, Math.min(bytes, 4)));
      const near = [old + 1n, old - 1n, old * 2n, old / 2n, old ^ (1n << BigInt(whole(bytes * 8)))];
      const value = BigInt.asUintN(bytes * 8, [...telling, ...near][whole(telling.length + near.length)] as bigint);
      for (let i = 0; i < bytes; i++) copy[at + i] = Number((value >> BigInt(8 * i)) & 0xffn);
    } else {
      const [from, to] = draw < 0.85 ? [0, data] : [data, file.length];
      copy[from + whole(to - from)] = whole(256);
    }
  }
  return copy;
}

export interface Attempt {
  model: string;
  mmproj?: string;
  picture?: string;
  tokens: number[];
}
export interface Outcome {
  /** `loaded`, an error code, `uncoded` for an error that is no XpatchError, or how the process died. */
  outcome: string;
  message?: string;
  /** How often the files were tried in another process; absent where they were not. */
  trials?: number;
}

const CHILD = fileURLToPath(new URL('./load-child.mjs', import.meta.url));

/** A process that makes attempts, replaced by a new one when an attempt ends it. */
export class Attempts {
  private child: ChildProcess | undefined;

  /**
   * @param env variables beside those of this process
   * @param script what makes the attempts
   */
  constructor(
    private readonly env: NodeJS.ProcessEnv = {},
    private readonly script = CHILD,
  ) {}

  run(attempt: Attempt, timeoutMs = 20_000): Promise<Outcome> {
    this.child ??= fork(this.script, {
      stdio: ['ignore', 'ignore', 'ignore', 'ipc'],
      env: { ...process.env, ...this.env },
    });
    const child = this.child;
    return new Promise((resolve) => {
      const finish = (outcome: Outcome) => {
        clearTimeout(timer);
        child.removeAllListeners();
        resolve(outcome);
      };
      const timer = setTimeout(() => {
        this.child = undefined;
        child.kill('SIGKILL');
        finish({ outcome: 'hang' });
      }, timeoutMs);
      child.once('message', (answer) => finish(answer as Outcome));
      child.once('exit', (code, signal) => {
        this.child = undefined;
        finish({ outcome: signal ?? `exit ${code}` });
      });
      child.send(attempt);
    });
  }

  close(): void {
    this.child?.kill();
  }
}

/** Writes the file of an attempt; one name a caller, overwritten each time. */
export function put(folder: string, name: string, bytes: Buffer): string {
  const path = join(folder, name);
  writeFileSync(path, bytes);
  return path;
}
