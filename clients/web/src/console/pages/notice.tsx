/** What everyone who is connected is to read. */
import { useEffect, useId, useState } from "preact/hooks";

import * as format from "../format.js";
import { client, reasonOf, watch } from "../live.js";
import { useList, Wrong } from "../parts.js";

export function Notice() {
  const id = useId();
  const [wrong, setWrong] = useState<string | undefined>();
  const [done, setDone] = useState<string | undefined>();
  useEffect(() => watch([]), []);
  const { answer, again } = useList(() => client.http.get("/api/server/notice", {}), "");

  function forget() {
    setWrong(undefined);
    setDone(undefined);
  }

  async function tell(event: SubmitEvent) {
    event.preventDefault();
    const form = event.currentTarget as HTMLFormElement;
    const given = new FormData(form);
    const minutes = Number(given.get("minutes") ?? 0);
    const level = String(given.get("level"));
    forget();
    try {
      await client.http.post("/api/server/notice", {
        body: {
          text: String(given.get("text")),
          level: level === "warning" || level === "critical" ? level : "info",
          ...(minutes > 0 ? { until: Date.now() + minutes * 60_000 } : {}),
        },
      });
      setDone("Everyone was told.");
      form.reset();
    } catch (error) {
      setWrong(reasonOf(error));
    }
    again();
  }

  async function withdraw() {
    forget();
    try {
      await client.http.delete("/api/server/notice", {});
      setDone("It was taken back.");
    } catch (error) {
      setWrong(reasonOf(error));
    }
    again();
  }

  return (
    <>
      <h1>Tell everyone</h1>
      {answer?.text && (
        <section class="card" aria-label="The notice now">
          <h2>Shown to those who connect</h2>
          <p class={`notice ${answer.level === "critical" ? "bad" : answer.level === "warning" ? "warn" : ""}`}>{answer.text}</p>
          <p class="soft">{answer.until ? `Until ${format.date(answer.until)}.` : ""}</p>
          <p class="actions"><button class="button small" type="button" onClick={withdraw}>Take it back</button></p>
        </section>
      )}
      <form class="card form" onSubmit={tell}>
        <div class="field">
          <label for={`${id}-text`}>Text</label>
          <textarea class="input" id={`${id}-text`} name="text" rows={3} maxLength={500} required placeholder="Restart in five minutes" />
        </div>
        <div class="field">
          <label for={`${id}-level`}>How urgent</label>
          <select class="input" id={`${id}-level`} name="level">
            <option value="info">For information</option>
            <option value="warning">A warning</option>
            <option value="critical">Critical</option>
          </select>
        </div>
        <div class="field">
          <label for={`${id}-minutes`}>For how many minutes also to those who connect</label>
          <input class="input" id={`${id}-minutes`} name="minutes" type="number" min="0" max="10080" step="1" inputMode="numeric" />
          <span class="hint">Empty: only those who are connected now get it.</span>
        </div>
        <Wrong>{wrong}</Wrong>
        <p role="status" class="good-text">{done}</p>
        <p class="actions"><button class="button main" type="submit">Tell everyone</button></p>
      </form>
    </>
  );
}
