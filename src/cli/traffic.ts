import { counted } from '../util/counted.js';

/**
 * Measures the traffic with the servers of `--rpc` from now on.
 *
 * @returns a sentence about it, at any time; none without servers
 */
export async function meterTraffic(rpc: readonly string[] | undefined): Promise<() => string | undefined> {
  if (rpc === undefined) return () => undefined;
  const { rpcTraffic } = await import('../native/rpc.js');
  const before = rpcTraffic();
  return () => {
    const { sent, received, decodes } = rpcTraffic();
    const batches = decodes - before.decodes;
    if (batches === 0) return undefined;
    const [out, back] = [sent - before.sent, received - before.received];
    const each = `${megabytes(out / batches)} and ${megabytes(back / batches)} each`;
    return `rpc: ${megabytes(out)} sent and ${megabytes(back)} received in ${counted(batches, 'batch', 'batches')}, ${each}`;
  };
}

const megabytes = (bytes: number) => `${(bytes / 1e6).toFixed(bytes < 1e6 ? 3 : 1)} MB`;
