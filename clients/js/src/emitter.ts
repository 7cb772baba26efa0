/** Events with types: `on` returns the function that takes the listener away again. */

export type Listener<T> = (value: T) => void;

export class Emitter<Events extends object> {
  readonly #listeners = new Map<keyof Events, Set<Listener<never>>>();

  /** Calls `listener` at each such event, until the returned function is called. */
  on<Name extends keyof Events>(name: Name, listener: Listener<Events[Name]>): () => void {
    let listeners = this.#listeners.get(name);
    if (listeners === undefined) this.#listeners.set(name, (listeners = new Set()));
    // Each call of `on` is a listener of its own, even with the same function.
    const own: Listener<Events[Name]> = (value) => listener(value);
    listeners.add(own);
    return () => void listeners.delete(own);
  }

  /** The next such event. Rejects with the signal's reason. */
  once<Name extends keyof Events>(name: Name, signal?: AbortSignal): Promise<Events[Name]> {
    return new Promise((resolve, reject) => {
      signal?.throwIfAborted();
      const aborted = () => {
        stop();
        reject(signal?.reason);
      };
      const stop = this.on(name, (value) => {
        stop();
        signal?.removeEventListener("abort", aborted);
        resolve(value);
      });
      signal?.addEventListener("abort", aborted, { once: true });
    });
  }

  /** A listener that fails does not keep the others from their event: it is reported, as errors of
   * event handlers are. */
  protected emit<Name extends keyof Events>(name: Name, value: Events[Name]): void {
    for (const listener of [...(this.#listeners.get(name) ?? [])]) {
      try {
        (listener as Listener<Events[Name]>)(value);
      } catch (error) {
        queueMicrotask(() => {
          throw error;
        });
      }
    }
  }

  protected hasListeners(name: keyof Events): boolean {
    return (this.#listeners.get(name)?.size ?? 0) > 0;
  }
}
