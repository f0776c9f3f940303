// Debian's redis-server, started and stopped by a test on a free port.
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll } from '@jest/globals';
import { Redis } from 'ioredis';

const started: TestRedis[] = [];
afterAll(async () => {
  for (const server of started) {
    await server.kill();
    rmSync(server.folder, { recursive: true, force: true });
  }
});

/** A server whose data outlive it, as far as they were written when it was killed. */
export class TestRedis {
  readonly folder = mkdtempSync(join(tmpdir(), 'xpatch-redis-'));
  private process: ChildProcess | undefined;

  private constructor(
    readonly port: number,
    private readonly password: string,
    private readonly tls: boolean,
  ) {}

  static async start(password = '', tls = false): Promise<TestRedis> {
    const server = new TestRedis(await freePort(), password, tls);
    started.push(server);
    await server.start();
    return server;
  }

  get url(): string {
    return `redis${this.tls ? 's' : ''}://${this.password && `:${this.password}@`}127.0.0.1:${this.port}`;
  }

  /** The certificate that it shows, signed by itself. */
  get certificate(): string {
    return join(this.folder, 'certificate.pem');
  }

  async start(): Promise<void> {
    const port = String(this.port);
    const options = {
      bind: '127.0.0.1',
      save: '',
      appendonly: 'yes',
      dir: this.folder,
      ...(this.tls ? { port: '0', 'tls-port': port, ...this.encryption() } : { port }),
    };
    const args = Object.entries(options).flatMap(([name, value]) => [`--${name}`, value]);
    if (this.password) args.push('--requirepass', this.password);
    this.process = spawn('redis-server', args, { stdio: 'ignore' });
    this.process.on('error', () => undefined);
    await this.use((redis) => redis.ping());
  }

  private encryption() {
    const key = join(this.folder, 'key.pem');
    const made = ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-keyout', key, '-out', this.certificate];
    const name = ['-days', '2', '-subj', '/CN=127.0.0.1', '-addext', 'subjectAltName=IP:127.0.0.1'];
    const { status, stderr } = spawnSync('openssl', [...made, ...name], { encoding: 'utf8' });
    if (status !== 0) throw new Error(`openssl failed: ${stderr}`);
    const { certificate } = this;
    return {
      'tls-cert-file': certificate,
      'tls-key-file': key,
      'tls-ca-cert-file': certificate,
      'tls-auth-clients': 'no',
    };
  }

  async kill(): Promise<void> {
    if (this.process?.exitCode !== null || this.process.signalCode !== null) return;
    const ended = once(this.process, 'exit');
    this.process.kill('SIGKILL');
    await ended;
  }

  /** Something asked of it, over a connection of its own. */
  async use<T>(ask: (redis: Redis) => Promise<T>): Promise<T> {
    const redis = new Redis(this.url, {
      maxRetriesPerRequest: 100,
      retryStrategy: () => 100,
      ...(this.tls && { tls: { ca: readFileSync(this.certificate) } }),
    });
    redis.on('error', () => undefined);
    try {
      return await ask(redis);
    } finally {
      redis.disconnect();
    }
  }
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  server.close();
  await once(server, 'close');
  return port;
}
