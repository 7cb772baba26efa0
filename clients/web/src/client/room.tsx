/** Inside an instance: the scene, and over it the bar, the talk and the people. */
import { useEffect, useRef, useState } from "preact/hooks";
import type { ModerationType, Player } from "reileta-client";

import { Problem } from "../shared/form.js";
import { SERVER } from "../shared/base.js";
import { words } from "../shared/words.js";
import { Announcement } from "./announcement.js";
import { Dialog } from "./dialog.js";
import type { RoomModel } from "./room_model.js";
import { go } from "./route.js";
import { LIGHTS, type Light } from "./scene/look.js";
import { turn } from "./scene/pose.js";
import type { Stage } from "./scene/stage.js";
import type { Stick } from "./scene/controls.js";
import { client } from "./session.js";

const ROLES: Record<string, string> = { owner: "Owner", admin: "Admin", master: "Master", moderator: "Moderator" };
const LOOK_AGAIN_MS = 1_000;

export function Inside({ model }: { model: RoomModel }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const field = useRef<HTMLInputElement>(null);
  const [stage, setStage] = useState<Stage | undefined>(undefined);
  const [stick, setStick] = useState<Stick | undefined>(undefined);
  const [panel, setPanel] = useState<"people" | "room" | undefined>(undefined);
  const [problem, setProblem] = useState<string | undefined>(undefined);
  const [headset, setHeadset] = useState(false);

  useEffect(() => {
    let made: Stage | undefined;
    let over = false;
    import("./scene/stage.js")
      .then(({ Stage: Made }) => {
        if (over || !canvas.current) return;
        made = new Made(canvas.current, {
          world: model.worldId,
          look: model.look.value,
          start: place(model),
          moved: (pose) => model.moved(pose),
        });
        made.controls.onStick = setStick;
        model.show(made);
        setStage(made);
        canvas.current.focus();
      })
      .catch((error: unknown) => {
        setProblem(`The scene can't be drawn (${words(error)}). You can still talk.`);
      });
    navigator.xr?.isSessionSupported("immersive-vr").then(setHeadset, () => {});
    return () => {
      over = true;
      model.hide();
      made?.dispose();
    };
  }, [model]);

  const count = model.players.value.length;
  const { capacity } = model.instance.value;
  function keys(event: KeyboardEvent) {
    if (event.key === "Enter" || event.key === "t") {
      event.preventDefault();
      field.current?.focus();
    }
  }
  const toggle = (which: "people" | "room") => setPanel(panel === which ? undefined : which);
  return (
    <div class="room">
      <canvas
        ref={canvas} tabIndex={0} role="application" onKeyDown={keys}
        aria-label="The room. W, A, S and D walk, the arrow keys walk and turn, Enter goes to the chat."
      />
      {stick && <StickMark stick={stick} />}
      <header class="bar">
        <button class="button small" onClick={() => go({ at: "lobby" })}>Leave</button>
        <div class="bar-title">
          <h1>{model.title}</h1>
          <p>{count} of {capacity} here</p>
        </div>
        {headset && stage && (
          <button
            class="button small main"
            onClick={() => stage.enterHeadset().catch((error: unknown) => setProblem(words(error)))}
          >
            Enter VR
          </button>
        )}
        <button class="button small" aria-expanded={panel === "people"} onClick={() => toggle("people")}>
          People<span class="unseen">: {count}</span>
        </button>
        <button class="button small" aria-expanded={panel === "room"} onClick={() => toggle("room")}>Room</button>
      </header>
      <div class="notices">
        <div role="status">
          <Announcement />
          {model.away.value && <p class="notice warn">The connection was lost. Coming back …</p>}
          {!stage && !problem && <p class="notice">Drawing the room …</p>}
        </div>
        <div role="alert">
          {problem && <p class="notice warn">{problem}</p>}
          {model.notice.value && (
            <p class="notice warn">
              {model.notice.value}{" "}
              <button class="button small" onClick={() => (model.notice.value = undefined)}>Understood</button>
            </p>
          )}
        </div>
      </div>
      {panel === "people" && <People model={model} stage={stage} onClose={() => setPanel(undefined)} />}
      {panel === "room" && <Settings model={model} stage={stage} onClose={() => setPanel(undefined)} />}
      <Chat model={model} field={field} onDone={() => canvas.current?.focus()} />
    </div>
  );
}

/** Where a player comes in: on the ring round the fire, looking at it; the next ones beside. */
function place(model: RoomModel): { x: number; z: number; yaw: number } {
  const index = model.players.value.findIndex((one) => one.player === model.room.player);
  const angle = Math.max(0, index) * 2.75;
  const far = 3.2 + Math.floor(Math.max(0, index) / 9) * 1.1;
  return { x: Math.sin(angle) * far, z: Math.cos(angle) * far, yaw: angle };
}

function StickMark({ stick: { from, by } }: { stick: Stick }) {
  return (
    <svg class="stick" viewBox="-60 -60 120 120" style={{ left: `${from.x}px`, top: `${from.y}px` }} aria-hidden="true">
      <circle r="56" class="stick-ring" />
      <circle r="24" cx={by.x * 0.6} cy={by.y * 0.6} class="stick-knob" />
    </svg>
  );
}

function Chat({
  model,
  field,
  onDone,
}: {
  model: RoomModel;
  field: { current: HTMLInputElement | null };
  onDone: () => void;
}) {
  const log = useRef<HTMLDivElement>(null);
  const [text, setText] = useState("");
  const [wrong, setWrong] = useState<string | undefined>(undefined);
  const lines = model.lines.value;
  const typing = model.players.value.filter((one) => model.typing.value.has(one.player));
  useEffect(() => {
    if (log.current) log.current.scrollTop = log.current.scrollHeight;
  }, [lines.length && lines.at(-1)?.number]);
  useEffect(() => {
    // The keyboard of a phone leaves less room: the newest line stays in sight.
    const seen = new ResizeObserver(([entry]) => entry?.target.scrollTo({ top: entry.target.scrollHeight }));
    if (log.current) seen.observe(log.current);
    return () => seen.disconnect();
  }, []);

  async function submit(event: SubmitEvent) {
    event.preventDefault();
    const said = text;
    setText("");
    setWrong(undefined);
    try {
      await model.say(said);
    } catch (error) {
      setText((now) => now || said);
      setWrong(words(error));
    }
  }
  return (
    <section class="chat" aria-label="Chat">
      <div ref={log} class="log" role="log" aria-label="Messages" tabIndex={0}>
        {lines.map(({ number, from, own, text: said }) => (
          <p key={number} class={from === undefined ? "event" : own ? "own" : "other"}>
            {from !== undefined && <b>{from}: </b>}{said}
          </p>
        ))}
      </div>
      <p class="typing" role="status">{typing.length > 0 && `${names(typing)} …`}</p>
      <form onSubmit={submit}>
        <label class="unseen" for="say">Say to all</label>
        <input
          id="say" ref={field} class="input" value={text} maxLength={500} autocomplete="off"
          placeholder="Say something" enterkeyhint="send"
          aria-invalid={wrong ? "true" : undefined} aria-describedby={wrong ? "say-wrong" : undefined}
          onInput={(event) => {
            setText(event.currentTarget.value);
            if (event.currentTarget.value) model.nowTyping();
            else model.stopTyping();
          }}
          onKeyDown={(event) => {
            if (event.key === "Escape") onDone();
          }}
        />
        <button class="button main">Send</button>
      </form>
      <div role="alert">{wrong && <p id="say-wrong" class="notice bad">{wrong}</p>}</div>
    </section>
  );
}

function names(players: readonly Player[]): string {
  const [first, second] = players.map((one) => one.displayname);
  if (players.length > 2) return `${first} and ${players.length - 1} others are typing`;
  return second === undefined ? `${first} is typing` : `${first} and ${second} are typing`;
}

function People({ model, stage, onClose }: { model: RoomModel; stage: Stage | undefined; onClose: () => void }) {
  const [, setTick] = useState(0);
  const [managed, setManaged] = useState<Player | undefined>(undefined);
  useEffect(() => {
    const timer = setInterval(() => setTick((tick) => tick + 1), LOOK_AGAIN_MS);
    return () => clearInterval(timer);
  }, []);
  return (
    <aside class="panel-side" aria-label="People">
      <div class="dialog-head">
        <h2>People</h2>
        <button class="button quiet small" onClick={onClose}>Close</button>
      </div>
      <ul class="people">
        {model.players.value.map((player) => {
          const own = player.player === model.room.player;
          const facts = [
            ROLES[player.role],
            model.instance.value.master === player.user && player.role !== "master" ? "Master" : undefined,
            model.muted.value.has(player.user) ? "Muted" : undefined,
            own ? "You" : stage && whereabouts(stage, player.player),
          ].filter(Boolean);
          return (
            <li key={player.player}>
              <div>
                <span class="name">{player.displayname}</span>
                <span class="soft">{facts.join(" · ")}</span>
              </div>
              {model.mayModerate(player) && (
                <button class="button small" onClick={() => setManaged(player)}>
                  Moderate<span class="unseen"> {player.displayname}</span>
                </button>
              )}
            </li>
          );
        })}
      </ul>
      {managed && <Moderate model={model} player={managed} onClose={() => setManaged(undefined)} />}
    </aside>
  );
}

/** Where another player stands, as one says it. */
function whereabouts(stage: Stage, player: string): string {
  const there = stage.avatars.where(player);
  if (!there) return "arriving";
  const here = stage.pose;
  const metres = Math.hypot(there.x - here.x, there.z - here.z);
  if (metres < 0.5) return "right here";
  const angle = turn(Math.atan2(here.x - there.x, here.z - there.z) - here.yaw);
  const side = Math.abs(angle) < Math.PI / 4 ? "ahead" : Math.abs(angle) > (3 * Math.PI) / 4 ? "behind" : angle > 0 ? "left" : "right";
  return `${metres.toFixed(1)} m ${side}`;
}

function Moderate({ model, player, onClose }: { model: RoomModel; player: Player; onClose: () => void }) {
  const [reason, setReason] = useState("");
  const [problem, setProblem] = useState<string | undefined>(undefined);
  const [busy, setBusy] = useState(false);
  const muted = model.muted.value.has(player.user);
  async function act(type: ModerationType) {
    setBusy(true);
    setProblem(undefined);
    try {
      await model.moderate(player, type, reason);
      onClose();
    } catch (error) {
      setProblem(words(error));
      setBusy(false);
    }
  }
  return (
    <Dialog title={`Moderate ${player.displayname}`} onClose={onClose}>
      <div class="form">
        <Problem>{problem}</Problem>
        <div class="field">
          <label for="reason">Reason</label>
          <input
            id="reason" class="input" value={reason} maxLength={500}
            aria-describedby="reason-hint" onInput={(event) => setReason(event.currentTarget.value)}
          />
          <span class="hint" id="reason-hint">{player.displayname} reads it.</span>
        </div>
        <div class="deeds">
          <button class="button" disabled={busy} onClick={() => void act("warn")}>Warn</button>
          <button class="button" disabled={busy} onClick={() => void act(muted ? "unmute" : "mute")}>
            {muted ? "Unmute" : "Mute"}
          </button>
          <button class="button bad" disabled={busy} onClick={() => void act("kick")}>Kick</button>
          <button class="button bad" disabled={busy} onClick={() => void act("ban")}>Ban</button>
        </div>
      </div>
    </Dialog>
  );
}

function Settings({ model, stage, onClose }: { model: RoomModel; stage: Stage | undefined; onClose: () => void }) {
  const [done, setDone] = useState("");
  const link = `${location.origin}${location.pathname}#/in/${model.room.id}`;
  const owned = model.world?.owner.startsWith(`${client.connection.user?.id}@`);
  async function copy() {
    try {
      await navigator.clipboard.writeText(link);
      setDone("The link is copied. Send it to a friend.");
    } catch {
      setDone("The browser does not copy here. Copy the link by hand.");
    }
  }
  async function picture() {
    try {
      const blob = await stage?.picture();
      if (!blob) return;
      const answer = await fetch(`${SERVER}/api/worlds/${model.worldId}/thumbnail`, {
        method: "POST",
        headers: { "Content-Type": "image/png", Authorization: `Bearer ${client.token}` },
        body: blob,
      });
      setDone(answer.ok ? "This view is the world's picture now." : "The server did not take the picture.");
    } catch (error) {
      setDone(words(error));
    }
  }
  return (
    <aside class="panel-side" aria-label="Room">
      <div class="dialog-head">
        <h2>Room</h2>
        <button class="button quiet small" onClick={onClose}>Close</button>
      </div>
      <div class="form">
        <div class="field">
          <label for="link">Link for friends</label>
          <input id="link" class="input" readOnly value={link} onFocus={(event) => event.currentTarget.select()} />
        </div>
        <button class="button" onClick={() => void copy()}>Copy the link</button>
        {model.isMaster.value ? (
          <>
            <div class="field">
              <label for="light">Light</label>
              <select
                id="light" class="input" value={model.look.value.light}
                onChange={(event) => model.setLight(event.currentTarget.value as Light)}
              >
                {Object.entries(LIGHTS).map(([light, name]) => <option key={light} value={light}>{name}</option>)}
              </select>
            </div>
            <button class="button" onClick={() => model.moveFire()}>Move the fire in front of me</button>
          </>
        ) : (
          <p class="soft">Light: {LIGHTS[model.look.value.light]}. The master of the room can change it.</p>
        )}
        {owned && stage && (
          <button class="button" onClick={() => void picture()}>Use this view as world picture</button>
        )}
        <p role="status" class="soft">{done}</p>
      </div>
    </aside>
  );
}
