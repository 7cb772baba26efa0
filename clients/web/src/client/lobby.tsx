/** Worlds and open instances, and how to make them. */
import { useEffect, useState } from "preact/hooks";
import type { RequestOf } from "reileta-client";

import { SERVER } from "../shared/base.js";
import { Choice, Field, Problem, useForm } from "../shared/form.js";
import { ICON } from "../shared/icon.js";
import { Announcement } from "./announcement.js";
import { Dialog } from "./dialog.js";
import { follow, type Instance, instances, lists, type World, worldOf, worlds } from "./live_lists.js";
import { Picture } from "./picture.js";
import { go } from "./route.js";
import { client, link, logout, me } from "./session.js";

type Tag = NonNullable<RequestOf<"put", "/api/instances">["body"]["tags"]>[number];

/** Who may come in, as one reads it. */
const ACCESS: Readonly<Record<string, string>> = {
  "avr:public": "Open to all",
  "avr:friends_plus": "Friends of those inside",
  "avr:friends_only": "Friends of the host",
  "avr:invite_plus": "Invited by those inside",
  "avr:invite_only": "Invited by the host",
  "avr:private": "Closed",
};

export function Lobby() {
  const [making, setMaking] = useState<"world" | "account" | World | undefined>(undefined);
  const temporary = me.value?.temporary === true;
  useEffect(follow, []);
  const open = [...instances.value.values()].sort((a, b) => b.connected - a.connected || b.created_at - a.created_at);
  const all = [...worlds.value.values()];
  const { ready, problem } = lists.value;
  return (
    <div class="lobby">
      <header class="top">
        <img src={ICON} alt="" width={32} height={32} />
        <span class="brand">Reileta</span>
        <span class="who">{me.value?.displayname}</span>
        {me.value?.tags.includes("avr:admin") && <a class="button quiet small" href={`${SERVER}/console`}>Console</a>}
        <button class="button quiet small" onClick={() => void logout()}>Log out</button>
      </header>
      <main>
        <h1 class="unseen">Instances and worlds</h1>
        <div role="status"><Announcement /></div>
        {link.value === "away" && <p class="notice warn" role="status">The connection was lost. Trying again …</p>}
        <Problem>{problem}</Problem>
        {temporary && (
          <div class="notice row guest">
            <p>You look around as a guest. With an account of your own you can make worlds and open instances.</p>
            <button class="button small" onClick={() => setMaking("account")}>Keep this account</button>
          </div>
        )}
        {!ready ? !problem && <p role="status">Loading …</p> : all.length === 0 && !temporary ? <FirstWorld /> : (
          <>
            <section aria-labelledby="open">
              <h2 id="open">Open now</h2>
              {open.length === 0 ? (
                <p class="soft">
                  {temporary
                    ? "Nobody is here now."
                    : "Nobody is here now. Open an instance of a world below, and invite a friend."}
                </p>
              ) : (
                <ul class="cards">{open.map((one) => <InstanceCard key={one.id} instance={one} />)}</ul>
              )}
            </section>
            <section aria-labelledby="worlds">
              <div class="row">
                <h2 id="worlds">Worlds</h2>
                {!temporary && <button class="button small" onClick={() => setMaking("world")}>Make a world</button>}
              </div>
              {all.length === 0 && <p class="soft">There is no world on this server yet.</p>}
              <ul class="cards">
                {all.map((world) => (
                  <WorldCard
                    key={world.id}
                    world={world}
                    like={all.some((other) => other !== world && other.title === world.title)}
                    onOpen={temporary ? undefined : () => setMaking(world)}
                  />
                ))}
              </ul>
            </section>
          </>
        )}
      </main>
      <Terms />
      {making === "world" && (
        <Dialog title="Make a world" onClose={() => setMaking(undefined)}><WorldForm /></Dialog>
      )}
      {making === "account" && temporary && (
        <Dialog title="Keep this account" onClose={() => setMaking(undefined)}><AccountForm /></Dialog>
      )}
      {typeof making === "object" && (
        <Dialog title={`Open an instance of ${making.title}`} onClose={() => setMaking(undefined)}>
          <InstanceForm world={making} />
        </Dialog>
      )}
    </div>
  );
}

function Terms() {
  const licenses = document.querySelector<HTMLLinkElement>("link[rel=license]")?.href;
  return (
    <footer class="foot">
      <a href={`${SERVER}/docs`}>For developers</a>
      {licenses && <a href={licenses}>Licenses</a>}
    </footer>
  );
}

function InstanceCard({ instance }: { instance: Instance }) {
  const world = worlds.value.get(worldOf(instance));
  const free = Math.max(0, instance.capacity - instance.connected);
  const title = instance.title ?? world?.title ?? instance.name;
  const access = instance.tags.find((tag) => tag in ACCESS && tag !== "avr:public");
  return (
    <li class="card tile">
      <Picture id={worldOf(instance)} world={world} />
      <div class="tile-body">
        <h3>{title}</h3>
        <p class="soft">
          {[world && world.title !== title ? world.title : undefined, access ? ACCESS[access] : nameOf(instance)]
            .filter(Boolean)
            .join(" · ") || "Open to all"}
        </p>
        <p class="seats">
          <span class={free > 0 ? "free" : "full"}>{free > 0 ? `${free} free` : "Full"}</span>
          <span class="soft">
            {" · "}{instance.connected} of {instance.capacity} inside{instance.queued > 0 ? `, ${instance.queued} in line` : ""}
          </span>
        </p>
        <button class="button main" onClick={() => go({ at: "instance", instance: instance.id })}>
          {free > 0 ? "Go in" : "Stand in line"}
          <span class="unseen"> {free > 0 ? "to" : "for"} {title}</span>
        </button>
      </div>
    </li>
  );
}

/** The instance's name, unless the server made it: those say nothing to people. */
function nameOf({ name }: Instance): string | undefined {
  return /^i-[0-9a-f]{10}$/.test(name) ? undefined : name;
}

/** `like`: whether another world has the same title. Then its owner and its age tell them apart. */
function WorldCard({ world, like, onOpen }: { world: World; like: boolean; onOpen: (() => void) | undefined }) {
  const own = world.owner.startsWith(`${me.value?.id}@`);
  return (
    <li class="card tile">
      <Picture id={world.id} world={world} />
      <div class="tile-body">
        <h3>{world.title}</h3>
        <p class="soft clamp">{world.description || `Room for ${world.capacity}`}</p>
        {like && (
          <p class="soft">
            {own ? "Yours" : "Somebody else's"}, made {new Date(world.created_at).toLocaleString([], { dateStyle: "medium", timeStyle: "short" })}
          </p>
        )}
        {onOpen && (
          <button class="button" onClick={onOpen}>Open an instance<span class="unseen"> of {world.title}</span></button>
        )}
      </div>
    </li>
  );
}

function FirstWorld() {
  return (
    <section class="card first" aria-labelledby="first">
      <Picture id="w_first" world={undefined} />
      <div class="first-body">
        <h2 id="first">Make the first world</h2>
        <p class="soft">
          There is no world on this server yet. Give one a name and step in. Then send its link to a friend.
        </p>
        <WorldForm quick />
      </div>
    </section>
  );
}

/** Makes a temporary account a full one; the dialog closes when it is. */
function AccountForm() {
  const { busy, general, fields, submit } = useForm(["username", "password"], async (data) => {
    const username = String(data.get("username") ?? "").trim();
    me.value = await client.keepAccount(username, String(data.get("password") ?? ""), username);
  });
  return (
    <form class="form" onSubmit={submit} noValidate>
      <Problem>{general}</Problem>
      <Field
        label="Username" name="username" autocomplete="username" autocapitalize="none" spellcheck={false}
        maxLength={32} wrong={fields["username"]} hint="3 to 32 letters, digits or _; others find you by it"
      />
      <Field
        label="Password" name="password" type="password" autocomplete="new-password" maxLength={256}
        wrong={fields["password"]} hint="At least 8 characters"
      />
      <button class="button main" disabled={busy}>{busy ? "One moment …" : "Keep it"}</button>
    </form>
  );
}

/** Makes a world, opens an instance of it, and goes in. */
function WorldForm({ quick = false }: { quick?: boolean }) {
  const names = quick ? ["title"] : ["title", "description", "capacity"];
  const { busy, general, fields, submit } = useForm(names, async (data) => {
    const made = await client.http.put("/api/worlds", {
      body: {
        title: String(data.get("title") ?? ""),
        ...(data.get("description") ? { description: String(data.get("description")) } : {}),
        ...(data.get("capacity") ? { capacity: Number(data.get("capacity")) } : {}),
      },
    });
    const { id } = await client.http.put("/api/instances", { body: { world: made.id } });
    go({ at: "instance", instance: id });
  });
  return (
    <form class="form" onSubmit={submit} noValidate>
      <Problem>{general}</Problem>
      <Field label="Name of the world" name="title" defaultValue="A meadow" maxLength={128} wrong={fields["title"]} />
      {!quick && (
        <>
          <Field label="Description (optional)" name="description" maxLength={4096} wrong={fields["description"]} />
          <Field
            label="Seats" name="capacity" type="number" min={1} max={1024} defaultValue="16"
            wrong={fields["capacity"]} hint="How many can be in one instance: 1 to 1,024"
          />
        </>
      )}
      <button class="button main" disabled={busy}>{busy ? "One moment …" : "Make it and go in"}</button>
    </form>
  );
}

function InstanceForm({ world }: { world: World }) {
  const { busy, general, fields, submit } = useForm(["title", "capacity"], async (data) => {
    const title = String(data.get("title") ?? "").trim();
    const { id } = await client.http.put("/api/instances", {
      body: {
        world: world.id,
        capacity: Number(data.get("capacity")),
        tags: [String(data.get("access")) as Tag],
        ...(title ? { title } : {}),
      },
    });
    go({ at: "instance", instance: id });
  });
  return (
    <form class="form" onSubmit={submit} noValidate>
      <Problem>{general}</Problem>
      <Field label="Title (optional)" name="title" maxLength={128} wrong={fields["title"]} hint="What the others see in the list" />
      <Field
        label="Seats" name="capacity" type="number" min={1} max={1024} defaultValue={String(world.capacity)}
        wrong={fields["capacity"]}
      />
      <Choice label="Who may come in" name="access">
        {Object.entries(ACCESS).map(([tag, text]) => <option key={tag} value={tag}>{text}</option>)}
      </Choice>
      <button class="button main" disabled={busy}>{busy ? "One moment …" : "Open it and go in"}</button>
    </form>
  );
}
