/** Notices that a socket is silent. The server pings it, but a page does not see pings. */

import { background } from "./timing.js";

export class Silence {
  readonly #limitMs: number;
  readonly #ask: () => Promise<unknown>;
  readonly #silent: () => void;
  #cancel = () => {};
  #heard = 0;

  /** After `limitMs` without a message, it asks whether the server is there; `silent` is called if
   * nothing comes. */
  constructor(limitMs: number, ask: () => Promise<unknown>, silent: () => void) {
    this.#limitMs = limitMs;
    this.#ask = ask;
    this.#silent = silent;
  }

  /** Something has come. */
  heard(): void {
    this.stop();
    const heard = this.#heard;
    this.#cancel = background(this.#limitMs, () => {
      this.#ask().catch(() => {
        if (heard === this.#heard) this.#silent();
      });
    });
  }

  /** There is no socket to listen to. */
  stop(): void {
    this.#cancel();
    this.#heard++;
  }
}
