import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { PACKAGE_ROOT } from '../util/package-root.js';

/** Folder of the shipped tasks. */
export const TASKS_FOLDER = join(PACKAGE_ROOT, 'data', 'tasks');

/** What data/tasks/index.json says about one shipped task. */
export interface TaskIndexEntry {
  readonly domain: string;
  readonly instruction: string;
  /** The task as a question about the query, as the task-conflict experiment asks it. */
  readonly question: string;
  readonly taskWord: string;
}

/** Shipped tasks by name, in the paper's order. The file is ours and tested, so it is not validated again here. */
export async function readTaskIndex(): Promise<ReadonlyMap<string, TaskIndexEntry>> {
  const json = JSON.parse(await readFile(join(TASKS_FOLDER, 'index.json'), 'utf8')) as Record<string, TaskIndexEntry>;
  return new Map(Object.entries(json));
}
