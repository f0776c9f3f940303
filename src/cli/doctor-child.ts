// Runs what may crash (an addon, a driver, a kernel) in a separate process: doctor forks this file and reports how it ended.
import type { Device } from '../native/addon.js';
import type { BuildInfo } from '../native/load.js';
import { tellParent } from '../util/child.js';
import { XpatchError } from '../util/errors.js';
import type { Check, SelfTestOptions } from './self-test.js';

/** What the loaded addon says about itself and the machine. */
export interface NativeReport {
  path: string;
  prebuilt: boolean;
  build: BuildInfo;
  stale?: string;
  devices: Device[];
  failedBackends: { path: string; reason: string }[];
}

export type ChildMessage =
  | { type: 'stage'; stage: string }
  | { type: 'native'; report: NativeReport }
  | { type: 'check'; check: Check }
  | { type: 'done' };

const tell: (message: ChildMessage) => Promise<void> = tellParent;

async function attempt(name: string, work: () => Promise<void>): Promise<boolean> {
  await tell({ type: 'stage', stage: name });
  try {
    await work();
    return true;
  } catch (error) {
    const { code = 'UNEXPECTED', message } = error as Partial<XpatchError>;
    const stack = error instanceof XpatchError ? '' : `\n${(error as Error).stack}`;
    await tell({ type: 'check', check: { name, ok: false, detail: `${code}: ${message}${stack}` } });
    return false;
  }
}

const options = JSON.parse(process.argv[2] as string) as SelfTestOptions;
const loads = await attempt('the addon loads', async () => {
  const { native } = await import('../native/index.js');
  const { addon, path, prebuilt, build, stale, failedBackends } = native();
  const report = { path, prebuilt, build, stale, devices: addon.listDevices(), failedBackends };
  await tell({ type: 'native', report });
  await tell({ type: 'check', check: { name: 'the addon loads', ok: true, detail: path } });
});
if (loads) {
  await attempt('the self-test runs', async () => {
    const { selfTest } = await import('./self-test.js');
    const checks: Promise<void>[] = [];
    const onTrial = () => void tell({ type: 'stage', stage: 'the model file can be used' });
    await selfTest(options, (check) => checks.push(tell({ type: 'check', check })), onTrial);
    await Promise.all(checks);
  });
}
await tell({ type: 'done' });
process.disconnect();
