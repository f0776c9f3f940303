import type { PlacedIntervention, PreparedRow } from './pass.js';
import type { Segment } from './prompt.js';

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
  /** Rows that go through here and read states or logits of it. */
  readers: PreparedRow[];
  /** Rows that end here. */
  ends: PreparedRow[];
  children: Map<string, TreeNode>;
  /** Edits of the rows that share this node, to copy the first one's reports to. */
  twins: PlacedIntervention[][];
}

/**
 * The prompts of a pass as a prefix tree: what rows have in common, up to and including their interventions, is computed
 * once. A sweep over layers or vectors at the last token shares everything before it.
 */
export class PrefixTree {
  readonly roots = new Map<string, TreeNode>();
  /** KV cells and sequences that the tree needs. */
  cells = 0;
  leaves = 0;

  /** Cells and sequences that a row would add. */
  cost(row: PreparedRow): { cells: number; leaves: number } {
    let children = this.roots;
    let shared = 0;
    for (const { key, nRows } of units(row)) {
      const node = children.get(key);
      if (!node) break;
      shared += nRows;
      children = node.children;
    }
    return { cells: row.prompt.length - shared, leaves: 1 };
  }

  add(row: PreparedRow): void {
    this.leaves += 1;
    let children = this.roots;
    let last: TreeNode | undefined;
    let counter = 0;
    for (const unit of units(row)) {
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
          readers: [],
          ends: [],
          children: new Map(),
          twins: [],
        };
        children.set(unit.key, node);
        this.cells += nRows;
      } else {
        node.twins.push(unit.interventions);
      }
      if (unit.read) node.readers.push(row);
      counter += unit.image ? unit.image.nPositions : 1;
      children = node.children;
      last = node;
    }
    last?.ends.push(row);
  }
}

interface Unit {
  key: string;
  token: number;
  image?: Extract<Segment, { kind: 'image' }>;
  position: number;
  nRows: number;
  interventions: PlacedIntervention[];
  read: boolean;
}

/** The tokens and pictures of a row. Equal keys at equal places mean equal computation. */
function* units(row: PreparedRow): Generator<Unit> {
  const edits = new Map<number, PlacedIntervention[]>();
  for (const edit of row.interventions) {
    const list = edits.get(edit.position);
    if (list) list.push(edit);
    else edits.set(edit.position, [edit]);
  }
  const reads = new Set([...(row.states?.positions ?? []), ...(row.logits?.positions ?? [])]);
  if (row.topK > 0) reads.add(row.prompt.length - 1);

  let position = 0;
  for (const segment of row.prompt.segments) {
    const isImage = segment.kind === 'image';
    const nRows = isImage ? segment.nRows : 1;
    for (let i = 0; i < (isImage ? 1 : segment.tokens.length); i++) {
      const interventions: PlacedIntervention[] = [];
      let read = false;
      for (let p = position; p < position + nRows; p++) {
        const here = edits.get(p);
        if (here) interventions.push(...here);
        read ||= reads.has(p);
      }
      const token = isImage ? -1 : (segment.tokens[i] as number);
      const key = (isImage ? segment.key : String(token)) + interventions.map(fingerprint).join('');
      yield { key, token, image: isImage ? segment : undefined, position, nRows, interventions, read };
      position += nRows;
    }
  }
}

const valueIds = new WeakMap<PlacedIntervention, string>();

/** Equal for interventions with equal effect. Values are compared by content. */
function fingerprint(edit: PlacedIntervention): string {
  let id = valueIds.get(edit);
  if (id === undefined) {
    const value = edit.value
      ? Buffer.from(edit.value.buffer, edit.value.byteOffset, edit.value.byteLength).toString('latin1')
      : '';
    id = `|${edit.hook},${edit.layer},${edit.position},${edit.op},${edit.factor},${value}`;
    valueIds.set(edit, id);
  }
  return id;
}
