/** The form to log in or to register, and the way in without either. */
import { useEffect, useState } from "preact/hooks";
import { ErrorCode, Refused } from "reileta-client";

import { Field, Problem, useForm } from "../shared/form.js";
import { ICON } from "../shared/icon.js";
import { words } from "../shared/words.js";
import { client, connect, ended, me } from "./session.js";

const NAMES = ["username", "displayname", "password"];

export function Enter({ title, invited }: { title: string; invited: boolean }) {
  const [known, setKnown] = useState(false);
  const [open, setOpen] = useState(false);
  useEffect(() => {
    client.http.get("/api/server", {}).then((server) => setOpen(server.temporary_accounts === true), () => undefined);
  }, []);
  const { busy, general, fields, submit, attempt, forget } = useForm(NAMES, async (data) => {
    ended.value = undefined;
    const text = (name: string) => String(data.get(name) ?? "").trim();
    const password = String(data.get("password") ?? "");
    const missing: { field: string; message: string }[] = [];
    if (!text("username")) missing.push({ field: "username", message: "Fill in a username" });
    if (!password) missing.push({ field: "password", message: "Fill in a password" });
    if (missing.length > 0) {
      throw new Refused({ code: ErrorCode.AuthInvalid, message: "", details: missing });
    }
    me.value = known
      ? await client.login(text("username"), password)
      : await client.register(text("username"), password, text("displayname") || undefined);
    connect();
  });

  const lookAround = () =>
    attempt(async () => {
      ended.value = undefined;
      try {
        me.value = await client.registerTemporarily();
      } catch (problem) {
        throw new Error(words(problem)); // the form has no field for it
      }
      connect();
    });

  function turn(to: boolean) {
    setKnown(to);
    forget();
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
        <Problem>{general ?? ended.value}</Problem>
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
