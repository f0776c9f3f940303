// Whatever path is named, reading it comes to an end: with the bytes, or with one error that says what is there.
import { spawn, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from '@jest/globals';
import { type FileKind, openRegular, readWhole, readWholeSync } from '../../src/util/read-file.js';
import { expectError } from './helpers.js';

const folder = mkdtempSync(join(tmpdir(), 'xpatch-read-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const place = (name: string) => join(folder, name);
const KIND: FileKind = { what: 'the thing', maxBytes: 100_000, code: 'TASK_INVALID' };
const PIPE: FileKind = { ...KIND, pipe: true };

const made: [string, RegExp][] = [];
mkdirSync(place('folder'));
made.push(['folder', /the thing .*folder: it is a folder/]);
if (spawnSync('mkfifo', [place('fifo')]).status === 0)
  made.push(['fifo', /it is a pipe, but it is read more than once/]);
// As root, outside of most containers; a device of our own like /dev/zero.
if (spawnSync('mknod', [place('zero'), 'c', '1', '5']).status === 0)
  made.push(['zero', /it is a device, which has no end/]);
const server = createServer().listen(place('socket'));
afterAll(() => void server.close());
made.push(['socket', /it is a socket/]);

describe('what is not a file', () => {
  test.each(made)('such as a %s is refused before it is read', async (name, message) => {
    await expectError(() => readWhole(place(name), KIND), 'TASK_INVALID', message);
    await expectError(() => openRegular(place(name), PIPE), 'TASK_INVALID', message);
    await expectError(async () => readWholeSync(place(name), KIND), 'TASK_INVALID', message);
    if (name !== 'fifo') await expectError(() => readWhole(place(name), PIPE), 'TASK_INVALID', message);
  });
});

test('what cannot be read is told in words, once', async () => {
  for (const [name, why] of [
    ['none', 'there is no such file'],
    ['folder/none/none', 'there is no such file'],
    ['x'.repeat(300), 'the name is too long for this system'],
    ['a\0b', 'no file can have this name'],
    ['plain/none', 'a part of its path is not a folder'],
  ] as const) {
    writeFileSync(place('plain'), '');
    const message = `Cannot read the thing ${place(name)}: ${why}. Check the path.`;
    for (const read of [readWhole, openRegular, async (path: string, kind: FileKind) => readWholeSync(path, kind)]) {
      await expect(read(place(name), KIND)).rejects.toMatchObject({ code: 'FILE_NOT_FOUND', message });
    }
  }
});

describe('files', () => {
  test.each([0, 1, 4096, 4097, 99_999, 100_000])('of %i bytes are read whole', async (size) => {
    const bytes = Buffer.alloc(size, 'xpatch');
    writeFileSync(place('file'), bytes);
    expect((await readWhole(place('file'), KIND)).equals(bytes)).toBe(true);
    expect(readWholeSync(place('file'), KIND).equals(bytes)).toBe(true);
  });

  test('that are longer than their kind can be are refused unread, however long', async () => {
    for (const size of [100_001, 2 ** 42]) {
      writeFileSync(place('long'), '');
      truncateSync(place('long'), size);
      await expectError(() => readWhole(place('long'), KIND), 'TASK_INVALID', new RegExp(`it has ${size} bytes`));
      await expectError(
        async () => readWholeSync(place('long'), KIND),
        'TASK_INVALID',
        new RegExp(`it has ${size} bytes`),
      );
    }
  });

  test('that are not there, or behind one that is not a folder, are FILE_NOT_FOUND', async () => {
    writeFileSync(place('file'), '');
    for (const name of ['missing', 'file/inside', 'a\0b']) {
      await expectError(() => readWhole(place(name), KIND), 'FILE_NOT_FOUND', /Cannot read the thing/);
      await expectError(async () => readWholeSync(place(name), KIND), 'FILE_NOT_FOUND', /Cannot read the thing/);
    }
  });
});

describe('a pipe', () => {
  const say = (script: string) => spawn('sh', ['-c', `{ ${script}; } > '${place('fifo')}'`], { stdio: 'ignore' });

  test('is read to its end where it is read once', async () => {
    say('printf abc; sleep 0.1; printf def');
    expect((await readWhole(place('fifo'), PIPE)).toString()).toBe('abcdef');
  });

  test('that says too much is left', async () => {
    say('yes 2>&-');
    await expectError(() => readWhole(place('fifo'), PIPE), 'TASK_INVALID', /more than 100000 bytes/);
  });

  test('that nobody writes to can be given up', async () => {
    spawnSync('mkfifo', [place('silent')]);
    const controller = new AbortController();
    setTimeout(() => controller.abort(new Error('enough')), 50);
    await expectError(() => readWhole(place('silent'), PIPE, controller.signal), 'ABORTED', /not read to its end/);
  });
});
