/** Forms: their sending, and fields with a label, a hint and what is wrong with it. */
import type { ComponentChildren, JSX } from "preact";
import { useId, useLayoutEffect, useRef, useState } from "preact/hooks";

import { fieldWords, words } from "./words.js";

interface InputProps {
  name: string;
  type?: "text" | "password" | "number" | "search";
  defaultValue?: string;
  autocomplete?: string;
  autocapitalize?: "none" | "words";
  spellcheck?: boolean;
  maxLength?: number;
  min?: number;
  max?: number;
}

export function Field({
  label,
  hint,
  wrong,
  ...input
}: InputProps & { label: string; hint?: string | undefined; wrong?: string | undefined }) {
  const id = useId();
  const described = [hint && `${id}-hint`, wrong && `${id}-wrong`].filter(Boolean).join(" ");
  const attributes = {
    ...input,
    id,
    class: "input",
    ...(wrong && { "aria-invalid": "true" }),
    ...(described && { "aria-describedby": described }),
  } as JSX.IntrinsicElements["input"];
  return (
    <div class="field">
      <label for={id}>{label}</label>
      <input {...attributes} />
      {hint && <span class="hint" id={`${id}-hint`}>{hint}</span>}
      {wrong && <span class="wrong" id={`${id}-wrong`}>{wrong}</span>}
    </div>
  );
}

export function Choice({
  label,
  name,
  children,
}: {
  label: string;
  name: string;
  children: ComponentChildren;
}) {
  const id = useId();
  return (
    <div class="field">
      <label for={id}>{label}</label>
      <select name={name} id={id} class="input">{children}</select>
    </div>
  );
}

/** A message that screen readers read when it comes. */
export function Problem({ children }: { children: ComponentChildren }) {
  return (
    <div role="alert">{children && <p class="notice bad">{children}</p>}</div>
  );
}

/** Sends a form whose fields have these `names`: whether that is under way, and what was wrong the last
 * time, with each field and in general. The first wrong field gets the focus as soon as it is shown to be
 * wrong. What was wrong is forgotten when the form is sent again: a message that stays the same is read to
 * nobody. */
export function useForm(names: readonly string[], send: (data: FormData) => Promise<void>) {
  const form = useRef<HTMLFormElement | null>(null);
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<unknown>(undefined);
  useLayoutEffect(() => {
    if (error !== undefined) form.current?.querySelector<HTMLElement>("[aria-invalid]")?.focus();
  }, [error]);

  async function attempt(act: () => Promise<void>) {
    setBusy(true);
    setError(undefined);
    try {
      await act();
    } catch (problem) {
      setError(problem);
      setBusy(false);
    }
  }

  function submit(event: SubmitEvent) {
    event.preventDefault();
    const sent = (form.current = event.currentTarget as HTMLFormElement);
    void attempt(() => send(new FormData(sent)));
  }

  const fields = fieldWords(error);
  const shown = names.some((name) => name in fields);
  return {
    busy,
    fields,
    general: error === undefined || shown ? undefined : words(error),
    submit,
    attempt,
    forget: () => setError(undefined),
  };
}
