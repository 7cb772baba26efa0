/** The form to log in or to register, and the way in without either. */
import { useEffect, useState } from "preact/hooks";
import { ErrorCode, Refused } from "reileta-client";

import { Field, Problem } from "../shared/form.js";
import { ICON } from "../shared/icon.js";
import { fieldWords, words } from "../shared/words.js";
import { client, connect, ended, me } from "./session.js";

export function Enter({ title, invited }: { title: string; invited: boolean }) {
  const [known, setKnown] = useState(false);
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<unknown>(undefined);
  const [open, setOpen] = useState(false);
  useEffect(() => {
    client.http.get("/api/server", {}).then((server) => setOpen(server.temporary_accounts === true), () => undefined);
  }, []);
  const fields = fieldWords(error);
  const general = error !== undefined && Object.keys(fields).length === 0 ? words(error) : ended.value;

  async function submit(event: SubmitEvent) {
    event.preventDefault();
    const form = event.currentTarget as HTMLFormElement;
    const data = new FormData(form);
    const text = (name: string) => String(data.get(name) ?? "").trim();
    const password = String(data.get("password") ?? "");
    const missing: { field: string; message: string }[] = [];
    if (!text("username")) missing.push({ field: "username", message: "Fill in a username" });
    if (!password) missing.push({ field: "password", message: "Fill in a password" });
    ended.value = undefined;
    setBusy(true);
    try {
      if (missing.length > 0) {
        throw new Refused({ code: ErrorCode.AuthInvalid, message: "", details: missing });
      }
      const user = known
        ? await client.login(text("username"), password)
        : await client.register(text("username"), password, text("displayname") || undefined);
      me.value = user;
      connect();
    } catch (problem) {
      setError(problem);
      setBusy(false);
      requestAnimationFrame(() => form.querySelector<HTMLElement>("[aria-invalid]")?.focus());
    }
  }

  async function lookAround() {
    ended.value = undefined;
    setBusy(true);
    try {
      me.value = await client.registerTemporarily();
      connect();
    } catch (problem) {
      setError(new Error(words(problem))); // the form has no field for it
      setBusy(false);
    }
  }

  function turn(to: boolean) {
    setKnown(to);
    setError(undefined);
  }

  return (
    <main class="enter">
      <img src={ICON} alt="" width={56} height={56} />
      <h1>{title}</h1>
      <p class="lead">
        {invited
          ? "You are invited to a room. Choose a name, and step inside."
          : "Rooms where people meet, in a headset or in this window."}
      </p>
      <div class="tabs" role="group" aria-label="Account">
        <button type="button" aria-pressed={!known} onClick={() => turn(false)}>New here</button>
        <button type="button" aria-pressed={known} onClick={() => turn(true)}>I have an account</button>
      </div>
      <form class="card form" onSubmit={submit} noValidate>
        <Problem>{general}</Problem>
        <Field
          label="Username" name="username" autocomplete="username" autocapitalize="none"
          spellcheck={false} maxLength={32} wrong={fields["username"]}
          hint={known ? undefined : "3 to 32 letters, digits or _; others find you by it"}
        />
        {!known && (
          <Field
            label="Shown name (optional)" name="displayname" autocomplete="nickname" maxLength={32}
            wrong={fields["displayname"]} hint="What others see above your head"
          />
        )}
        <Field
          label="Password" name="password" type="password" maxLength={256} wrong={fields["password"]}
          autocomplete={known ? "current-password" : "new-password"}
          hint={known ? undefined : "At least 8 characters"}
        />
        <button class="button main" disabled={busy}>
          {busy ? "One moment …" : known ? "Log in" : "Register and go on"}
        </button>
      </form>
      {open && (
        <p>
          <button type="button" class="button" disabled={busy} onClick={() => void lookAround()}>Look around as a guest</button>
        </p>
      )}
    </main>
  );
}
