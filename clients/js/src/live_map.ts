/** A map that says what changes in it. */

import { Emitter } from "./emitter.js";

export interface MapEvents<K, V> {
  set: { key: K; value: V; before: V | undefined };
  delete: { key: K; value: V };
}

/** Only its owner changes it, through `ownerSet` and `ownerDelete`. */
export class LiveMap<K, V> extends Emitter<MapEvents<K, V>> implements ReadonlyMap<K, V> {
  readonly #map = new Map<K, V>();

  get size(): number {
    return this.#map.size;
  }

  get(key: K): V | undefined {
    return this.#map.get(key);
  }

  has(key: K): boolean {
    return this.#map.has(key);
  }

  keys(): MapIterator<K> {
    return this.#map.keys();
  }

  values(): MapIterator<V> {
    return this.#map.values();
  }

  entries(): MapIterator<[K, V]> {
    return this.#map.entries();
  }

  [Symbol.iterator](): MapIterator<[K, V]> {
    return this.#map.entries();
  }

  forEach(each: (value: V, key: K, map: ReadonlyMap<K, V>) => void): void {
    this.#map.forEach((value, key) => each(value, key, this));
  }

  /** @internal */
  ownerSet(key: K, value: V): void {
    const before = this.#map.get(key);
    this.#map.set(key, value);
    this.emit("set", { key, value, before });
  }

  /** @internal */
  ownerDelete(key: K): V | undefined {
    const value = this.#map.get(key);
    if (value !== undefined && this.#map.delete(key)) this.emit("delete", { key, value });
    return value;
  }
}
