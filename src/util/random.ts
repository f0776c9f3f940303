import { createHash } from 'node:crypto';
import { XpatchError } from './errors.js';

/** The four 32-bit words of a generator's state; not all of them zero. */
type RandomState = readonly [number, number, number, number];

const { imul } = Math;
const rotateLeft = (x: number, k: number): number => (x << k) | (x >>> (32 - k));

/**
 * The only source of randomness: xoshiro128** 1.1 (Blackman and Vigna, "Scrambled linear pseudorandom number
 * generators", ACM TOMS 47(4), 2021). Equal seeds and stream names give equal draws on every machine.
 *
 * The state is the first 16 bytes (four little-endian words) of SHA-256 over the JSON text of `[seed, ...stream]`. So
 * every use names its own stream, and an extra draw in one place shifts nothing elsewhere.
 */
export class Random {
  readonly #s: Uint32Array;
  #spareGaussian: number | undefined;

  /**
   * @param seed a safe integer of at least 0
   * @param stream what the draws are for, e.g. `'split'`, then what they belong to
   * @throws {XpatchError} INVALID_ARGUMENT if the seed is not such an integer
   */
  constructor(seed: number, ...stream: readonly (string | number)[]) {
    if (!Number.isSafeInteger(seed) || seed < 0) {
      throw new XpatchError('INVALID_ARGUMENT', `A seed is a whole number from 0 to 2^53 - 1, not ${String(seed)}.`);
    }
    const digest = createHash('sha256')
      .update(JSON.stringify([seed, ...stream]))
      .digest();
    this.#s = Uint32Array.of(...[0, 4, 8, 12].map((offset) => digest.readUInt32LE(offset)));
  }

  /** A generator in a given state, for comparison with other implementations. */
  static fromState(state: RandomState): Random {
    const random = new Random(0);
    random.#s.set(state);
    return random;
  }

  /** The next 32 random bits, as an integer from 0 to 2^32 - 1. */
  uint32(): number {
    const s = this.#s;
    const s1 = s[1] as number;
    const result = imul(rotateLeft(imul(s1, 5), 7), 9) >>> 0;
    const s2 = (s[2] as number) ^ (s[0] as number);
    const s3 = (s[3] as number) ^ s1;
    s[1] = s1 ^ s2;
    s[0] = (s[0] as number) ^ s3;
    s[2] = s2 ^ (s1 << 9);
    s[3] = rotateLeft(s3, 11);
    return result;
  }

  /** Uniform in [0, 1), a multiple of 2^-53. */
  uniform(): number {
    const high = this.uint32() >>> 5;
    const low = this.uint32() >>> 6;
    return (high * 0x4000000 + low) / 0x20000000000000;
  }

  /** A whole number from 0 to n - 1, each equally likely. `n` from 1 to 2^32. */
  integer(n: number): number {
    if (!(n >= 1 && n <= 0x100000000 && n % 1 === 0)) {
      throw new XpatchError(
        'INVALID_ARGUMENT',
        `Random.integer takes a whole number from 1 to 2^32, not ${String(n)}.`,
      );
    }
    // Draws past the last whole multiple of n would favour the small remainders.
    const limit = 0x100000000 - (0x100000000 % n);
    let draw = this.uint32();
    while (draw >= limit) draw = this.uint32();
    return draw % n;
  }

  /** Normal with mean 0 and variance 1 (Box and Muller 1958). */
  gaussian(): number {
    if (this.#spareGaussian !== undefined) {
      const spare = this.#spareGaussian;
      this.#spareGaussian = undefined;
      return spare;
    }
    const radius = Math.sqrt(-2 * Math.log(1 - this.uniform()));
    const angle = 2 * Math.PI * this.uniform();
    this.#spareGaussian = radius * Math.sin(angle);
    return radius * Math.cos(angle);
  }

  /** `count` different elements in random order; all of them, shuffled, if `count` is left out (Fisher and Yates). */
  sample<T>(items: readonly T[], count: number = items.length): T[] {
    if (!Number.isInteger(count) || count < 0 || count > items.length) {
      throw new XpatchError(
        'INVALID_ARGUMENT',
        `Cannot draw ${String(count)} different elements out of ${items.length}.`,
      );
    }
    const pool = [...items];
    for (let i = 0; i < count; i++) {
      const j = i + this.integer(pool.length - i);
      [pool[i], pool[j]] = [pool[j] as T, pool[i] as T];
    }
    return pool.slice(0, count);
  }
}
