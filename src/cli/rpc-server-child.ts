// Serves devices in a separate process: an invalid request ends it, and rpc-server starts another.
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
