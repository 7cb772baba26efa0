/** The inside of a node: its actors with their crashes, and its slowest traces. */
import type { Schemas } from "reileta-client";
import { useEffect, useState } from "preact/hooks";

import * as format from "../format.js";
import { shown, watch } from "../live.js";
import { type Column, Table } from "../parts.js";

type Actor = Schemas["Actor"];

const ACTORS: Column<Actor>[] = [
  { name: "Actor", show: (one) => <span class="code">{one.name}</span> },
  { name: "Mailbox", right: true, show: (one) => `${one.mailbox} / ${format.count(one.limit)}` },
  {
    name: "Restarts",
    right: true,
    show: (one) => (one.restarts ? <span class="tag bad">{one.restarts}</span> : "–"),
  },
  { name: "Messages/s", right: true, show: (one) => (one.messages_per_s === undefined ? "…" : format.count(one.messages_per_s)) },
  { name: "Drain", right: true, wide: true, show: (one) => (one.drain_size === undefined ? "…" : format.count(one.drain_size)) },
  { name: "Wait", right: true, wide: true, show: (one) => (one.wait_ms === undefined ? "…" : format.ms(one.wait_ms)) },
];

/** The node that a page is about, of several. */
function NodeChoice({ node, choose }: { node: string; choose: (node: string) => void }) {
  const nodes = shown.value.nodes?.nodes ?? [];
  if (nodes.length < 2) return null;
  return (
    <label class="check">
      Node{" "}
      <select class="input small" value={node} onChange={(event) => choose(event.currentTarget.value)}>
        <option value="">the one that answers</option>
        {nodes.map((one) => (
          <option key={one.id} value={one.id}>{one.name}</option>
        ))}
      </select>
    </label>
  );
}

export function Actors() {
  const [node, setNode] = useState("");
  useEffect(() => watch([{ topic: "nodes" }, { topic: "actors", node: node || null }]), [node]);
  const tree = shown.value.actors;
  return (
    <>
      <div class="head">
        <h1>Actors</h1>
        <NodeChoice node={node} choose={setNode} />
      </div>
      {!tree && <p class="soft">Loading …</p>}
      {tree && tree.crashes.length > 0 && (
        <section>
          <h2>Last crashes</h2>
          {tree.crashes.map((one) => (
            <details class="card crash" key={`${one.actor}-${one.message}-${one.last_messages.at(-1) ?? ""}`}>
              <summary>
                <strong>{one.error}</strong> in <span class="code">{one.actor}</span>{" "}
                <time class="soft">{format.date(one.at)}</time>{" "}
                <span class={`tag ${one.restarted ? "" : "bad"}`}>{one.restarted ? "restarted" : "given up"}</span>
              </summary>
              <p>{one.message}</p>
              <pre tabIndex={0} aria-label="Traceback">{one.traceback}</pre>
              <h3>Its last messages</h3>
              <pre tabIndex={0} aria-label="Last messages">{one.last_messages.join("\n")}</pre>
            </details>
          ))}
        </section>
      )}
      {tree?.supervisors.map((some) => (
        <section key={some.name}>
          <h2>{some.name} <span class="soft">{some.total}</span></h2>
          <Table label={`Actors of ${some.name}`} columns={ACTORS} rows={some.actors} id={(one) => one.name} empty="None." />
          {some.total > some.actors.length && <p class="soft">The busiest {some.actors.length} are shown.</p>}
        </section>
      ))}
      {tree && (
        <section>
          <h2>Background tasks <span class="soft">{tree.background.length}</span></h2>
          <ul class="tags">
            {tree.background.map((one) => (
              <li key={one.name} class={`tag ${one.failing ? "bad" : ""}`}>
                {one.name}{one.crashes ? `, ${one.crashes} crashes` : ""}
              </li>
            ))}
          </ul>
        </section>
      )}
    </>
  );
}

type Trace = Schemas["Trace"];

export function Traces() {
  const [node, setNode] = useState("");
  useEffect(() => watch([{ topic: "nodes" }, { topic: "traces", node: node || null }]), [node]);
  const traces = shown.value.traces?.traces;
  return (
    <>
      <div class="head">
        <h1>Slowest traces</h1>
        <NodeChoice node={node} choose={setNode} />
      </div>
      <p class="soft">
        Of those that are watched while this page is open, in the last 15 minutes. A thin bar is the wait in a mailbox.
      </p>
      {traces?.length === 0 && <p class="empty">None yet: they come a few seconds after they happened.</p>}
      <div class="traces">
        {traces?.map((one, place) => <Waterfall key={one.trace} trace={one} open={place === 0} />)}
      </div>
    </>
  );
}

/** The actor with its id cut: `instance/i_617aa13c…`. */
const brief = (place: string) => place.replace(/(_[0-9a-f]{8})-[0-9a-f-]+/, "$1…");

function Waterfall({ trace, open }: { trace: Trace; open: boolean }) {
  const whole = Math.max(1, trace.took_us);
  const first = trace.spans[0];
  return (
    <details class="card trace" open={open}>
      <summary>
        <strong>{format.us(trace.took_us)}</strong> {first ? `${first.place}: ${first.what}` : ""}{" "}
        <span class="soft"><time>{format.clock(trace.at)}</time> <span class="code">{trace.trace}</span></span>
      </summary>
      <ol class="waterfall">
        {trace.spans.map((one, place) => {
          const begin = Math.max(0, one.at_us - one.waited_us);
          return (
            <li key={place}>
              <span class="what" style={{ paddingLeft: `${Math.min(one.depth, 12) * 12}px` }}>
                <span class="code" title={one.place}>{brief(one.place)}</span> {one.what}
                {one.error !== undefined && <span class="tag bad">error {one.error}</span>}
              </span>
              <svg viewBox="0 0 1000 20" preserveAspectRatio="none" aria-hidden="true">
                <rect class="waited" x={(begin / whole) * 1000} y="8" width={(Math.max(0, one.at_us - begin) / whole) * 1000} height="4" />
                <rect class="took" x={Math.min(997, (one.at_us / whole) * 1000)} y="3" width={Math.max(3, (one.took_us / whole) * 1000)} height="14" rx="2" />
              </svg>
              <span class="time">{one.took_us ? format.us(one.took_us) : "·"}</span>
            </li>
          );
        })}
      </ol>
    </details>
  );
}
