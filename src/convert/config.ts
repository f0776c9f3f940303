import type { XpatchError } from '../util/errors.js';

type Invalid = (problem: string) => XpatchError;

/** A part of config.json, read with checks. Where a key is missing, what transformers would assume. */
export class Config {
  constructor(
    private readonly values: Readonly<Record<string, unknown>>,
    /** What it is called in messages, such as `text_config`. */
    private readonly name: string,
    private readonly invalid: Invalid,
  ) {}

  /** A whole number from 1 on. */
  count(key: string, assumed?: number, most = 1 << 24): number {
    const value = this.values[key] ?? assumed;
    if (Number.isSafeInteger(value) && (value as number) >= 1 && (value as number) <= most) return value as number;
    throw this.problem(key, value);
  }

  /** A positive finite number. */
  positive(key: string, assumed?: number): number {
    const value = this.values[key] ?? assumed;
    if (typeof value === 'number' && value > 0 && Number.isFinite(value)) return value;
    throw this.problem(key, value);
  }

  /** Refuses what the converted model could not do. */
  require(key: string, allowed: readonly unknown[], assumed: unknown): void {
    const value = this.values[key] ?? assumed;
    if (!allowed.includes(value)) {
      const known = allowed.map((one) => JSON.stringify(one)).join(' or ');
      throw this.invalid(`${this.name}.${key} is ${JSON.stringify(value)}; only ${known} can be converted`);
    }
  }

  /** Three numbers, one a colour; a single number is used for all. */
  colours(key: string, assumed: number): number[] {
    const value = this.values[key] ?? assumed;
    const three = typeof value === 'number' ? [value, value, value] : value;
    const fits = Array.isArray(three) && three.length === 3 && three.every((n) => Number.isFinite(n));
    if (!fits) throw this.problem(key, value);
    return three as number[];
  }

  /** A part inside, empty where it is missing. */
  section(key: string): Config {
    const value = this.values[key] ?? {};
    if (typeof value !== 'object' || Array.isArray(value)) throw this.problem(key, value);
    return new Config(value as Record<string, unknown>, `${this.name}.${key}`, this.invalid);
  }

  /** The same without a key. */
  without(key: string): Config {
    return new Config({ ...this.values, [key]: undefined }, this.name, this.invalid);
  }

  has(key: string): boolean {
    return this.values[key] !== undefined && this.values[key] !== null;
  }

  /** Base of the rotary embedding; transformers 5 writes it into rope_parameters, older ones next to the rest. */
  ropeTheta(assumed: number): number {
    const parameters = this.section(this.has('rope_parameters') ? 'rope_parameters' : 'rope_scaling');
    parameters.require(parameters.has('rope_type') ? 'rope_type' : 'type', ['default'], 'default');
    return parameters.has('rope_theta') ? parameters.positive('rope_theta') : this.positive('rope_theta', assumed);
  }

  private problem(key: string, value: unknown): XpatchError {
    return this.invalid(
      value === undefined
        ? `${this.name} has no ${key}`
        : `${this.name}.${key} is ${JSON.stringify(value)?.slice(0, 80)}`,
    );
  }
}
