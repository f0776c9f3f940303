import { describe, expect, test } from '@jest/globals';
import { rivalAnswers, rivalTask } from '../../src/tasks/conflict.js';
import { listTasks, loadTask } from '../../src/tasks/task.js';
import { expectError } from './helpers.js';

describe('conflict of tasks', () => {
  test('every shipped task has a rival of its domain that asks a question', async () => {
    const rivals = [];
    for (const name of await listTasks()) rivals.push([name, await rivalTask(await loadTask(name))] as const);
    expect(rivals.map(([name, rival]) => `${name} ${rival.name}: ${rival.question}`)).toEqual([
      'country-capital country-currency: What is the last word of the official currency of the country?',
      'country-currency country-capital: What is the capital city of the country?',
      'animal-latin animal-young: What is the term for the baby of the animal?',
      "animal-young animal-latin: What is the scientific name of the animal's species in latin?",
      'food-color food-flavor: What is the flavor descriptor of the food?',
      'food-flavor food-color: What is the color of the food?',
    ]);
  });

  test('rival answers of the shipped tasks', async () => {
    const [color, flavor] = [await loadTask('food-color'), await loadTask('food-flavor')];
    const answers = rivalAnswers(color, flavor);
    expect(answers.get('lemon')).toBe('sour');
    expect(rivalAnswers(flavor, color).get('lemon')).toBe('yellow');
    expect(answers.size).toBe(150);
  });

  test('leave out what the rival lacks or answers alike; the first of equal inputs counts', () => {
    const items = (...pairs: [string, string][]) => ({ items: pairs.map(([input, output]) => ({ input, output })) });
    const answers = rivalAnswers(
      items(['a', 'red'], ['b', 'red'], ['c', 'orange'], ['d', 'green'], ['d', 'sour']),
      items(['a', 'sweet'], ['c', 'orange peel'], ['d', 'sour'], ['d', 'green'], ['e', 'salty']),
    );
    expect([...answers]).toEqual(expect.arrayContaining([['a', 'sweet']]));
    expect(answers.get('d')).toBe('sour');
    expect([...answers.keys()].sort()).toEqual(['a', 'd']);
  });

  test('a task of its own has no rival', async () => {
    await expectError(() => rivalTask({ name: 'mine', domain: 'mine' }), 'TASK_INVALID', /mine has no other task/);
    await expectError(() => rivalTask({ name: 'mine', domain: 'food' }), 'TASK_INVALID', /mine has no other task/);
  });
});
