/** Worlds and instances as they are now: lists, kept up to date by events. */
import { signal } from "@preact/signals";
import type { DataOf } from "reileta-client";

import { words } from "../shared/words.js";
import { client, connect } from "./session.js";

export type World = DataOf<"get", "/api/worlds/{ref}">;
export type Instance = DataOf<"get", "/api/instances/{ref}">;

export const worlds = signal<ReadonlyMap<string, World>>(new Map());
export const instances = signal<ReadonlyMap<string, Instance>>(new Map());
/** Whether the lists have come; or why not, in words. */
export const lists = signal<{ ready: boolean; problem: string | undefined }>({ ready: false, problem: undefined });

/** Ended instances and deleted worlds send no event: so the lists are asked for again. */
const AGAIN_MS = 15_000;
const LIMIT = 100;

/** What events have told while lists were on their way, which may be older. */
interface News {
  readonly worlds: Map<string, World>;
  readonly instances: Map<string, Instance>;
}

const underWay = new Set<News>();
let begun = 0;
let taken = 0;

export async function load(): Promise<void> {
  const number = ++begun;
  const news: News = { worlds: new Map(), instances: new Map() };
  underWay.add(news);
  try {
    const query = { limit: LIMIT };
    const [someWorlds, someInstances] = await Promise.all([
      client.http.get("/api/worlds", { query }),
      client.http.get("/api/instances", { query }),
    ]);
    if (number < taken) return; // a list that was asked for later came before
    taken = number;
    const older = someWorlds.items.filter((one) => !news.worlds.has(one.id));
    worlds.value = new Map([...news.worlds, ...older.map((one): [string, World] => [one.id, one as World])]);
    const now = new Map(someInstances.items.map((one) => [one.id, one as Instance]));
    for (const [id, one] of news.instances) now.set(id, one);
    const missing = new Set([...now.values()].map(worldOf).filter((id) => !worlds.value.has(id)));
    instances.value = now;
    lists.value = { ready: true, problem: undefined };
    for (const id of [...missing].slice(0, 20)) void learn(id);
  } catch (error) {
    if (number > taken) lists.value = { ready: lists.value.ready, problem: words(error) };
  } finally {
    underWay.delete(news);
  }
}

/** Keeps the lists up to date until the returned function is called. */
export function follow(): () => void {
  const connection = connect();
  const stops = [
    connection.on("update-world", ({ data }) => {
      for (const { worlds } of underWay) worlds.set(data.id, data as World);
      worlds.value = new Map([[data.id, data as World], ...without(worlds.value, data.id)]);
    }),
    connection.on("update-instance", ({ data }) => {
      for (const { instances } of underWay) instances.set(data.id, data as Instance);
      instances.value = new Map([...instances.value, [data.id, data as Instance]]);
    }),
    connection.on("connection-open", ({ again }) => again && void load()),
  ];
  for (const event of ["update-world", "update-instance"] as const) {
    connection.subscribe(event).catch(() => {}); // then the lists alone tell
  }
  const timer = setInterval(() => document.hidden || void load(), AGAIN_MS);
  void load();
  return () => {
    clearInterval(timer);
    for (const stop of stops) stop();
    for (const event of ["update-world", "update-instance"] as const) {
      if (connection.open) connection.unsubscribe(event).catch(() => {});
    }
  };
}

/** The id of an instance's world, without its version and server. */
export function worldOf(instance: Instance): string {
  return instance.world.split(/[:@]/)[0] ?? instance.world;
}

/** A world that the list does not hold. */
export async function learn(id: string): Promise<World | undefined> {
  const known = worlds.value.get(id);
  if (known) return known;
  try {
    const world = (await client.http.get("/api/worlds/{ref}", { path: { ref: id } })) as World;
    worlds.value = new Map([...worlds.value, [id, world]]);
    return world;
  } catch {
    return undefined; // it is private, or was deleted: the instance shows its own title
  }
}

function without<V>(map: ReadonlyMap<string, V>, key: string): [string, V][] {
  return [...map].filter(([id]) => id !== key);
}
