// Serves devices, in a process of its own: a request that is out of order ends it, and rpc-server starts another one.
import { native } from '../native/index.js';

const [endpoint, device, threads] = process.argv.slice(2) as [string, string, string];
// Nobody is left to serve for.
process.on('disconnect', () => process.kill(process.pid, 'SIGKILL'));
for (const name of ['SIGINT', 'SIGTERM'] as const) process.on(name, () => undefined);
try {
  native().addon.rpcServe(endpoint, device, Number(threads));
} catch (error) {
  const { code, message } = error as { code?: string; message: string };
  process.send?.({ code, message }, () => process.exit(1));
}
