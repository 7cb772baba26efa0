/** One instance as it happens: players, queue, last events; moderation and its end. */
import type { Schemas } from "reileta-client";
import { useEffect, useState } from "preact/hooks";

import * as format from "../format.js";
import { client, shown, watch } from "../live.js";
import { type Column, Confirm, Table } from "../parts.js";
import { worldTitle } from "../worlds.js";
import { instanceName, nodeName } from "./instances.js";

type Player = Schemas["LivePlayer"];
type Happened = Schemas["InstanceHappened"];
type Measure = { type: "kick" | "ban" | "mute" | "unmute" | "warn"; player: Player };

const WORDS: Record<Happened["event"], string> = { joined: "joined", left: "left", moderated: "" };

export function InstancePage({ id }: { id: string }) {
  const [measure, setMeasure] = useState<Measure | undefined>();
  const [closing, setClosing] = useState(false);
  useEffect(() => watch([{ topic: "instance", instance: id }]), [id]);
  const { instance: detail, missing } = shown.value;
  const gone = missing?.includes("instance");
  if (!detail) {
    return (
      <>
        <h1>Instance</h1>
        <p class="soft">{gone ? "It does not run: it has ended, or nobody is inside." : "Loading …"}</p>
        <p><a href="#/instances">All instances</a></p>
      </>
    );
  }
  const { instance, players, queue, events } = detail;
  const path = { ref: instance.id };
  const columns: Column<Player>[] = [
    {
      name: "Player",
      show: (one) => (
        <>
          <strong>{one.displayname}</strong> <span class="soft">{one.username}</span>
          {one.muted && <span class="tag warn">muted</span>}
          {one.sockets === 0 && <span class="tag">away</span>}
        </>
      ),
    },
    { name: "Role", show: (one) => one.role },
    { name: "Lag", right: true, show: (one) => (one.lag_ms === undefined ? "–" : format.ms(one.lag_ms)) },
    {
      name: "Backlog",
      right: true,
      wide: true,
      show: (one) => (one.backlog_bytes ? format.bytes(one.backlog_bytes) : "–"),
    },
    { name: "Inside", right: true, wide: true, show: (one) => format.since(one.joined_at, Date.now()) },
    {
      name: "Moderate",
      show: (one) => (
        <span class="row">
          {(["warn", one.muted ? "unmute" : "mute", "kick", "ban"] as const).map((type) => (
            <button
              key={type}
              class="button tiny"
              type="button"
              aria-label={`${word(type)} ${one.displayname}`}
              onClick={() => setMeasure({ type, player: one })}
            >
              {word(type)}
            </button>
          ))}
        </span>
      ),
    },
  ];
  return (
    <>
      <div class="head">
        <h1>{instanceName(instance)}</h1>
        <button class="button small bad" type="button" onClick={() => setClosing(true)}>
          Close the instance
        </button>
      </div>
      {gone && <p class="notice warn" role="status">It does not run any more. This is what was seen last.</p>}
      <dl class="facts card">
        <div><dt>Seats</dt><dd>{instance.connected} / {instance.capacity}</dd></div>
        <div><dt>Queue</dt><dd>{instance.queued}</dd></div>
        <div><dt>Messages/s</dt><dd>{instance.messages_per_s === undefined ? "…" : format.count(instance.messages_per_s)}</dd></div>
        <div><dt>Drain</dt><dd>{instance.drain_size === undefined ? "…" : format.count(instance.drain_size)}</dd></div>
        <div><dt>Wait</dt><dd>{instance.wait_ms === undefined ? "…" : format.ms(instance.wait_ms)}</dd></div>
        <div><dt>Backlog</dt><dd>{format.bytes(instance.backlog_bytes)}</dd></div>
        <div><dt>Mailbox</dt><dd>{instance.mailbox}</dd></div>
        <div><dt>Restarts</dt><dd>{instance.restarts}</dd></div>
        <div class="long"><dt>Id</dt><dd>{instance.name} <span class="code soft">{instance.id}</span></dd></div>
        <div class="long"><dt>World</dt><dd>{worldTitle(instance.world)} <span class="code soft">{instance.world}</span></dd></div>
        <div class="long"><dt>Node</dt><dd>{nodeName(instance.node)}</dd></div>
      </dl>
      <section>
        <h2>Players ({instance.connected})</h2>
        <Table label="Players" columns={columns} rows={players} id={(one) => one.player} empty="Nobody is inside." />
        {instance.connected > players.length && <p class="soft">The first {players.length} are shown.</p>}
      </section>
      <div class="two">
        <section>
          <h2>Queue</h2>
          <Table
            label="Queue"
            columns={[
              { name: "Place", right: true, show: (one) => one.position ?? "–" },
              { name: "User", show: (one) => <span class="code">{one.user}</span> },
              { name: "State", show: (one) => one.state },
              { name: "Since", right: true, wide: true, show: (one) => format.since(one.since, Date.now()) },
            ]}
            rows={queue}
            id={(one) => one.user}
            empty="Nobody waits."
          />
        </section>
        <section>
          <h2>Last events</h2>
          <ol class="events">
            {events.map((one, place) => (
              <li key={`${one.at}-${place}`}>
                <time class="soft">{format.clock(one.at)}</time>{" "}
                <strong>{one.username ?? one.user}</strong>{" "}
                {one.event === "moderated" ? `: ${one.type ?? ""}` : WORDS[one.event]}
                {one.reason && one.reason !== "left" && <span class="soft"> ({one.reason})</span>}
              </li>
            ))}
          </ol>
        </section>
      </div>
      {measure && (
        <Confirm
          title={`${word(measure.type)} ${measure.player.displayname}`}
          reason
          until={measure.type === "ban" || measure.type === "mute"}
          danger={measure.type === "kick" || measure.type === "ban"}
          act={({ reason, until }) =>
            client.http.post("/api/instances/{ref}/moderate", {
              path,
              body: {
                type: measure.type,
                // A ban is of the user, who can come back as another player.
                ...(measure.type === "kick" ? { player: measure.player.player } : { user: measure.player.user }),
                ...(reason === undefined ? {} : { reason }),
                ...(until === undefined ? {} : { until }),
              },
            })
          }
          close={() => setMeasure(undefined)}
        />
      )}
      {closing && (
        <Confirm
          title="Close the instance"
          text={`All ${instance.connected} players leave, and it is gone for good.`}
          danger
          act={() => client.http.delete("/api/instances/{ref}", { path })}
          close={(done) => {
            setClosing(false);
            if (done) location.hash = "#/instances";
          }}
        />
      )}
    </>
  );
}

function word(type: string): string {
  return type.charAt(0).toUpperCase() + type.slice(1);
}
