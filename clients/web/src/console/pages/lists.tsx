/** Lists over HTTP: held resources, other servers with their rules, the audit log. */
import { useEffect, useState } from "preact/hooks";

import * as format from "../format.js";
import { client, watch } from "../live.js";
import { Confirm, Pager, Search, Table, useList, Wrong } from "../parts.js";

const LIMIT = 50;

export function Resources() {
  const [query, setQuery] = useState("");
  const [offset, setOffset] = useState(0);
  useEffect(() => watch([]), []);
  const { answer, wrong, again } = useList(
    () => client.http.get("/api/admin/resources", { query: { query, limit: LIMIT, offset } }),
    JSON.stringify([query, offset]),
  );
  return (
    <>
      <div class="head">
        <h1>Held resources</h1>
        <Search label="Search a username" found={(text) => { setQuery(text); setOffset(0); }} />
        <button class="button small" type="button" onClick={again}>Look again</button>
      </div>
      <Wrong>{wrong}</Wrong>
      <Table
        label="Held resources"
        columns={[
          { name: "Resource", show: (one) => <span class="code">{one.type} {one.id}</span> },
          { name: "Held by", show: (one) => one.username },
          { name: "Session", wide: true, show: (one) => <span class="code">{one.session.slice(0, 10)}…</span> },
          { name: "Connected", show: (one) => (one.connected ? "yes" : <span class="tag warn">no</span>) },
          { name: "Until", right: true, show: (one) => format.clock(one.until) },
        ]}
        rows={answer?.items ?? []}
        id={(one) => `${one.type}/${one.id}`}
        empty={answer ? "No session holds a resource." : "Loading …"}
      />
      <Pager offset={offset} limit={LIMIT} total={answer?.total ?? 0} go={setOffset} />
    </>
  );
}

export function Servers() {
  const [offset, setOffset] = useState(0);
  const [act, setAct] = useState<{ kind: "block" | "allow" | "silence"; address: string } | { lift: string } | undefined>();
  useEffect(() => watch([]), []);
  const { answer, wrong, again } = useList(
    () => client.http.get("/api/servers", { query: { limit: LIMIT, offset } }),
    String(offset),
  );
  const rules = useList(() => client.http.get("/api/servers/rules", { query: { limit: 100 } }), "");
  const close = (yes: boolean) => {
    setAct(undefined);
    if (yes) {
      again();
      rules.again();
    }
  };
  return (
    <>
      <h1>Other servers</h1>
      <Wrong>{wrong ?? rules.wrong}</Wrong>
      <Table
        label="Other servers"
        columns={[
          { name: "Server", show: (one) => <span class="code">{one.address}</span> },
          { name: "Key", show: (one) => one.state },
          { name: "Rule", show: (one) => <span class={`tag ${one.decision === "block" ? "bad" : ""}`}>{one.decision}</span> },
          {
            name: "Decide",
            show: (one) => (
              <span class="row">
                {(["allow", "silence", "block"] as const).map((kind) => (
                  <button key={kind} class="button tiny" type="button" aria-label={`${kind} ${one.address}`} onClick={() => setAct({ kind, address: one.address })}>
                    {kind}
                  </button>
                ))}
              </span>
            ),
          },
        ]}
        rows={answer?.items ?? []}
        id={(one) => one.address}
        empty={answer ? "No other server is known." : "Loading …"}
      />
      <Pager offset={offset} limit={LIMIT} total={answer?.total ?? 0} go={setOffset} />
      <h2>Rules</h2>
      <Table
        label="Rules about other servers"
        columns={[
          { name: "Pattern", show: (one) => <span class="code">{one.pattern}</span> },
          { name: "Kind", show: (one) => one.kind },
          { name: "Reason", show: (one) => one.reason ?? "–" },
          { name: "Remove", show: (one) => (
            <button class="button tiny" type="button" aria-label={`Remove the rule for ${one.pattern}`} onClick={() => setAct({ lift: one.pattern })}>Remove</button>
          ) },
        ]}
        rows={rules.answer?.items ?? []}
        id={(one) => one.pattern}
        empty={rules.answer ? "There are no rules." : "Loading …"}
      />
      {act && "kind" in act && (
        <Confirm
          title={`${act.kind.charAt(0).toUpperCase()}${act.kind.slice(1)} ${act.address}`}
          text={act.kind === "block" ? "Its users leave at once, and its objects are not shown." : undefined}
          reason
          until
          danger={act.kind === "block"}
          act={({ reason, until }) =>
            client.http.put("/api/servers/rules", {
              body: {
                pattern: act.address,
                kind: act.kind,
                ...(reason === undefined ? {} : { reason }),
                ...(until === undefined ? {} : { until }),
              },
            })
          }
          close={close}
        />
      )}
      {act && "lift" in act && (
        <Confirm
          title="Remove the rule"
          text={act.lift}
          act={() => client.http.delete("/api/servers/rules", { query: { pattern: act.lift } })}
          close={close}
        />
      )}
    </>
  );
}

export function Audit() {
  const [by, setBy] = useState("");
  const [offset, setOffset] = useState(0);
  useEffect(() => watch([]), []);
  const { answer, wrong, again } = useList(
    () => client.http.get("/api/audit", { query: { limit: LIMIT, offset, ...(by ? { by } : {}) } }),
    JSON.stringify([by, offset]),
  );
  return (
    <>
      <div class="head">
        <h1>Audit log</h1>
        <Search label="Only of this admin" found={(text) => { setBy(text); setOffset(0); }} />
        <button class="button small" type="button" onClick={again}>Look again</button>
      </div>
      <Wrong>{wrong}</Wrong>
      <Table
        label="Audit log"
        columns={[
          { name: "When", show: (one) => <time>{format.date(one.created_at)}</time> },
          { name: "Who", show: (one) => one.by_name },
          { name: "Did", show: (one) => <span class="code">{one.action}</span> },
          { name: "To", show: (one) => <span class="code cut">{one.target_name ?? one.target ?? "–"}</span> },
          { name: "Details", wide: true, show: (one) => <span class="code cut">{JSON.stringify(one.details)}</span> },
          {
            name: "Result",
            show: (one) => (
              <span class={`tag ${one.result === "refused" ? "bad" : ""}`}>
                {one.result ?? "unknown"}{one.error ? ` ${one.error}` : ""}
              </span>
            ),
          },
        ]}
        rows={answer?.items ?? []}
        id={(one) => String(one.number)}
        empty={answer ? "Nothing was done." : "Loading …"}
      />
      <Pager offset={offset} limit={LIMIT} total={answer?.total ?? 0} go={setOffset} />
    </>
  );
}
