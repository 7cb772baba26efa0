/** "Try it": a socket of one's own, and what goes through it. */
import { signal } from "@preact/signals";
import { useId } from "preact/hooks";
import { Client } from "reileta-client";

import { SERVER } from "../shared/base.js";

const client = new Client(SERVER);
const PATHS = ["/api/ws", "/ws/user", "/ws/autopilot"];
const KEPT = 200;

interface Line {
  number: number;
  way: "sent" | "got" | "note";
  text: string;
}

const state = signal<"closed" | "opening" | "open">("closed");
const lines = signal<Line[]>([]);
const path = signal(PATHS[0]!);
const token = signal(client.token ?? "");
const draft = signal('{"state": 1, "command": "ping"}');
let socket: WebSocket | undefined;
let number = 0;

function note(way: Line["way"], text: string): void {
  lines.value = [...lines.value, { number: (number += 1), way, text }].slice(-KEPT);
}

function open(): void {
  const url = new URL(SERVER + path.value);
  url.protocol = url.protocol.replace("http", "ws");
  const credential = token.value.trim();
  // The session API takes the credential only with the upgrade.
  const session = path.value.startsWith("/ws/");
  if (session && credential !== "") url.searchParams.set("authuser", credential);
  const opened = new WebSocket(url);
  socket = opened;
  state.value = "opening";
  opened.onopen = () => {
    state.value = "open";
    note("note", `${path.value} is open`);
    if (!session && credential !== "") {
      opened.send(JSON.stringify({ state: 0, command: "authenticate", data: { token: credential } }));
      note("sent", '{"state": 0, "command": "authenticate", …}');
    }
  };
  opened.onmessage = ({ data }) => note("got", String(data));
  opened.onclose = ({ code, reason }) => {
    state.value = "closed";
    const why = code === 1006 ? "the server refused it, or the connection broke" : `${code} ${reason}`;
    note("note", `closed: ${why}`);
  };
}

/** Puts a message where it can be changed and sent. */
export function propose(message: string): void {
  draft.value = message;
  document.getElementById("trial")?.scrollIntoView({ block: "nearest" });
}

function send(): void {
  socket?.send(draft.value);
  note("sent", draft.value);
}

export function Trial() {
  const id = useId();
  return (
    <section class="trial" id="trial" aria-labelledby={`${id}-title`}>
      <h2 id={`${id}-title`}>Try it</h2>
      <div class="field">
        <label for={`${id}-path`}>Socket</label>
        <select
          id={`${id}-path`}
          class="input"
          value={path}
          disabled={state.value !== "closed"}
          onChange={({ currentTarget }) => (path.value = currentTarget.value)}
        >
          {PATHS.map((one) => <option key={one}>{one}</option>)}
        </select>
      </div>
      <div class="field">
        <label for={`${id}-token`}>Token</label>
        <input
          id={`${id}-token`}
          class="input"
          type="password"
          autocomplete="off"
          value={token}
          disabled={state.value !== "closed"}
          onInput={({ currentTarget }) => (token.value = currentTarget.value)}
        />
        <span class="hint">
          {client.token === undefined ? "Of a login, such as ua_…" : "That of your login in this browser."}
        </span>
      </div>
      {state.value === "closed"
        ? <button type="button" class="button main" onClick={open}>Connect</button>
        : <button type="button" class="button" onClick={() => socket?.close(1000)}>Disconnect</button>}
      <div class="field">
        <label for={`${id}-draft`}>Message</label>
        <textarea
          id={`${id}-draft`}
          class="input"
          rows={6}
          spellcheck={false}
          value={draft}
          onInput={({ currentTarget }) => (draft.value = currentTarget.value)}
        />
      </div>
      <button type="button" class="button" disabled={state.value !== "open"} onClick={send}>Send</button>
      <div class="log" role="log" aria-label="Messages" tabIndex={0}>
        {lines.value.toReversed().map((line) => (
          <pre key={line.number} class={line.way}>
            <b>{line.way === "sent" ? "→" : line.way === "got" ? "←" : "·"}</b> {line.text}
          </pre>
        ))}
      </div>
    </section>
  );
}
