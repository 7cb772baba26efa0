/** Users: who is online, where, with which sessions; suspensions. */
import type { DataOf } from "reileta-client";
import { useEffect, useRef, useState } from "preact/hooks";

import * as format from "../format.js";
import { client, reasonOf, watch } from "../live.js";
import { Confirm, Pager, Search, Table, useList, Wrong } from "../parts.js";

const LIMIT = 50;

type Person = { id: string; username: string; displayname: string; text: string; suspended: boolean };

export function People() {
  const [query, setQuery] = useState("");
  const [all, setAll] = useState(false);
  const [offset, setOffset] = useState(0);
  const [open, setOpen] = useState<Person | undefined>();
  useEffect(() => watch([]), []);
  const { answer, wrong, again } = useList(
    async () => {
      if (!all) {
        const page = await client.http.get("/api/admin/online", { query: { query, limit: LIMIT, offset } });
        return {
          total: page.total,
          people: page.items.map((one): Person => ({
            id: one.user,
            username: one.username,
            displayname: one.displayname,
            text: `${format.plural(one.sockets, "socket")}, ${one.instances ? `in ${format.plural(one.instances, "instance")}` : "in no instance"}`,
            suspended: false,
          })),
        };
      }
      const page = await client.http.get("/api/users", { query: { query, limit: LIMIT, offset } });
      return {
        total: page.total,
        people: page.items.map((one): Person => ({
          id: one.id,
          username: one.username,
          displayname: one.displayname,
          text: "status" in one ? one.status : "",
          suspended: one.tags.includes("avr:disabled"),
        })),
      };
    },
    JSON.stringify([query, all, offset]),
  );
  return (
    <>
      <div class="head">
        <h1>People</h1>
        <Search label="Search a name" found={(text) => { setQuery(text); setOffset(0); }} />
        <label class="check">
          <input type="checkbox" checked={all} onChange={() => { setAll(!all); setOffset(0); }} /> Also offline
        </label>
        <button class="button small" type="button" onClick={again}>Look again</button>
      </div>
      <Wrong>{wrong}</Wrong>
      {open && <PersonCard key={open.id} person={open} changed={again} close={() => setOpen(undefined)} />}
      <Table
        label="People"
        columns={[
          {
            name: "Name",
            show: (one) => (
              <>
                <button class="link" type="button" aria-expanded={open?.id === one.id} onClick={() => setOpen(open?.id === one.id ? undefined : one)}>
                  {one.displayname}
                </button>
                {one.suspended && <span class="tag bad">suspended</span>}
              </>
            ),
          },
          { name: "Username", show: (one) => one.username },
          { name: all ? "Status" : "Online with", show: (one) => one.text },
        ]}
        rows={answer?.people ?? []}
        id={(one) => one.id}
        empty={answer ? (all || query ? "Nobody matches." : "Nobody is online.") : "Loading …"}
      />
      <Pager offset={offset} limit={LIMIT} total={answer?.total ?? 0} go={setOffset} />
    </>
  );
}

type Session = DataOf<"get", "/api/users/{ref}/sessions">["items"][number];

interface CardProps {
  person: Person;
  changed: () => void;
  close: () => void;
}

function PersonCard({ person, changed, close }: CardProps) {
  const card = useRef<HTMLElement>(null);
  useEffect(() => card.current?.focus(), []);
  const [act, setAct] = useState<"suspend" | "lift" | { end: string } | undefined>();
  const path = { ref: person.id };
  const { answer, wrong, again } = useList(async () => {
    const where = await client.http.get("/api/users/{ref}/whereabouts", { path });
    const guest = person.id.includes("@");
    const user = guest ? undefined : await client.http.get("/api/users/{ref}", { path });
    const sessions: readonly Session[] = guest
      ? []
      : await client.http
          .get("/api/users/{ref}/sessions", { path })
          .then((page) => page.items, (error: unknown) => (reasonOf(error), []));
    const suspended = user !== undefined && user.tags.includes("avr:disabled");
    return { where, sessions, suspended, guest };
  }, person.id);
  const done = () => {
    setAct(undefined);
    again();
    changed();
  };
  return (
    <section class="card" aria-label={person.displayname} ref={card} tabIndex={-1}>
      <div class="head">
        <h2>{person.displayname} <span class="soft">{person.username}</span></h2>
        {answer && !answer.guest && (
          <button class={`button small ${answer.suspended ? "" : "bad"}`} type="button" onClick={() => setAct(answer.suspended ? "lift" : "suspend")}>
            {answer.suspended ? "Lift the suspension" : "Suspend"}
          </button>
        )}
        <button class="button small" type="button" onClick={close}>Close</button>
      </div>
      <Wrong>{wrong}</Wrong>
      <p class="code soft">{person.id}</p>
      {answer && (
        <>
          <h3>Where</h3>
          {answer.where.sessions.length === 0 && <p class="soft">Not connected.</p>}
          <ul class="plain">
            {answer.where.sessions.map((one) => (
              <li key={one.session}>
                {format.plural(one.sockets, "socket")}
                {one.instances.map((inside) => (
                  <> · <a href={`#/instance/${inside.instance}`}>{inside.instance.slice(0, 10)}…</a></>
                ))}
                {one.instances.length === 0 && <span class="soft"> · in no instance</span>}
              </li>
            ))}
            {answer.where.queues.map((one) => (
              <li key={one}>waits for <a href={`#/instance/${one}`}>{one.slice(0, 10)}…</a></li>
            ))}
          </ul>
          {answer.sessions.length > 0 && (
            <>
              <h3>Sessions</h3>
              <ul class="plain">
                {answer.sessions.map((one) => (
                  <li key={one.id}>
                    <span class="code">{one.id.slice(0, 10)}…</span> since {format.date(one.created_at)}{" "}
                    <button class="button tiny" type="button" onClick={() => setAct({ end: one.id })}>End</button>
                  </li>
                ))}
              </ul>
            </>
          )}
        </>
      )}
      {act === "suspend" && (
        <Confirm
          title={`Suspend ${person.displayname}`}
          text="All its sessions end, and it can't log in."
          reason
          until
          danger
          act={(given) => client.http.post("/api/users/{ref}/suspension", { path, body: given })}
          close={(yes) => (yes ? done() : setAct(undefined))}
        />
      )}
      {act === "lift" && (
        <Confirm
          title="Lift the suspension"
          act={() => client.http.delete("/api/users/{ref}/suspension", { path })}
          close={(yes) => (yes ? done() : setAct(undefined))}
        />
      )}
      {typeof act === "object" && (
        <Confirm
          title="End the session"
          text="Its sockets close, and its players leave."
          danger
          act={() => client.http.delete("/api/users/{ref}/sessions/{session}", { path: { ref: person.id, session: act.end } })}
          close={(yes) => (yes ? done() : setAct(undefined))}
        />
      )}
    </section>
  );
}
