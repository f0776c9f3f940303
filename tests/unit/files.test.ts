import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { makeFolder, writeFileAtomic } from '../../src/util/files.js';
import { expectError, temporaryFolder } from './helpers.js';

const folder = await temporaryFolder();

describe('writeFileAtomic', () => {
  test('writes text, bytes and chunks, and replaces what stood there', async () => {
    const path = join(folder, 'a.txt');
    await writeFileAtomic(path, 'grün');
    expect(await readFile(path, 'utf8')).toBe('grün');
    await writeFileAtomic(path, new Uint8Array([1, 2, 3]));
    expect([...(await readFile(path))]).toEqual([1, 2, 3]);
    await writeFileAtomic(path, [new Uint8Array([4]), new Uint8Array(0), new Uint8Array([5, 6])]);
    expect([...(await readFile(path))]).toEqual([4, 5, 6]);
    expect(await readdir(folder)).toEqual(['a.txt']);
  });

  test('leaves the old file and no temporary one when the content fails half-way', async () => {
    const path = join(folder, 'b.txt');
    await writeFile(path, 'old');
    const broken = function* () {
      yield new Uint8Array([1]);
      throw new Error('source failed');
    };
    await expectError(() => writeFileAtomic(path, broken()), 'FILE_WRITE', /b\.txt.*source failed/);
    expect(await readFile(path, 'utf8')).toBe('old');
    expect((await readdir(folder)).filter((name) => name.endsWith('.tmp'))).toEqual([]);
  });

  test('names the way out', async () => {
    await expectError(() => writeFileAtomic(join(folder, 'no', 'x'), ''), 'FILE_WRITE', /does not exist: create it/);
    await expectError(() => writeFileAtomic(join(folder, 'b.txt', 'x'), ''), 'FILE_WRITE', /not a folder/);
    await mkdir(join(folder, 'directory'));
    await expectError(() => writeFileAtomic(join(folder, 'directory'), ''), 'FILE_WRITE', /name a file inside/);
    expect((await readdir(folder)).filter((name) => name.endsWith('.tmp'))).toEqual([]);
  });
});

describe('makeFolder', () => {
  test('makes a folder and those above it, once or again', async () => {
    const path = join(folder, 'x', 'y', 'z');
    await makeFolder(path);
    await makeFolder(path);
    await writeFile(join(path, 'a'), '');
    await makeFolder('.');
  });

  test('refuses a file in its way, and ends where no folder can be made', async () => {
    await writeFile(join(folder, 'file'), '');
    await expectError(() => makeFolder(join(folder, 'file')), 'FILE_WRITE', /There is a file of that name/);
    await expectError(() => makeFolder(join(folder, 'file', 'x')), 'FILE_WRITE', /not a folder/);
    if (process.platform === 'linux') await expectError(() => makeFolder('/proc/x/y'), 'FILE_WRITE', /does not exist/);
  });
});
