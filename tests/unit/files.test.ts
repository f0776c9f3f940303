import { execFileSync } from 'node:child_process';
import { constants, createReadStream } from 'node:fs';
import { type FileHandle, lstat, mkdir, open, readdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
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

  test('takes any name that the system takes', async () => {
    for (const name of ['a'.repeat(255), `${'ü'.repeat(127)}x`, '語'.repeat(85)]) {
      await writeFileAtomic(join(folder, name), name);
      expect(await readFile(join(folder, name), 'utf8')).toBe(name);
    }
  });

  test('names the way out', async () => {
    await expectError(() => writeFileAtomic(join(folder, 'no', 'x'), ''), 'FILE_WRITE', /does not exist: create it/);
    await expectError(() => writeFileAtomic(join(folder, 'b.txt', 'x'), ''), 'FILE_WRITE', /not a folder/);
    await mkdir(join(folder, 'directory'));
    await expectError(() => writeFileAtomic(join(folder, 'directory'), ''), 'FILE_WRITE', /name a file inside/);
    expect((await readdir(folder)).filter((name) => name.endsWith('.tmp'))).toEqual([]);
  });
});

describe('what is not a file', () => {
  const make = (name: string, command: string, ...args: string[]) => {
    const path = join(folder, name);
    execFileSync(command, [...(command === 'mknod' ? [path] : []), ...args, ...(command === 'mknod' ? [] : [path])]);
    return path;
  };

  test('a symbolic link stays, and the file that it names is written, with its permissions', async () => {
    await mkdir(join(folder, 'links'));
    const file = join(folder, 'links', 'target');
    await writeFile(file, 'old', { mode: 0o640 });
    await symlink('target', join(folder, 'links', 'link'));
    await symlink('link', join(folder, 'links', 'chain'));
    await symlink(join('links', 'new'), join(folder, 'dangling'));
    await symlink('circle', join(folder, 'circle'));
    await writeFileAtomic(join(folder, 'links', 'chain'), 'new');
    expect(await readFile(file, 'utf8')).toBe('new');
    expect((await lstat(file)).mode & 0o777).toBe(0o640);
    await writeFileAtomic(join(folder, 'dangling'), 'made');
    expect(await readFile(join(folder, 'links', 'new'), 'utf8')).toBe('made');
    for (const name of ['links/link', 'links/chain', 'dangling']) {
      expect((await lstat(join(folder, name))).isSymbolicLink()).toBe(true);
    }
    await expectError(() => writeFileAtomic(join(folder, 'circle'), ''), 'FILE_WRITE', /form a loop/);
    expect((await readdir(join(folder, 'links'))).sort()).toEqual(['chain', 'link', 'new', 'target']);
  });

  test('a pipe is written through, more than it holds too; one that nobody reads is refused at once', async () => {
    const pipe = make('pipe', 'mkfifo');
    await expectError(() => writeFileAtomic(pipe, 'x'), 'FILE_WRITE', /Nobody reads from it/);
    const large = Buffer.alloc(1 << 20, 'pipe');
    const read = readFile(pipe);
    const kept = await openRead(pipe);
    await writeFileAtomic(pipe, [large, new Uint8Array([1])]);
    await kept.close();
    expect(Buffer.compare(await read, Buffer.concat([large, new Uint8Array([1])]))).toBe(0);
    const leaving = createReadStream(pipe, { highWaterMark: 100 });
    leaving.once('data', () => leaving.destroy());
    const other = await openRead(pipe);
    await expectError(() => writeFileAtomic(pipe, large), 'FILE_WRITE', /reader left/);
    await other.close();
    expect((await lstat(pipe)).isFIFO()).toBe(true);
  });

  test('a device stays and is written to, a disk is refused', async () => {
    if (process.getuid?.() !== 0) return; // only root makes nodes
    const sink = make('sink', 'mknod', 'c', '1', '3');
    const disk = make('disk', 'mknod', 'b', '240', '77');
    await writeFileAtomic(sink, new Uint8Array(100_000));
    expect((await lstat(sink)).isCharacterDevice()).toBe(true);
    await expectError(() => writeFileAtomic(disk, 'x'), 'FILE_WRITE', /It is a disk/);
    expect((await lstat(disk)).isBlockDevice()).toBe(true);
  });

  /** Open as soon as somebody reads; the reader sees the end when this and the writer are closed. */
  async function openRead(pipe: string): Promise<FileHandle> {
    const handle = await open(pipe, constants.O_WRONLY | constants.O_NONBLOCK).catch(() => undefined);
    return handle ?? sleep(10).then(() => openRead(pipe));
  }
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
    await expectError(() => makeFolder(join(folder, 'file')), 'FILE_WRITE', /There is already a file of that name/);
    await expectError(() => makeFolder(join(folder, 'file', 'x')), 'FILE_WRITE', /not a folder/);
    if (process.platform === 'linux') await expectError(() => makeFolder('/proc/x/y'), 'FILE_WRITE', /does not exist/);
  });
});
