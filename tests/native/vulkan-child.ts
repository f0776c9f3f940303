// What is wrong on the device named by the first argument, in the families that follow; started by vulkan.test.ts with the software
// Vulkan driver made visible, which must happen before the backends are loaded.
import { listDevices } from '../../src/index.js';
import { differences, measureOn } from './device.js';

const [device = '', ...families] = process.argv.slice(2);
const devices = listDevices();
const wrong: Record<string, Record<string, string[]>> = {};
if (devices.some(({ name }) => name === device)) {
  for (const name of families) {
    wrong[name] = differences(await measureOn(device, name), await measureOn('cpu', name));
  }
}
process.send?.({ devices, wrong }, () => process.disconnect());
