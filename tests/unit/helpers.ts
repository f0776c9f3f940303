import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect } from '@jest/globals';
import { isText, textOf } from '../../src/prompt/text-parts.js';
import type { PromptPart } from '../../src/prompt/types.js';
import { XpatchError, type XpatchErrorCode } from '../../src/util/errors.js';

/** Runs `action` and checks that it fails with this code and a message that matches. */
export async function expectError(action: () => unknown, code: XpatchErrorCode, message: RegExp): Promise<void> {
  const error = await Promise.resolve()
    .then(action)
    .then(
      () => undefined,
      (reason: unknown) => reason,
    );
  expect(error).toBeInstanceOf(XpatchError);
  expect({ code: (error as XpatchError).code, message: (error as XpatchError).message }).toEqual({
    code,
    message: expect.stringMatching(message),
  });
}

/** The parts of a prompt with texts and literals beside each other in one. */
export function joined(parts: readonly PromptPart[]): PromptPart[] {
  const all: PromptPart[] = [];
  for (const part of parts) {
    const last = all.at(-1);
    if (isText(part) && typeof last === 'string') all[all.length - 1] = last + textOf(part);
    else all.push(isText(part) ? textOf(part) : part);
  }
  return all;
}

/** A folder of its own for a test file, removed afterwards. */
export async function temporaryFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'xpatch-test-'));
  afterAll(() => rm(folder, { recursive: true, force: true }));
  return folder;
}
