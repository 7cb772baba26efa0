/** The titles of worlds, each asked for once. */
import { signal } from "@preact/signals";

import { client } from "./live.js";

const KEPT = 500;
/** By id. undefined: it was asked for. */
const titles = signal<ReadonlyMap<string, string | undefined>>(new Map());

/** The world's title, or undefined until the server has told it. */
export function worldTitle(id: string): string | undefined {
  const known = titles.value;
  if (!known.has(id) && known.size < KEPT) {
    queueMicrotask(() => {
      if (titles.value.has(id)) return;
      titles.value = new Map(titles.value).set(id, undefined);
      client.http.get("/api/worlds/{ref}", { path: { ref: id } }).then(
        ({ title }) => (titles.value = new Map(titles.value).set(id, title)),
        () => {}, // it may be deleted, or of a server that does not answer: the id stays
      );
    });
  }
  return known.get(id);
}
