/** The page `/docs/sockets`: commands and events, with a search, and a socket to try them. */
import "../shared/theme.css";
import "./sockets.css";
import { signal } from "@preact/signals";
import { render } from "preact";
import { useId } from "preact/hooks";

import { DocsBar } from "../shared/docs_bar.js";
import { type Entry, load, type Socket } from "./api.js";
import { propose, Trial } from "./trial.js";

const sockets = signal<Socket[] | undefined>(undefined);
const problem = signal<string | undefined>(undefined);
const phrase = signal("");

const json = (value: unknown) => JSON.stringify(value, null, 2);

/** Text with `code` in it. */
function Prose({ text }: { text: string }) {
  return <>{text.split("`").map((part, index) => (index % 2 === 1 ? <code key={index}>{part}</code> : part))}</>;
}

const firstSentence = (text: string) => text.split(/(?<=\.)\s/, 1)[0] ?? "";

function Example({ title, value }: { title: string; value: unknown }) {
  return (
    <figure>
      <figcaption>{title}</figcaption>
      <pre tabIndex={0}>{json(value)}</pre>
    </figure>
  );
}

function EntryDetails({ entry }: { entry: Entry }) {
  return (
    <details class="entry" id={entry.id}>
      <summary>
        <span class={`kind ${entry.kind}`}>{entry.kind}</span> <code>{entry.name}</code>
        <span class="brief"><Prose text={firstSentence(entry.about)} /></span>
      </summary>
      <p><Prose text={entry.about} /></p>
      {entry.fields.length > 0 && (
        <div class="scroll" tabIndex={0} role="region" aria-label={`Fields of ${entry.name}`}>
          <table>
            <thead><tr><th>field</th><th>type</th><th>meaning</th></tr></thead>
            <tbody>
              {entry.fields.map((field) => (
                <tr key={field.name}>
                  <td><code>{field.name}</code>{!field.needed && " ?"}</td>
                  <td>{field.type}</td>
                  <td><Prose text={field.about} /></td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      <Example title={entry.kind === "command" ? "Sent by the client" : "Sent by the server"} value={entry.example} />
      {entry.kind === "command" && (
        <button type="button" class="button small" onClick={() => propose(json(entry.example))}>
          Put into “Try it”
        </button>
      )}
      {entry.replies.map((reply) => <Example key={reply.title} title={reply.title} value={reply.example} />)}
    </details>
  );
}

function SocketSection({ socket, words }: { socket: Socket; words: string[] }) {
  const entries = socket.entries.filter(({ text }) => words.every((word) => text.includes(word)));
  if (entries.length === 0) return null;
  return (
    <section id={socket.id}>
      <h2>{socket.title} <code>{socket.address}</code></h2>
      <p><Prose text={socket.about} /></p>
      <details class="entry">
        <summary>Close codes</summary>
        <dl>
          {socket.closeCodes.map(([code, why]) => <div key={code}><dt>{code}</dt><dd><Prose text={why} /></dd></div>)}
        </dl>
      </details>
      {entries.map((entry) => <EntryDetails key={entry.id} entry={entry} />)}
    </section>
  );
}

function Sockets() {
  const id = useId();
  const words = phrase.value.toLowerCase().split(/\s+/).filter(Boolean);
  const many = sockets.value?.flatMap(({ entries }) => entries)
    .filter(({ text }) => words.every((word) => text.includes(word))).length;
  return (
    <>
      <DocsBar now="Sockets" />
      <main>
        <div class="list">
          <h1>Sockets</h1>
          <div class="field">
            <label for={id}>Search commands and events</label>
            <input
              id={id}
              class="input"
              type="search"
              onInput={({ currentTarget }) => (phrase.value = currentTarget.value)}
            />
            <span class="hint" role="status">{many === undefined ? "Loading …" : `${many} found`}</span>
          </div>
          <div role="alert">{problem.value && <p class="notice bad">{problem.value}</p>}</div>
          {sockets.value?.map((socket) => <SocketSection key={socket.id} socket={socket} words={words} />)}
        </div>
        <Trial />
      </main>
    </>
  );
}

render(<Sockets />, document.getElementById("root")!);
load().then(
  (loaded) => (sockets.value = loaded),
  (error: unknown) => (problem.value = `The description can't be loaded: ${error}`),
);
