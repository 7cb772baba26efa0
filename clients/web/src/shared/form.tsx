/** Fields of forms, with a label, a hint and what is wrong with it. */
import type { ComponentChildren, JSX } from "preact";
import { useId } from "preact/hooks";

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
