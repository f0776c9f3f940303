// What is wrong on the device named by the argument; started by vulkan.test.ts with the software Vulkan driver made visible, which
// must happen before the backends are loaded.
import { listDevices } from '../../src/index.js';
import { DEVICE_FAMILIES, differences, measureOn } from './device.js';

const [device = ''] = process.argv.slice(2);
const devices = listDevices();
const wrong: Record<string, Record<string, string[]>> = {};
if (devices.some(({ name }) => name === device)) {
  for (const name of Object.keys(DEVICE_FAMILIES)) {
    wrong[name] = differences(await measureOn(device, name), await measureOn('cpu', name));
  }
}
process.send?.({ devices, wrong }, () => process.disconnect());
