/** One visit to an instance: asking for a seat, standing in line, being inside, and its end. */
import { useEffect, useRef, useState } from "preact/hooks";
import { ErrorCode, Refused, type Room, type RoomEvents, type Standing } from "reileta-client";

import { ICON } from "../shared/icon.js";
import { words } from "../shared/words.js";
import { type Instance, learn, type World, worldOf } from "./live_lists.js";
import { Picture } from "./picture.js";
import { Inside } from "./room.js";
import { RoomModel } from "./room_model.js";
import { go } from "./route.js";
import { client, connect, me } from "./session.js";

type State =
  | { at: "asking" }
  | { at: "waiting"; standing: Standing }
  | { at: "inside"; model: RoomModel }
  | { at: "over"; title: string; text: string; again: boolean };

export function Visit({ instance: ref }: { instance: string }) {
  const [state, setState] = useState<State>({ at: "asking" });
  const [instance, setInstance] = useState<Instance | undefined>(undefined);
  const [world, setWorld] = useState<World | undefined>(undefined);
  const [attempt, setAttempt] = useState(0);

  useEffect(() => {
    const cancel = new AbortController();
    let room: Room | undefined;
    let model: RoomModel | undefined;
    async function begin() {
      setState({ at: "asking" });
      connect();
      try {
        const about = (await client.http.get("/api/instances/{ref}", { path: { ref } })) as Instance;
        setInstance(about);
        const place = await learn(worldOf(about));
        setWorld(place);
        room = await client.join(about.id, {
          wait: true,
          signal: cancel.signal,
          onQueue: (standing) => setState({ at: "waiting", standing }),
        });
        if (cancel.signal.aborted) return void room.leave().catch(() => {});
        room.on("ended", (end) => setState(over(end)));
        model = new RoomModel(room, about, place);
        setState({ at: "inside", model });
      } catch (error) {
        if (!cancel.signal.aborted) setState(refused(error));
      }
    }
    void begin();
    return () => {
      cancel.abort();
      model?.dispose();
      room?.leave().catch(() => {});
    };
  }, [ref, attempt]);

  if (state.at === "inside") return <Inside model={state.model} />;
  const title = instance?.title ?? world?.title ?? instance?.name ?? "…";
  return (
    <main class="between">
      <div class="card panel">
        {instance ? <Picture id={worldOf(instance)} world={world} /> : <img src={ICON} alt="" width={56} height={56} />}
        <div class="panel-body">
          {state.at === "asking" && (
            <>
              <h1>{title}</h1>
              <p role="status" class="soft">Asking for a seat …</p>
            </>
          )}
          {state.at === "waiting" && <Line title={title} standing={state.standing} />}
          {state.at === "over" && <End {...state} onAgain={() => setAttempt(attempt + 1)} />}
          {state.at !== "over" && (
            <button class="button" onClick={() => go({ at: "lobby" })}>
              {state.at === "waiting" ? "Leave the line" : "Back to the list"}
            </button>
          )}
        </div>
      </div>
    </main>
  );
}

function Line({ title, standing: { state, position, queued } }: { title: string; standing: Standing }) {
  const uninvited = state === "pending" || position === undefined;
  return (
    <>
      <h1>{title} is {uninvited ? "by invitation" : "full"}</h1>
      <div role="status" class="line">
        {uninvited ? (
          <p>You asked to come in. Keep this page open: you go in by yourself when you are invited.</p>
        ) : (
          <>
            <p class="place"><span class="number">{position}</span> Your place in line</p>
            <p class="soft">
              {position === 1 ? "The next free seat is yours."
                : position === 2 ? "One person is before you."
                : `${position - 1} people are before you.`}
              {queued !== undefined && queued > 1 ? ` ${queued} wait in all.` : ""} Keep this page open: you go in by yourself.
            </p>
          </>
        )}
      </div>
    </>
  );
}

function End({ title, text, again, onAgain }: { title: string; text: string; again: boolean; onAgain: () => void }) {
  const heading = useRef<HTMLHeadingElement>(null);
  useEffect(() => heading.current?.focus(), []);
  return (
    <>
      <h1 tabIndex={-1} ref={heading}>{title}</h1>
      <p role="alert">{text}</p>
      <div class="row">
        <button class="button main" onClick={() => go({ at: "lobby" })}>Back to the list</button>
        {again && <button class="button" onClick={onAgain}>Try again</button>}
      </div>
    </>
  );
}

function over({ reason, note, error }: RoomEvents["ended"]): State {
  const because = note ? ` The reason: “${note}”` : " No reason was given.";
  switch (reason) {
    case "kicked":
      return { at: "over", title: "You were removed", text: `A moderator removed you from this instance.${because}`, again: true };
    case "banned":
      return { at: "over", title: "You were banned", text: `A moderator banned you from this instance.${because}`, again: false };
    case "closed":
      return { at: "over", title: "The instance has closed", text: note ? `It has closed: ${note}` : "Its host closed it.", again: false };
    case "left":
      return { at: "over", title: "You have left", text: "Your player left this instance.", again: true };
    case "server-blocked":
      return { at: "over", title: "You can't be here", text: "Users of your server may not be here any more.", again: false };
    case "refused":
      return refused(error);
    default:
      return { at: "over", title: "The connection ended", text: "The seat is free again. Come back when you are online.", again: true };
  }
}

function refused(error: unknown): State {
  const gone = error instanceof Refused && error.code === ErrorCode.InstanceNotFound;
  const banned = error instanceof Refused && error.code === ErrorCode.Banned;
  const title = gone ? "There is no such instance" : banned ? "You are banned here" : "You can't go in";
  return { at: "over", title, text: words(error), again: !gone && !banned && me.value !== undefined };
}
