import type { PlacedIntervention } from '../hooks/place.js';
import type { Segment } from '../prompt/prompt.js';
import { groupBy } from '../util/group.js';
import type { PreparedRow } from './pass.js';

/** A token or a whole picture in the tree, shared by every row that goes through it. */
export interface TreeNode {
  token: number;
  image?: Extract<Segment, { kind: 'image' }>;
  /** Index of its first row in the prompt. */
  position: number;
  /** Value of the model's position counter at its first row (differs from `position` with M-RoPE pictures). */
  counter: number;
  nRows: number;
  interventions: PlacedIntervention[];
  /** Which of the tree's rows go through here, in the order in which they were added. */
  rows: number[];
  /** Rows that go through here and read states or logits of it. */
  readers: PreparedRow[];
  /** Rows that end here. */
  ends: PreparedRow[];
  children: Map<UnitKey, TreeNode>;
  /** Those that follow the same beginning, this one among them. */
  siblings: Map<UnitKey, TreeNode>;
  /** Edits of the rows that share this node, to copy the first one's reports to. */
  twins: PlacedIntervention[][];
}

/**
 * The prompts of a pass as a prefix tree: what rows have in common, up to and including their interventions, is computed
 * once. A sweep over layers or vectors at the last token shares everything before it.
 */
export class PrefixTree {
  readonly roots = new Map<UnitKey, TreeNode>();
  /** KV cells that the tree needs. */
  cells = 0;
  readonly rows: PreparedRow[] = [];
  /** The last node of each of them. */
  readonly lastNodes: TreeNode[] = [];
  /** The row that was measured last, which is usually added next: its units are many. */
  private measured: { row: PreparedRow; units: Unit[] } | undefined;

  /** Cells that a row would add. */
  cost(row: PreparedRow): number {
    let children = this.roots;
    let shared = 0;
    this.measured = { row, units: units(row) };
    for (const { key, nRows } of this.measured.units) {
      const node = children.get(key);
      if (!node) break;
      shared += nRows;
      children = node.children;
    }
    return row.prompt.length - shared;
  }

  add(row: PreparedRow): void {
    const index = this.rows.push(row) - 1;
    let children = this.roots;
    let last: TreeNode | undefined;
    let counter = 0;
    const own = this.measured?.row === row ? this.measured.units : units(row);
    this.measured = undefined;
    for (const unit of own) {
      let node = children.get(unit.key);
      if (!node) {
        const { token, image, position, nRows, interventions } = unit;
        node = {
          token,
          image,
          position,
          counter,
          nRows,
          interventions,
          rows: [],
          readers: [],
          ends: [],
          children: new Map(),
          siblings: children,
          twins: [],
        };
        children.set(unit.key, node);
        this.cells += nRows;
      } else if (unit.interventions.length) {
        node.twins.push(unit.interventions);
      }
      node.rows.push(index);
      if (unit.read) node.readers.push(row);
      counter += unit.image ? unit.image.nPositions : 1;
      children = node.children;
      last = node;
    }
    if (!last) throw new Error('A row without positions.');
    last.ends.push(row);
    this.lastNodes.push(last);
  }
}

/** A token without edits is its own key; anything else has a text. */
type UnitKey = number | string;

/** A token or a whole picture of a row. */
export interface Unit {
  key: UnitKey;
  token: number;
  image?: Extract<Segment, { kind: 'image' }>;
  position: number;
  nRows: number;
  interventions: PlacedIntervention[];
  read: boolean;
}

const NO_EDITS: PlacedIntervention[] = [];

/** The tokens and pictures of a row. Equal keys at equal places mean equal computation. */
export function units(row: PreparedRow): Unit[] {
  const edits = groupBy(row.interventions, ({ position }) => position);
  const reads = new Set([...row.reads.flatMap(({ states }) => states.positions), ...(row.logits?.positions ?? [])]);
  if (row.topK > 0) reads.add(row.prompt.length - 1);

  const list: Unit[] = [];
  let position = 0;
  for (const segment of row.prompt.segments) {
    if (segment.kind === 'image') {
      const { nRows } = segment;
      const places = Array.from({ length: nRows }, (_, i) => position + i);
      const interventions = places.flatMap((p) => edits.get(p) ?? NO_EDITS);
      const key = segment.key + interventions.map(fingerprint).join('');
      const read = places.some((p) => reads.has(p));
      list.push({ key, token: -1, image: segment, position, nRows, interventions, read });
      position += nRows;
    } else {
      for (const token of segment.tokens) {
        const interventions = edits.get(position) ?? NO_EDITS;
        const key = interventions.length ? token + interventions.map(fingerprint).join('') : token;
        const read = reads.has(position);
        list.push({ key, token, image: undefined, position, nRows: 1, interventions, read });
        position += 1;
      }
    }
  }
  return list;
}

const valueIds = new WeakMap<PlacedIntervention, string>();

/** Equal for interventions with equal effect. Values are compared by content. */
function fingerprint(edit: PlacedIntervention): string {
  let id = valueIds.get(edit);
  if (id === undefined) {
    const value = edit.value
      ? Buffer.from(edit.value.buffer, edit.value.byteOffset, edit.value.byteLength).toString('latin1')
      : '';
    id = `|${edit.kind},${edit.position},${value}`;
    valueIds.set(edit, id);
  }
  return id;
}
