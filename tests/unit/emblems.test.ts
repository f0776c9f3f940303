import { describe, expect, test } from '@jest/globals';
import { readImage } from '../../src/images/image.js';
import { checkTask } from '../../src/tasks/check.js';
import { rivalAnswers } from '../../src/tasks/conflict.js';
import { listTasks, loadTask } from '../../src/tasks/task.js';
import { expectError } from './helpers.js';

const TASKS = ['emblem-figure', 'emblem-color', 'emblem-shape'] as const;
const load = (name: string) => loadTask(name, { pictures: true });

/** Hues of the colour names, degrees. */
const HUES: Record<string, number> = { red: 0, orange: 30, yellow: 50, green: 135, blue: 225, purple: 275 };

describe('emblems', () => {
  test("are shipped tasks beside the paper's, for 30 validation and 100 test items", async () => {
    for (const name of TASKS) {
      const { findings, inputs, inputsWithPicture } = await checkTask(name);
      expect(findings).toEqual([]);
      expect({ inputs, inputsWithPicture }).toEqual({ inputs: 144, inputsWithPicture: 144 });
      expect(await load(name)).toMatchObject({
        name,
        domain: 'emblem',
        instruction: expect.stringMatching(/^The .*emblem:$/),
        question: expect.stringMatching(/^What is .*emblem\?$/),
      });
      expect(await listTasks()).not.toContain(name);
    }
    await expectError(
      () => loadTask('emblem-name'),
      'TASK_INVALID',
      /food-flavor, emblem-color, emblem-figure, emblem-shape/,
    );
  });

  test('have evenly spread answers, and share their items among the tasks', async () => {
    const [figure, color, shape] = await Promise.all(TASKS.map(load));
    for (const [task, each] of [
      [figure, 6],
      [color, 24],
      [shape, 24],
    ] as const) {
      const counts = new Map<string, number>();
      for (const { output } of task?.items ?? []) counts.set(output, (counts.get(output) ?? 0) + 1);
      expect(new Set(counts.values())).toEqual(new Set([each]));
    }
    const { items } = figure as NonNullable<typeof figure>;
    for (const other of [color, shape]) {
      expect(other?.items.map(({ input, image }) => [input, image])).toEqual(
        items.map(({ input, image }) => [input, image]),
      );
      expect(rivalAnswers({ items }, other as NonNullable<typeof other>).size).toBe(144);
    }
  });

  test('are described without their figure and shape being named', async () => {
    for (const name of ['emblem-figure', 'emblem-shape']) {
      for (const { input, output } of (await load(name)).items) {
        expect(input.toLowerCase().split(/[^a-z]+/)).not.toContain(output);
      }
    }
    for (const { input, output } of (await load('emblem-color')).items) expect(input).toContain(output);
  });

  test('show the color that they are said to have', async () => {
    for (const { image, output } of (await load('emblem-color')).items) {
      const { data, width, height } = await readImage(image as string);
      expect([width, height]).toEqual([64, 64]);
      // The hue of the colourful pixels, as a mean direction.
      let [x, y, colourful] = [0, 0, 0];
      for (let i = 0; i < data.length; i += 3) {
        const [r = 0, g = 0, b = 0] = data.subarray(i, i + 3);
        if (Math.max(r, g, b) - Math.min(r, g, b) < 80) continue;
        x += r - (g + b) / 2;
        y += ((g - b) * Math.sqrt(3)) / 2;
        colourful++;
      }
      const hue = (Math.atan2(y, x) * 180) / Math.PI;
      const distance = (name: string) => Math.abs(((hue - (HUES[name] as number) + 540) % 360) - 180);
      expect(Object.keys(HUES).reduce((best, name) => (distance(name) < distance(best) ? name : best))).toBe(output);
      expect(colourful / (64 * 64)).toBeGreaterThan(0.15);
    }
  });

  test('have the outline that they are said to have', async () => {
    // Whether the places at the left edge, in the upper left corner, in the lower left corner and at the middle of the lower
    // edge are covered.
    const OUTLINES: Record<string, string> = {
      circle: 'left bottom',
      square: 'left upper lower bottom',
      diamond: 'left bottom',
      hexagon: 'left bottom',
      triangle: 'lower bottom',
      shield: 'left upper bottom',
    };
    const PLACES = { left: [5, 30], upper: [6, 6], lower: [6, 56], bottom: [32, 56] } as const;
    const widths: Record<string, number[]> = {};
    for (const { image, output } of (await load('emblem-shape')).items) {
      const { data } = await readImage(image as string);
      const covered = (x: number, y: number) =>
        data.subarray((y * 64 + x) * 3, (y * 64 + x) * 3 + 3).some((v) => v < 230);
      const found = Object.entries(PLACES).flatMap(([name, [x, y]]) => (covered(x, y) ? [name] : []));
      expect(found.join(' ')).toBe(OUTLINES[output]);
      // How wide it is a quarter down: this tells apart those that cover the same places.
      const row = Array.from({ length: 64 }, (_, x) => covered(x, 16));
      widths[output] = [...(widths[output] ?? []), row.lastIndexOf(true) - row.indexOf(true)];
    }
    const mean = (name: string) => (widths[name] as number[]).reduce((a, b) => a + b, 0) / 24;
    expect(mean('diamond')).toBeLessThan(mean('hexagon') - 8);
    expect(mean('hexagon')).toBeLessThan(mean('circle') - 3);
  });
});
