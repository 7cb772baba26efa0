/** Pauses. */

/** Waits; rejects with the signal's reason. */
export function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const aborted = () => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", aborted);
      resolve();
    }, ms);
    signal?.addEventListener("abort", aborted, { once: true });
  });
}

/** A timer that does not keep a program in Node from ending. */
export function background(ms: number, then: () => void): () => void {
  const timer: unknown = setTimeout(then, Math.min(ms, 2 ** 31 - 1));
  if (typeof timer === "object" && timer !== null && "unref" in timer) {
    (timer as { unref(): void }).unref();
  }
  return () => clearTimeout(timer as number);
}

/** The pauses before attempts to connect again: none, then longer ones with a random part. */
export class Backoff {
  #failures = 0;

  constructor(
    readonly firstMs = 1_000,
    readonly limitMs = 30_000,
    readonly random: () => number = Math.random,
  ) {}

  /** The pause before the next attempt, in ms. */
  next(): number {
    const failures = this.#failures++;
    if (failures === 0) return Math.round(this.random() * 250);
    const whole = Math.min(this.limitMs, this.firstMs * 2 ** (failures - 1));
    return Math.round(whole * (0.5 + this.random() / 2));
  }

  /** The connection held: the next loss begins anew. */
  reset(): void {
    this.#failures = 0;
  }
}
