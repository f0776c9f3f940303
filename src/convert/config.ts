import type { XpatchError } from '../util/errors.js';

type Invalid = (problem: string) => XpatchError;

/** PIL's number. */
const BILINEAR = 2;

/** Whether a number stays finite as the GGUF stores it. */
export function isStorable(value: unknown): value is number {
  return typeof value === 'number' && Number.isFinite(Math.fround(value));
}

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

  /** A positive number that 32 bits hold. */
  positive(key: string, assumed?: number): number {
    const value = this.values[key] ?? assumed;
    if (isStorable(value) && Math.fround(value) > 0) return value;
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

  /** What pixels from 0 to 1 are normalised by, one number a colour; a single number is used for all. */
  normalisation(): { mean: number[]; std: number[] } {
    const colours = (key: string, allows: (n: unknown) => boolean): number[] => {
      const value = this.values[key] ?? 0.5;
      const three = typeof value === 'number' ? [value, value, value] : value;
      if (!Array.isArray(three) || three.length !== 3 || !three.every(allows)) throw this.problem(key, value);
      return three as number[];
    };
    return {
      mean: colours('image_mean', isStorable),
      std: colours('image_std', (n) => isStorable(n) && Math.fround(n) > 0),
    };
  }

  /** A part inside, empty where it is missing. */
  section(key: string): Config {
    const value = this.values[key] ?? {};
    if (typeof value !== 'object' || Array.isArray(value)) throw this.problem(key, value);
    return new Config(value as Record<string, unknown>, `${this.name}.${key}`, this.invalid);
  }

  /** The same with other values. */
  with(values: Readonly<Record<string, unknown>>): Config {
    return new Config({ ...this.values, ...values }, this.name, this.invalid);
  }

  /** Refuses pictures that are prepared in another way than the runtime does it. */
  requirePixels(): void {
    for (const step of ['do_resize', 'do_rescale', 'do_normalize']) this.require(step, [true], true);
    this.require('rescale_factor', [1 / 255], 1 / 255);
    this.require('resample', [BILINEAR], BILINEAR);
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
