import type { PlacedIntervention } from '../hooks/place.js';
import type { NativeModelInfo } from '../native/addon.js';
import type { PreparedRow } from './pass.js';
import { type PrefixTree, type TreeNode, type Unit, units } from './prefix-tree.js';

/** A row whose cells stay in the cache after its call, so that rows that begin alike need not compute them again. */
export class KeptRow {
  /** Its sequence in the cache. */
  seq = 0;
  /** Whether the cache has held no other since it was empty: its cells are in order, and the empty ones follow. */
  alone = false;
  private readonly units: Unit[];
  /** Units from the start whose cells are in the cache. */
  private held = 0;
  /** Rows of the unit after them, a picture, that are there too. */
  private rest = 0;

  constructor(row: PreparedRow) {
    this.units = units(row);
  }

  /**
   * The nodes from the start of a tree that this row computed alike, up to one whose states or logits are read.
   * Reports of their interventions are filled in.
   *
   * @param info What the model's cache can be cut at depends on. Where it cannot be, all of the row is used or nothing.
   */
  sharedWith(tree: PrefixTree, info: Pick<NativeModelInfo, 'recurrent' | 'slidingWindow'>): TreeNode[] {
    const path: TreeNode[] = [];
    let children = tree.roots;
    for (const { key } of this.units.slice(0, this.held)) {
      const node = children.get(key);
      if (!node || node.readers.length || node.ends.length) break;
      path.push(node);
      children = node.children;
    }
    const branches = path.length < this.held || path.slice(0, -1).some(({ children: { size } }) => size > 1);
    if (branches && !this.isCuttable(info)) return [];
    for (const [i, { interventions, twins }] of path.entries()) {
      const { interventions: before } = this.units[i] as Unit;
      for (const edits of [interventions, ...twins]) {
        for (const [j, edit] of edits.entries()) edit.report.delta = (before[j] as PlacedIntervention).report.delta;
      }
    }
    return path;
  }

  /**
   * Whether what branches off it finds all that it sees. A recurrent state has no past; and once a row is longer than the window,
   * llama.cpp takes its oldest cells for other tokens, even while there are empty ones.
   */
  private isCuttable({ recurrent, slidingWindow }: Pick<NativeModelInfo, 'recurrent' | 'slidingWindow'>): boolean {
    if (recurrent) return false;
    if (slidingWindow === 0 || this.alone) return true;
    return this.units.slice(0, this.held).reduce((n, { nRows }) => n + nRows, this.rest) < slidingWindow;
  }

  /** Counts rows of the prompt that are in the cache. */
  advance(rows: number): void {
    this.rest += rows;
    for (let unit = this.units[this.held]; unit && this.rest >= unit.nRows; unit = this.units[this.held]) {
      this.rest -= unit.nRows;
      this.held++;
    }
  }

  /** All of the prompt is in the cache. */
  complete(): void {
    this.held = this.units.length;
  }

  /** Adds tokens of the answer that were decoded. */
  append(tokens: readonly number[]): void {
    for (const token of tokens) {
      this.units.push({ key: token, token, position: -1, nRows: 1, interventions: [], read: false });
    }
    this.held += tokens.length;
  }
}
