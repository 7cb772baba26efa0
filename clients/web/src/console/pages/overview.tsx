/** Nodes with their health, and the charts of one of them. */
import { useEffect, useState } from "preact/hooks";

import * as format from "../format.js";
import { history, shown, watch } from "../live.js";
import { Chart } from "../parts.js";

const CHARTS: [string, string, (value: number) => string, number][] = [
  ["Players", "players", format.count, 4],
  ["Sockets", "sockets", format.count, 4],
  ["Instances", "instances", format.count, 4],
  ["Messages in, per second", "messages_in_per_s", format.count, 10],
  ["Deliveries, per second", "deliveries_per_s", format.count, 10],
  ["Processor, of one core", "cpu", format.percent, 0.1],
  ["Event loop late by", "lag_ms", format.ms, 5],
  ["Wait in mailboxes", "wait_ms", format.ms, 1],
  ["Messages per drain", "drain_size", format.count, 2],
  ["Bytes out, per second", "bytes_out_per_s", format.bytes, 1024],
  ["Backlog of slow sockets", "backlog_bytes", format.bytes, 1024],
  ["Memory", "memory_bytes", format.bytes, 1024 * 1024],
  ["HTTP requests, per second", "requests_per_s", format.count, 5],
  ["SQL statements, per second", "statements_per_s", format.count, 5],
];

export function Overview() {
  const [node, setNode] = useState<string | undefined>();
  useEffect(() => watch([{ topic: "nodes" }, { topic: "figures", node: node ?? null }]), [node]);
  const nodes = shown.value.nodes?.nodes ?? [];
  const { at, series } = history.value;
  const here = node ?? nodes.find((one) => one.here)?.id;
  const now = Date.now();
  return (
    <>
      <h1>Overview</h1>
      <ul class="cards" aria-label="Nodes">
        {nodes.map((one) => (
          <li key={one.id} class={`card ${one.id === here && nodes.length > 1 ? "chosen" : ""}`}>
            <h2>
              <span class={`state ${one.state}`} aria-hidden="true" />
              {one.name}
            </h2>
            <p>
              {one.state === "ready" ? "Ready" : `${one.state === "silent" ? "Silent" : "Not ready"}: ${one.reason ?? ""}`}
              <span class="soft"> · {one.version}</span>
            </p>
            <dl class="facts">
              <div><dt>Players</dt><dd>{format.count(one.players)}</dd></div>
              <div><dt>Instances</dt><dd>{format.count(one.instances)}</dd></div>
              <div><dt>Sockets</dt><dd>{format.count(one.sockets)}</dd></div>
              <div><dt>Processor</dt><dd>{format.percent(one.cpu)}</dd></div>
              <div><dt>Late by</dt><dd>{format.ms(one.lag_ms)}</dd></div>
              <div><dt>Memory</dt><dd>{format.bytes(one.memory_bytes)}</dd></div>
              <div><dt>Up for</dt><dd>{one.ready_at ? format.since(one.ready_at, now) : "–"}</dd></div>
              <div>
                <dt>Crashes</dt>
                <dd>{one.crashes ? <a href="#/actors" class="bad-text">{one.crashes}</a> : "0"}</dd>
              </div>
            </dl>
            {one.failing.length > 0 && (
              <p class="notice bad">Failing in the background: {one.failing.join(", ")}</p>
            )}
            {!one.database && <p class="notice bad">It does not reach the database.</p>}
            {nodes.length > 1 && one.id !== here && one.state !== "silent" && (
              <button class="button small" type="button" onClick={() => setNode(one.id)}>
                Show its charts
              </button>
            )}
          </li>
        ))}
      </ul>
      <h2>The last 15 minutes{nodes.length > 1 && `, ${nodes.find((one) => one.id === here)?.name ?? ""}`}</h2>
      {at.length === 0 && <p class="soft">The first figures come within 10 seconds.</p>}
      <div class="charts">
        {CHARTS.map(([title, name, show, least]) => (
          <Chart key={name} title={title} at={at} values={series[name] ?? []} show={show} least={least} />
        ))}
      </div>
    </>
  );
}
