// What stands around pictures in a prompt, for models whose encoder leaves that to the prompt builder.
import { expect, test } from '@jest/globals';
import { frameParts } from '../../src/prompt/framing.js';
import type { PromptPart } from '../../src/prompt/types.js';

const image = (name: string) => ({ image: name });
const MANTIS = { begin: 90, end: 91, format: 'mantis' } as const;
const SHARED = { begin: 80, end: 80 };
const BOS = { bosToken: 1, addsBos: true };

/** Tokens as numbers, pictures as <name>, marks as #name. */
const shown = (parts: readonly PromptPart[]) =>
  parts.flatMap((part): unknown[] => {
    if (typeof part === 'string') return part === '' ? [] : [part];
    if ('tokens' in part) return Array.from(part.tokens);
    if ('image' in part) return [`<${part.image}>`];
    return 'mark' in part ? [`#${part.mark}`] : [part];
  });

test('a prompt without pictures stays as it is', () => {
  const parts = ['Q:', { mark: 'delimiter' }];
  expect(frameParts(parts, MANTIS, BOS)).toBe(parts);
});

test('Mantis: labels from 0, a BOS for every text that is not empty', () => {
  const parts = ['Q:', image('a'), '\nA:b\n\nQ:', image('c'), '\nA:', { mark: 'delimiter' }];
  expect(shown(frameParts(parts, MANTIS, { bosToken: 1, addsBos: false }))).toEqual([
    ...[1, 'Q:', 'image 0: ', 90, '<a>', 91],
    ...[1, '\nA:b\n\nQ:', 'image 1: ', 90, '<c>', 91],
    ...[1, '\nA:', '#delimiter'],
  ]);
  expect(shown(frameParts([image('a'), image('b')], MANTIS, BOS))).toEqual([
    ...[1, 'image 0: ', 90, '<a>', 91],
    ...[1, 'image 1: ', 90, '<b>', 91],
  ]);
});

test('Mantis: token ids at the start of a text bring what they want themselves', () => {
  const parts = [{ tokens: [7] }, 'x', image('a'), { tokens: [8] }];
  expect(shown(frameParts(parts, MANTIS, BOS))).toEqual([7, 'x', 'image 0: ', 90, '<a>', 91, 8]);
});

test('Mantis: a mark right behind a picture is the token that closes it', () => {
  const parts = [{ mark: 'start' }, 'x', image('a'), { mark: 'picture' }, 'y', { mark: 'end' }];
  const expected = [1, '#start', 'x', 'image 0: ', 90, '<a>', 91, '#picture', 1, 'y', '#end'];
  expect(shown(frameParts(parts, MANTIS, BOS))).toEqual(expected);
});

test('one token on both sides: pictures next to each other share it, one BOS in front', () => {
  const parts = [image('a'), { mark: 'm' }, '', image('b'), 'x', image('c'), image('d')];
  expect(shown(frameParts(parts, SHARED, BOS))).toEqual([
    ...[1, 80, '<a>', 80, '#m', '<b>', 80],
    ...['x', 80, '<c>', 80, '<d>', 80],
  ]);
  expect(shown(frameParts([image('a')], SHARED, { bosToken: 1, addsBos: false }))).toEqual([80, '<a>', 80]);
  expect(shown(frameParts([{ tokens: [5] }, image('a')], SHARED, BOS))).toEqual([5, 80, '<a>', 80]);
});
