/** Requests on one socket that wait for their answers: `state` tells which answer is whose. */

import { Disconnected, isErrorObject, Refused, TimedOut } from "./errors.js";
import { background } from "./timing.js";

interface Pending {
  answered: ((data: never) => void) | undefined;
  resolve(data: unknown): void;
  reject(error: unknown): void;
  cancel(): void;
}

export class Requests {
  readonly #pending = new Map<number, Pending>();
  readonly #write: (message: object) => boolean;
  #state = 0;

  /** `write` sends a message, and returns whether there was a socket to send it on. */
  constructor(write: (message: object) => boolean) {
    this.#write = write;
  }

  /** Sends a command; resolves with the data of its answer. `answered` gets it before any event
   * that comes after it. */
  ask(
    command: string,
    fields: object,
    timeoutMs: number,
    answered?: (data: never) => void,
  ): Promise<unknown> {
    return new Promise((resolve, reject) => {
      const state = ++this.#state;
      const cancel = background(timeoutMs, () => {
        this.#pending.delete(state);
        reject(new TimedOut(command, timeoutMs));
      });
      this.#pending.set(state, { answered, resolve, reject, cancel });
      if (!this.#write({ state, command, ...fields })) {
        this.#pending.delete(state);
        cancel();
        reject(new Disconnected("not connected"));
      }
    });
  }

  /** Takes an answer, also one that came too late. Returns false if the message is not an answer. */
  take({ state, error, data }: Record<string, unknown>): boolean {
    if (state === undefined) return false;
    const pending = this.#pending.get(state as number);
    if (pending === undefined) return true;
    this.#pending.delete(state as number);
    pending.cancel();
    if (isErrorObject(error)) pending.reject(new Refused(error));
    else {
      pending.answered?.(data as never);
      pending.resolve(data);
    }
    return true;
  }

  rejectAll(error: Error): void {
    const pending = [...this.#pending.values()];
    this.#pending.clear();
    for (const one of pending) {
      one.cancel();
      one.reject(error);
    }
  }
}
