/** The console at `/console`, for admins of the server. */
import "../shared/theme.css";
import "./console.css";
import { signal } from "@preact/signals";
import { render } from "preact";
import { useEffect, useId, useState } from "preact/hooks";

import { words } from "../shared/words.js";
import { client, follow, link, refusal } from "./live.js";
import { Wrong } from "./parts.js";
import { Actors, Traces } from "./pages/inside.js";
import { InstancePage } from "./pages/instance.js";
import { Instances } from "./pages/instances.js";
import { Audit, Resources, Servers } from "./pages/lists.js";
import { Notice } from "./pages/notice.js";
import { Overview } from "./pages/overview.js";
import { People } from "./pages/people.js";

const PAGES: [string, string, () => preact.JSX.Element][] = [
  ["", "Overview", Overview],
  ["instances", "Instances", Instances],
  ["people", "People", People],
  ["resources", "Resources", Resources],
  ["servers", "Servers", Servers],
  ["actors", "Actors", Actors],
  ["traces", "Traces", Traces],
  ["audit", "Audit log", Audit],
  ["notice", "Tell everyone", Notice],
];

const STATES = { opening: "Connecting …", open: "Live", lost: "Reconnecting …", closed: "" };

/** Who looks: undefined while it is not known, null for nobody. */
const admin = signal<string | null | undefined>(undefined);
const place = signal(location.hash.replace(/^#\/?/, ""));
addEventListener("hashchange", () => {
  place.value = location.hash.replace(/^#\/?/, "");
  document.querySelector("main")?.focus({ preventScroll: true });
  scrollTo(0, 0);
});

/** Looks who is logged in. */
async function recognize(): Promise<void> {
  if (!client.loggedIn) {
    admin.value = null;
    return;
  }
  const user = await client.http.get("/api/users/@me" as "/api/users/{ref}", {} as never);
  enter(user);
}

function enter(user: { username: string; tags: readonly string[] }): void {
  if (!user.tags.includes("avr:admin")) throw new NotAdmin(user.username);
  admin.value = user.username;
  follow();
}

class NotAdmin extends Error {}

function Login() {
  const id = useId();
  const [wrong, setWrong] = useState<string | undefined>();
  const [busy, setBusy] = useState(false);

  async function submit(event: SubmitEvent) {
    event.preventDefault();
    const given = new FormData(event.currentTarget as HTMLFormElement);
    setBusy(true);
    setWrong(undefined);
    try {
      enter(await client.login(String(given.get("username")), String(given.get("password"))));
    } catch (error) {
      if (error instanceof NotAdmin) setWrong("This account is not an admin of the server.");
      else setWrong(words(error));
    }
    setBusy(false);
  }

  return (
    <main class="login">
      <form class="card form" onSubmit={submit}>
        <h1>Console</h1>
        <p class="soft">
          For admins of this server. The first one is “admin”: the server showed the password when it started for
          the first time.
        </p>
        <div class="field">
          <label for={`${id}-name`}>Username</label>
          <input class="input" id={`${id}-name`} name="username" autoComplete="username" autoCapitalize="none" required />
        </div>
        <div class="field">
          <label for={`${id}-password`}>Password</label>
          <input class="input" id={`${id}-password`} name="password" type="password" autoComplete="current-password" required />
        </div>
        <Wrong>{wrong}</Wrong>
        <p class="actions"><button class="button main" type="submit" disabled={busy}>Log in</button></p>
      </form>
    </main>
  );
}

function Console() {
  const [name = "", id = ""] = place.value.split("/");
  const found = PAGES.find(([one]) => one === name);
  const Page = found?.[2] ?? Overview;
  useEffect(() => {
    document.title = `${found?.[1] ?? "Instance"} · Console · Reileta`;
    // On a phone, the pages are in one row that scrolls.
    document.querySelector("nav [aria-current]")?.scrollIntoView({ inline: "center", block: "nearest" });
  }, [name]);
  const current = name === "instance" ? "instances" : name;
  return (
    <div class="frame">
      <header>
        <a class="skip" href="#content" onClick={(event) => {
          event.preventDefault();
          document.querySelector("main")?.focus();
        }}>
          Skip to the content
        </a>
        <p class="brand">Reileta <span class="soft">Console</span></p>
        <nav aria-label="Pages">
          <ul>
            {PAGES.map(([one, title]) => (
              <li key={one}>
                <a href={`#/${one}`} aria-current={one === current ? "page" : undefined}>{title}</a>
              </li>
            ))}
          </ul>
        </nav>
        <p class="who">
          <span class={`state ${link.value === "open" ? "ready" : "silent"}`} aria-hidden="true" />
          <span role="status">{STATES[link.value]}</span>
          <span class="soft">{admin.value}</span>
          <button class="button tiny" type="button" onClick={() => void client.logout().finally(() => (admin.value = null))}>
            Log out
          </button>
        </p>
      </header>
      <main id="content" tabIndex={-1}>
        <Wrong>{refusal.value}</Wrong>
        {link.value === "lost" && (
          <p class="notice warn">The connection was lost. This page shows what was seen last, and goes on by itself.</p>
        )}
        {name === "instance" && id ? <InstancePage key={id} id={decodeURIComponent(id)} /> : <Page key={name} />}
      </main>
    </div>
  );
}

function App() {
  if (admin.value === undefined) return <main class="login"><p class="soft">Loading …</p></main>;
  // The connection ends when the session has ended: by an admin, or in another tab.
  if (admin.value === null || link.value === "closed") return <Login />;
  return <Console />;
}

const root = document.querySelector("#root");
if (root) {
  recognize().catch(() => (admin.value = null));
  render(<App />, root);
}
