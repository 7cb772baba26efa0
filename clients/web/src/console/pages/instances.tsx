/** The live instances of all nodes, sorted by any of their figures. */
import { useEffect, useState } from "preact/hooks";

import * as format from "../format.js";
import { type Instance, shown, type Topic, watch } from "../live.js";
import { worldTitle } from "../worlds.js";
import { type Column, Pager, Search, Table } from "../parts.js";

const LIMIT = 50;

/** Its title, or that of its world. */
export function instanceName(one: Instance): string {
  return one.title || worldTitle(one.world) || one.name || one.id;
}

/** Without a cluster there is one node, which has no name. */
export const nodeName = (node: string) => (node === "local" ? "this one" : node);

const COLUMNS: Column<Instance>[] = [
  {
    name: "Instance",
    key: "name",
    show: (one) => (
      <>
        <a href={`#/instance/${one.id}`}>{instanceName(one)}</a>{" "}
        {one.name && instanceName(one) !== one.name && <span class="soft">{one.name}</span>}
        {one.restarts > 0 && <span class="tag bad" title="Restarts after crashes">{format.plural(one.restarts, "restart")}</span>}
      </>
    ),
  },
  { name: "Seats", key: "connected", right: true, show: (one) => `${one.connected} / ${one.capacity}` },
  { name: "Queue", key: "queued", right: true, show: (one) => one.queued || "–" },
  { name: "Messages/s", key: "messages_per_s", right: true, show: (one) => rate(one.messages_per_s) },
  { name: "Drain", key: "drain_size", right: true, wide: true, show: (one) => rate(one.drain_size) },
  {
    name: "Wait",
    key: "wait_ms",
    right: true,
    show: (one) => (one.wait_ms === undefined ? "…" : format.ms(one.wait_ms)),
  },
  {
    name: "Backlog",
    key: "backlog_bytes",
    right: true,
    wide: true,
    show: (one) => (one.backlog_bytes ? format.bytes(one.backlog_bytes) : "–"),
  },
  { name: "Mailbox", key: "mailbox", right: true, wide: true, show: (one) => one.mailbox || "–" },
  { name: "Node", wide: true, show: (one) => nodeName(one.node).slice(0, 12) },
];

const rate = (value: number | undefined) => (value === undefined ? "…" : format.count(value));

export function Instances() {
  const [sort, setSort] = useState<{ key: string; down: boolean }>({ key: "connected", down: true });
  const [query, setQuery] = useState("");
  const [offset, setOffset] = useState(0);
  useEffect(
    () =>
      watch([
        {
          topic: "instances",
          sort: sort.key as NonNullable<Topic["sort"]>,
          order: sort.down ? "desc" : "asc",
          query: query || null,
          limit: LIMIT,
          offset,
        },
      ]),
    [sort, query, offset],
  );
  const page = shown.value.instances;
  return (
    <>
      <div class="head">
        <h1>Instances</h1>
        <Search label="Search name, world or owner" found={(text) => { setQuery(text); setOffset(0); }} />
      </div>
      <Table
        label="Live instances"
        columns={COLUMNS}
        rows={page?.items ?? []}
        id={(one) => one.id}
        empty={page ? (query ? "Nothing matches." : "No instance runs now.") : "Loading …"}
        sort={{ ...sort, change: (key, down) => { setSort({ key, down }); setOffset(0); } }}
      />
      <Pager offset={offset} limit={LIMIT} total={page?.total ?? 0} most={900} go={setOffset} />
    </>
  );
}
