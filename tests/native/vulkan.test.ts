// The device path on a Vulkan driver in software (Debian: mesa-vulkan-drivers, libvulkan1), against the CPU.

import { fork } from 'node:child_process';
import { once } from 'node:events';
import { platform } from 'node:os';
import { fileURLToPath } from 'node:url';
import { beforeAll, describe, expect, test } from '@jest/globals';
import type { Device } from '../../src/native/addon.js';
import { FULL } from '../full.js';
import { DEVICE_FAMILIES } from './device.js';

interface Answer {
  devices: Device[];
  /** By family and check. */
  wrong: Record<string, Record<string, string[]>>;
}

const DEVICE = 'Vulkan0';
/**
 * The driver compiles for about a second at each new shape of an operation. The text of idefics2 and llava-siglip is llama's, and
 * what is ours of the others is in these two.
 */
const FAMILIES = FULL ? Object.keys(DEVICE_FAMILIES) : ['mantis-fuyu', 'idefics2'];
const CHILD = fileURLToPath(new URL('./vulkan-child.ts', import.meta.url));

async function ask(device: string, environment: NodeJS.ProcessEnv): Promise<Answer> {
  const child = fork(CHILD, [device, ...FAMILIES], {
    env: { ...process.env, ...environment },
    execArgv: ['--import', 'tsx'],
  });
  const ended = once(child, 'exit');
  const [answer] = (await Promise.race([once(child, 'message'), ended])) as [Answer];
  expect(await ended).toEqual([0, null]);
  return answer;
}

test('a machine without any Vulkan driver still has its CPU', async () => {
  const nowhere = { VK_DRIVER_FILES: '/nowhere', VK_ICD_FILENAMES: '/nowhere', GGML_VK_VISIBLE_DEVICES: '0' };
  const { devices } = await ask('none', nowhere);
  expect(devices.map((device) => device.type)).toContain('cpu');
  expect(devices.map((device) => device.name)).not.toContain(DEVICE);
});

if (platform() !== 'linux') {
  test('the Vulkan driver in software is tried on Linux only; here the backends load', async () => {
    expect((await ask('none', {})).devices.length).toBeGreaterThan(0);
  });
} else {
  describe('on a Vulkan driver in software', () => {
    let answer: Answer;
    beforeAll(async () => {
      answer = await ask(DEVICE, { GGML_VK_VISIBLE_DEVICES: '0' });
    }, 900_000);

    test('there is a device; without one, install mesa-vulkan-drivers and libvulkan1', () => {
      expect(answer.devices).toContainEqual(expect.objectContaining({ name: DEVICE, backend: 'Vulkan', type: 'gpu' }));
    });

    test.each(FAMILIES)('%s: everything is as on the CPU', (name) => {
      const checks = Object.entries(answer.wrong[name] ?? {});
      expect(checks.length).toBeGreaterThan(5);
      expect(checks.filter(([, wrong]) => wrong.length > 0)).toEqual([]);
    });
  });
}
