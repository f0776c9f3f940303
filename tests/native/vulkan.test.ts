// The device path on a Vulkan driver in software (Debian: mesa-vulkan-drivers, libvulkan1), against the CPU.

import { fork } from 'node:child_process';
import { once } from 'node:events';
import { platform } from 'node:os';
import { fileURLToPath } from 'node:url';
import { beforeAll, describe, expect, test } from '@jest/globals';
import type { Device } from '../../src/native/addon.js';
import { expectSame } from './helpers.js';

interface Measured {
  nEmbd: number;
  nVocab: number;
  states: number[][];
  logits: number[][];
  deltas: number[];
  /** States of all layers and positions after the final norm. */
  normed: number[];
  /** Logits of the lens at all layers and positions: from the states, from the patched ones, and from the normed ones. */
  lenses: [number[][], number[][], number[][]];
  shared: number[][];
  naive: number[][];
  tokens: number[];
  /** Two states at every point of one block. */
  points: Record<string, number[]>;
  /** Last logits with edges cut, by the mask of flash attention and by scores. */
  cut: number[];
  scored: number[];
  identical: boolean;
}
interface Answer {
  devices: Device[];
  families: Record<string, { device: Measured; cpu: Measured }>;
}

const DEVICE = 'Vulkan0';
/** mantis-fuyu is computed in part in the eval callback, the pictures of idefics2 in a graph of our own. */
const FAMILIES = ['llama', 'llava-siglip', 'mantis-fuyu', 'idefics2'];
const CHILD = fileURLToPath(new URL('./vulkan-child.mjs', import.meta.url));

async function ask(device: string, environment: NodeJS.ProcessEnv): Promise<Answer> {
  const child = fork(CHILD, [device], { env: { ...process.env, ...environment } });
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

    const rows = (values: number[][]) => Float32Array.from(values.flat());
    test.each(FAMILIES)('%s: states, patches and sweeps equal those of the CPU', (name) => {
      const { device, cpu } = answer.families[name] as Answer['families'][string];
      for (const i of [0, 1]) {
        expectClose(rows([device.states[i] as number[]]), rows([cpu.states[i] as number[]]), cpu.nEmbd);
        expectClose(rows([device.logits[i] as number[]]), rows([cpu.logits[i] as number[]]), cpu.nVocab);
      }
      device.deltas.forEach((delta, i) => void expect(delta / (cpu.deltas[i] as number)).toBeCloseTo(1, 2));
      expectClose(rows(device.shared), rows(cpu.shared), cpu.nVocab);
    });

    test.each(FAMILIES)('%s: the lens and the final norm equal those of the CPU', (name) => {
      const { device, cpu } = answer.families[name] as Answer['families'][string];
      expectClose(rows([device.normed]), rows([cpu.normed]), cpu.nEmbd);
      for (const i of [0, 1, 2] as const) expectClose(rows(device.lenses[i]), rows(cpu.lenses[i]), cpu.nVocab);
      // The last layer's rows are the logits of the pass.
      const logits = rows([device.logits[0] as number[]]);
      expectClose(rows(device.lenses[0]).subarray(-logits.length), logits, device.nVocab);
    });

    test.each(FAMILIES)('%s: every point, and attention that is cut, equal those of the CPU', (name) => {
      const { device, cpu } = answer.families[name] as Answer['families'][string];
      expect(Object.keys(device.points)).toEqual(Object.keys(cpu.points));
      expect(Object.keys(device.points).length).toBeGreaterThan(12);
      for (const [hook, values] of Object.entries(cpu.points)) {
        expectClose(rows([device.points[hook] as number[]]), rows([values]), values.length / 2);
      }
      for (const what of ['cut', 'scored'] as const) expectClose(rows([device[what]]), rows([cpu[what]]), cpu.nVocab);
      expectClose(rows([device.cut]), rows([device.scored]), cpu.nVocab);
    });

    test.each(FAMILIES)('%s: on the device itself the sweep equals the naive one', (name) => {
      const { device } = answer.families[name] as Answer['families'][string];
      expectSame(rows(device.shared), rows(device.naive), device.nVocab, 'logits');
      expect(device.identical).toBe(true);
      expect(device.tokens.length).toBeGreaterThan(0);
    });
  });
}

/** Vulkan multiplies in float16 where it can, so not as near as two runs on one device. */
function expectClose(actual: Float32Array, expected: Float32Array, width: number): void {
  expect(actual.length).toBe(expected.length);
  const off: string[] = [];
  for (let at = 0; at < expected.length; at += width) {
    let [dot, a2, e2] = [0, 0, 0];
    for (let i = at; i < at + width; i++) {
      const [a, e] = [actual[i] as number, expected[i] as number];
      dot += a * e;
      a2 += a * a;
      e2 += e * e;
    }
    const cosine = dot / Math.sqrt(a2 * e2);
    if (!(cosine > 0.999 && Math.abs(Math.sqrt(a2 / e2) - 1) < 0.02)) off.push(`row ${at / width}: ${cosine}`);
  }
  expect(off).toEqual([]);
}
