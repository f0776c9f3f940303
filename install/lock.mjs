// Two builds in one folder would write over each other (npm and a test, two terminals).
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

function isAlive(pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error.code === 'EPERM';
  }
}

/** Runs `action` while holding the lock file; waits for a live holder, takes over from a dead one. */
export async function withLock(path, action) {
  for (;;) {
    mkdirSync(dirname(path), { recursive: true }); // a holder may clear the folder away when it is done
    try {
      writeFileSync(path, String(process.pid), { flag: 'wx' });
      break;
    } catch (error) {
      if (error.code !== 'EEXIST') throw error;
    }
    let holder;
    try {
      holder = Number(readFileSync(path, 'utf8'));
    } catch {
      continue; // released between the two calls
    }
    // an empty file is one whose holder is just writing it
    if (holder > 0 && !isAlive(holder)) rmSync(path, { force: true });
    else await sleep(200);
  }
  try {
    return await action();
  } finally {
    rmSync(path, { force: true });
  }
}
