/** What the console shows: one socket, whose watch has the topics of the page. */
import { signal } from "@preact/signals";
import { Client, type Connection, Disconnected, Refused, type Schemas, TimedOut } from "reileta-client";

import { SERVER } from "../shared/base.js";

export type Figures = Schemas["AdminFigures"];
export type Topic = Schemas["AdminTopicInput"];
export type Instance = Schemas["LiveInstance"];

export const client = new Client(SERVER);

/** The last of each topic that the server has shown. */
export const shown = signal<Partial<Figures>>({});
/** The charts' samples: those of the newest 15 minutes. */
export const history = signal<{ node: string; at: number[]; series: Record<string, number[]> }>({
  node: "",
  at: [],
  series: {},
});
export const link = signal<"opening" | "open" | "lost" | "closed">("opening");
/** Why a watch was refused. */
export const refusal = signal<string | undefined>();

const KEPT = 180;
let topics: Topic[] = [];
let followed: Connection | undefined;
/** The instance of the last page about one, and how it was asked for. Its figures may still be on their way. */
let left: { id: string; by: string | undefined } | undefined;

/** Shows these topics from now on. */
export function watch(wanted: Topic[]): void {
  const { instance } = shown.value;
  if (instance) left = { id: instance.instance.id, by: instanceOf(topics) };
  topics = wanted;
  const { node } = wanted.find((one) => one.topic === "figures") ?? {};
  if (node !== undefined && node !== null && node !== history.value.node) {
    history.value = { node, at: [], series: {} };
  }
  const names = new Set<string>(wanted.map((one) => one.topic));
  shown.value = Object.fromEntries(
    Object.entries(shown.value).filter(([name]) => names.has(name) && name !== "instance"),
  );
  void ask();
}

function instanceOf(wanted: Topic[]): string | undefined {
  return wanted.find((one) => one.topic === "instance")?.instance ?? undefined;
}

/** Follows the connection, which comes back by itself. */
export function follow(): void {
  const connection = client.connection;
  if (connection === followed) return;
  followed = connection;
  link.value = "opening";
  connection.onOpen(async () => {
    link.value = "open";
    void ask();
  });
  connection.on("connection-lost", () => (link.value = "lost"));
  connection.on("connection-closed", () => {
    link.value = "closed";
    if (followed === connection) followed = undefined;
  });
  connection.on("admin-figures", ({ data }) => take(data));
}

async function ask(): Promise<void> {
  if (followed === undefined || !followed.open) return;
  try {
    await followed.request("admin-watch", { topics, every_ms: 1000 });
    refusal.value = undefined;
  } catch (error) {
    if (error instanceof Refused) refusal.value = error.message;
    else if (!(error instanceof Disconnected || error instanceof TimedOut)) throw error;
  }
}

function take(data: Figures): void {
  const { figures, ...rest } = data;
  const wanted = instanceOf(topics);
  if (left && rest.instance?.instance.id === left.id && wanted !== left.id && wanted !== left.by) delete rest.instance;
  const { missing: _, ...before } = shown.value;
  shown.value = { ...before, ...rest };
  if (figures === undefined) return;
  const known = history.value.node === figures.node ? history.value : { at: [], series: {} };
  const after = known.at.at(-1) ?? -1;
  const fresh = figures.at.flatMap((at, place) => (at > after ? [place] : []));
  const names = Object.keys(figures.series);
  history.value = {
    node: figures.node,
    at: [...known.at, ...fresh.map((place) => figures.at[place] ?? 0)].slice(-KEPT),
    series: Object.fromEntries(
      names.map((name) => {
        const values = figures.series[name] ?? [];
        const old = (known.series as Record<string, number[]>)[name] ?? [];
        return [name, [...old, ...fresh.map((place) => values[place] ?? 0)].slice(-KEPT)];
      }),
    ),
  };
}

/** What went wrong, for people. */
export function reasonOf(error: unknown): string {
  if (error instanceof Refused) {
    return error.message;
  }
  if (error instanceof Disconnected || error instanceof TimedOut) return "The server does not answer.";
  throw error;
}
