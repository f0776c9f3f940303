import type { PlacedIntervention, RowEdit } from '../hooks/place.js';
import type { DecodeJob, NativeCapture, NativePatch } from '../native/addon.js';
import type { PreparedRow, Read } from './pass.js';
import type { PrefixTree, TreeNode } from './prefix-tree.js';

/** What the executor needs of a context. */
export interface DecodeTarget {
  nUbatch: number;
  nEmbd: number;
  nEmbdInput: number;
  positionsPerEmbedding: 1 | 4;
  /** @throws {XpatchError} ABORTED if the call was aborted */
  requireAlive(): void;
  decode(job: DecodeJob): Promise<void>;
}

/** Where a row's prompt ended: its sequence in the KV cache and the next value of its position counter. */
export interface RowEnd {
  seq: number;
  counter: number;
}

/** One row of a batch: row `offset` of a node. */
interface BatchRow {
  node: TreeNode;
  offset: number;
}

/** A node that can be decoded, what comes before it being done or in the same batch; from row `offset` on. */
type Ready = BatchRow;

/** Cells that are in the cache already. */
export interface HeldCells {
  /** Nodes from the start of the tree, and the sequence that holds each. */
  nodes: ReadonlyMap<TreeNode, number>;
  /** All sequences in the cache. They end here. */
  sequences: readonly number[];
}

/**
 * Decodes a prefix tree. Every row has a sequence of the KV cache, and cells that rows share belong to all of theirs, so a batch can hold a
 * token and what follows it: tokens of all branches go into as few batches as they fit in, rows of pictures into batches of
 * their own.
 *
 * A batch never exceeds n_ubatch, so one decode is one ubatch and row i of the batch is row i of every tensor; this is the
 * one place that maps (row, position) to batch rows.
 */
export async function runTree(
  tree: PrefixTree,
  target: DecodeTarget,
  options: {
    onRows: (rows: number) => void;
    /** Sequence of the first row; those of the others follow. */
    firstSeq: number;
    held: HeldCells;
    /** Whether a row reads or changes attention scores or patterns, for which the addon follows where positions are stored. */
    attends: boolean;
    /** Blocks that are to be computed. Defaults to all. */
    blocks?: number | undefined;
  },
): Promise<Map<PreparedRow, RowEnd>> {
  const { held, firstSeq } = options;
  let ready = readyAfter(tree.roots, held.nodes);
  let before: Pick<DecodeJob, 'clear' | 'copies' | 'cuts'> = takeOver(tree, held, firstSeq);
  while (ready.length) {
    const { batch, rest } = ready.some(({ node }) => !node.image)
      ? tokenBatch(ready, target.nUbatch)
      : imageBatch(ready, target.nUbatch);
    const job = { ...buildJob(batch, target, firstSeq), ...before };
    if (options.blocks !== undefined) job.blocks = options.blocks;
    if (options.attends) job.places = Int32Array.from(batch, ({ node, offset }) => node.position + offset);
    before = {};
    await target.decode(job);
    collect(job, batch);
    options.onRows(batch.length);
    ready = rest;
  }
  return new Map(
    tree.rows.map((row, i) => [row, { seq: firstSeq + i, counter: counterBehind(tree.lastNodes[i] as TreeNode) }]),
  );
}

function readyAfter(siblings: TreeNode['children'], held: HeldCells['nodes']): Ready[] {
  const ready: Ready[] = [];
  const open = [siblings];
  for (let nodes = open.pop(); nodes; nodes = open.pop()) {
    for (const node of nodes.values()) {
      if (held.has(node)) open.push(node.children);
      else ready.push({ node, offset: 0 });
    }
  }
  return ready;
}

/** What the cache has to do before the first batch, so that each row's sequence holds what is held of the row and nothing else. */
function takeOver(tree: PrefixTree, { nodes, sequences }: HeldCells, firstSeq: number) {
  if (nodes.size === 0) return { clear: true };
  const sources = new Map<number, { seq: number; counter: number }>();
  for (const [node, seq] of nodes) {
    const counter = counterBehind(node);
    for (const row of node.rows) if (counter > (sources.get(row)?.counter ?? 0)) sources.set(row, { seq, counter });
  }
  const isNew = (seq: number) => seq >= firstSeq && seq < firstSeq + tree.rows.length;
  return {
    copies: Int32Array.from(
      [...sources].flatMap(([row, { seq, counter }]) => (isNew(seq) ? [] : [seq, firstSeq + row, 0, counter])),
    ),
    // The only row of a recurrent model goes on in its place.
    cuts: Int32Array.from(sequences.flatMap((seq) => [seq, isNew(seq) ? (sources.get(0)?.counter as number) : 0])),
  };
}

/** The model's position counter after a node. */
function counterBehind({ counter, image }: TreeNode): number {
  return counter + (image ? image.nPositions : 1);
}

interface Selection {
  batch: BatchRow[];
  /** What is ready after it. */
  rest: Ready[];
}

function followers({ children }: TreeNode): Ready[] {
  return Array.from(children.values(), (node) => ({ node, offset: 0 }));
}

function tokenBatch(ready: readonly Ready[], limit: number): Selection {
  const batch: BatchRow[] = [];
  const rest: Ready[] = [];
  const open = [...ready].reverse();
  for (let next = open.pop(); next; next = open.pop()) {
    if (next.node.image || batch.length >= limit) {
      rest.push(next);
      continue;
    }
    batch.push(next);
    for (const follower of followers(next.node).reverse()) open.push(follower);
  }
  return { batch, rest };
}

function imageBatch(ready: readonly Ready[], limit: number): Selection {
  const batch: BatchRow[] = [];
  const rest: Ready[] = [];
  let closed = false;
  for (const { node, offset } of ready) {
    // Rows that see each other need a batch of their own kind of attention; one picture at a time.
    const alone = node.image?.nonCausal === true;
    if (closed || batch.length >= limit || (alone && batch.length)) {
      rest.push({ node, offset });
      continue;
    }
    const n = Math.min(node.nRows - offset, limit - batch.length);
    for (let i = 0; i < n; i++) batch.push({ node, offset: offset + i });
    if (offset + n < node.nRows) rest.push({ node, offset: offset + n });
    else for (const follower of followers(node)) rest.push(follower);
    closed = alone;
  }
  return { batch, rest };
}

function buildJob(batch: BatchRow[], target: DecodeTarget, firstSeq: number): DecodeJob {
  const n = batch.length;
  const outputs = new Uint8Array(n);
  const captures = new Map<Read, { rows: number[]; offsets: number[] }[]>(); // one a layer
  const logits = new Map<PreparedRow, { rows: number[]; offsets: number[] }>();
  const topRows: { row: number; k: number }[] = [];

  batch.forEach(({ node, offset }, i) => {
    const position = node.position + offset;
    for (const edit of node.interventions) {
      if (edit.position === position && edit.trimmed) outputs[i] = 1;
    }
    for (const reader of node.readers) {
      for (const read of reader.reads) {
        const p = read.index.get(position);
        if (p === undefined) continue;
        const items = captures.get(read) ?? read.parts.map(() => ({ rows: [], offsets: [] }));
        captures.set(read, items);
        read.parts.forEach((part, l) => {
          // The last block keeps only rows whose logits were asked for.
          if (part.trimmed) outputs[i] = 1;
          const item = items[l] as (typeof items)[0];
          item.rows.push(i);
          item.offsets.push((l * read.states.positions.length + p) * part.width);
        });
      }
      const g = reader.logitIndex.get(position);
      if (g !== undefined && reader.logits) {
        outputs[i] = 1;
        const item = logits.get(reader) ?? { rows: [], offsets: [] };
        logits.set(reader, item);
        item.rows.push(i);
        item.offsets.push(g * reader.logits.shape[1]);
      }
      if (reader.topK > 0 && position === reader.prompt.length - 1) {
        outputs[i] = 1;
        const known = topRows.find((t) => t.row === i);
        if (known) known.k = Math.max(known.k, reader.topK);
        else topRows.push({ row: i, k: reader.topK });
      }
    }
  });

  const job: DecodeJob = {
    outputs,
    sequences: Int32Array.from(batch.flatMap(({ node }) => node.rows.map((row) => firstSeq + row))),
    sequenceCounts: Int32Array.from(batch, ({ node }) => node.rows.length),
  };
  const image = batch[0]?.node.image;
  if (image) {
    fillEmbeddings(job, batch, target);
    job.nonCausal = image.nonCausal;
  } else {
    job.tokens = Int32Array.from(batch, (row) => row.node.token);
    job.positions = Int32Array.from(batch, (row) => row.node.counter);
    const same = sameRows(batch);
    if (same.some((first, i) => first !== i)) job.same = same;
  }
  if (captures.size) {
    job.captures = Array.from(captures, ([{ states, parts }, items]) =>
      items.map(({ rows, offsets }, l): NativeCapture => {
        const { hook, layer, spans, keys } = parts[l] as Read['parts'][0];
        const places = { rows: Int32Array.from(rows), offsets: Float64Array.from(offsets) };
        return { hook, layer, spans, keys, ...places, out: states.data };
      }),
    ).flat();
  }
  const patches = buildPatches(batch);
  if (patches.length) job.patches = patches;
  if (logits.size) {
    job.logits = Array.from(logits, ([row, { rows, offsets }]) => ({
      rows: Int32Array.from(rows),
      offsets: Float64Array.from(offsets),
      out: (row.logits as NonNullable<PreparedRow['logits']>).data,
    }));
  }
  if (topRows.length) {
    const k = Math.max(...topRows.map((t) => t.k));
    job.top = {
      rows: Int32Array.from(topRows, (t) => t.row),
      k,
      ids: new Int32Array(topRows.length * k),
      logits: new Float32Array(topRows.length * k),
      logsumexp: new Float32Array(topRows.length),
    };
  }
  return job;
}

/** Of each row of tokens the first that differs from it by interventions alone. */
function sameRows(batch: BatchRow[]): Int32Array {
  const firsts = new Map<TreeNode['siblings'], Map<number, number>>();
  return Int32Array.from(batch, ({ node }, i) => {
    const known = firsts.get(node.siblings) ?? new Map<number, number>();
    firsts.set(node.siblings, known);
    const first = known.get(node.token) ?? i;
    known.set(node.token, first);
    return first;
  });
}

function fillEmbeddings(job: DecodeJob, batch: BatchRow[], target: DecodeTarget): void {
  const n = batch.length;
  const width = target.nEmbdInput;
  const dims = target.positionsPerEmbedding;
  job.embeddings = new Float32Array(n * width);
  job.positions = new Int32Array(n * dims);
  for (const [i, { node, offset }] of batch.entries()) {
    const image = node.image as NonNullable<TreeNode['image']>;
    job.embeddings.set(image.embeddings.subarray(offset * width, (offset + 1) * width), i * width);
    for (let d = 0; d < dims; d++) {
      const relative = dims === 1 ? offset : (image.positions[d * image.nRows + offset] as number);
      // The fourth dimension of M-RoPE is not a place in the prompt.
      job.positions[d * n + i] = d === 3 ? relative : node.counter + relative;
    }
  }
}

/** Edits of a batch, grouped so that one native patch serves all rows with the same operation at the same place. */
function buildPatches(batch: BatchRow[]): (NativePatch & { edits: PlacedIntervention[] })[] {
  const groups = new Map<string, { order: number; rows: number[]; edits: PlacedIntervention[] }>();
  batch.forEach(({ node, offset }, i) => {
    let order = 0;
    for (const edit of node.interventions) {
      if (edit.position !== node.position + offset) continue;
      const key = `${order},${edit.kind}`;
      const group = groups.get(key) ?? { order, rows: [], edits: [] };
      group.rows.push(i);
      group.edits.push(edit);
      groups.set(key, group);
      order++;
    }
  });
  // In the order of each row's own list: two edits of one row do not commute.
  return Array.from(groups.values())
    .sort((a, b) => a.order - b.order)
    .map(({ rows, edits }) => ({ ...nativePatch(edits, rows), edits }));
}

/** Edits of one kind at rows of a batch, as the addon takes them. */
export function nativePatch(edits: readonly RowEdit[], rows: readonly number[]): NativePatch {
  const [{ hook, layer, spans, keys, op, factor, upper, width, value }] = edits as [RowEdit];
  const values = new Float32Array(value ? rows.length * width : 0);
  if (value) edits.forEach((edit, i) => void values.set(edit.value as Float32Array, i * width));
  const place = { hook, layer, spans, keys, rows: Int32Array.from(rows) };
  return { ...place, op, factor, upper, values, deltas: new Float32Array(rows.length) };
}

/** Hands the results of a decode to the rows that asked for them. */
function collect(job: DecodeJob, batch: BatchRow[]): void {
  for (const patch of (job.patches ?? []) as ReturnType<typeof buildPatches>) {
    patch.edits.forEach((edit, i) => {
      edit.report.delta = patch.deltas[i] as number;
    });
  }
  for (const { node } of batch) {
    for (const twin of node.twins) {
      twin.forEach((edit, i) => {
        edit.report.delta = (node.interventions[i] as PlacedIntervention).report.delta;
      });
    }
  }
  const { top } = job;
  top?.rows.forEach((row, i) => {
    const { node, offset } = batch[row] as BatchRow;
    for (const reader of node.readers) {
      if (reader.topK === 0 || node.position + offset !== reader.prompt.length - 1) continue;
      reader.top = {
        ids: top.ids.slice(i * top.k, i * top.k + reader.topK),
        logits: top.logits.slice(i * top.k, i * top.k + reader.topK),
        logsumexp: top.logsumexp[i] as number,
      };
    }
  });
}
