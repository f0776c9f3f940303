import type { PlacedIntervention, PreparedRow } from './pass.js';
import { type Unit, units } from './prefix-tree.js';

/** A row whose cells stay in the cache behind its call, so that a row that begins alike need not compute them again. */
export class KeptRow {
  private readonly units: Unit[];
  /** Units from the start whose cells are in the cache. */
  private held = 0;
  /** Rows of the unit behind them, a picture, that are there too. */
  private rest = 0;

  constructor(row: PreparedRow) {
    this.units = units(row);
  }

  /**
   * Takes over what the cache holds of `before` and this row computes alike; the rest of it is to be cut away.
   *
   * @param cuttable Whether the model's cache can be cut; otherwise all of it is taken over or nothing.
   * @returns Units and positions that need not be computed.
   */
  takeOver(before: KeptRow, cuttable: boolean): { units: number; positions: number } {
    const same = (own: Unit, other: Unit | undefined) => !own.read && own.key === other?.key;
    let shared = 0;
    while (shared < before.held && same(this.units[shared] as Unit, before.units[shared])) shared++;
    if (!cuttable && shared < before.held) shared = 0;
    let positions = 0;
    for (const [i, unit] of this.units.slice(0, shared).entries()) {
      positions += unit.nRows;
      const { interventions } = before.units[i] as Unit;
      for (const [j, edit] of unit.interventions.entries()) {
        edit.report.delta = (interventions[j] as PlacedIntervention).report.delta;
      }
    }
    this.held = shared;
    return { units: shared, positions };
  }

  /** Counts rows of the prompt that were decoded. */
  advance(rows: number): void {
    this.rest += rows;
    for (let unit = this.units[this.held]; unit && this.rest >= unit.nRows; unit = this.units[this.held]) {
      this.rest -= unit.nRows;
      this.held++;
    }
  }

  /** Adds tokens of the answer that were decoded. */
  append(tokens: readonly number[]): void {
    for (const token of tokens) {
      this.units.push({ key: token, token, position: -1, nRows: 1, interventions: [], read: false });
    }
    this.held += tokens.length;
  }
}
