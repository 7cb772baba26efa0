/** What several pages are made of: charts, tables, forms that act. */
import type { ComponentChildren } from "preact";
import { useEffect, useId, useLayoutEffect, useRef, useState } from "preact/hooks";

import { clock } from "./format.js";
import { reasonOf } from "./live.js";

interface ChartProps {
  title: string;
  at: number[];
  values: number[];
  show: (value: number) => string;
  /** The top of the chart is at least there. */
  least?: number;
}

const WIDTH = 320;
const HEIGHT = 72;
const SPAN_MS = 15 * 60_000;

/** A figure over the last 15 minutes. The newest sample is at the right edge. */
export function Chart({ title, at, values, show, least = 1 }: ChartProps) {
  const [place, setPlace] = useState<number | undefined>();
  const last = at.at(-1) ?? 0;
  const top = Math.max(least, ...values) * 1.08;
  const x = (time: number) => WIDTH - ((last - time) / SPAN_MS) * WIDTH;
  const y = (value: number) => HEIGHT - (value / top) * HEIGHT;
  const points = at.map((time, index) => `${x(time).toFixed(1)},${y(values[index] ?? 0).toFixed(1)}`);
  const line = points.length ? `M${points.join("L")}` : "";
  const area = points.length ? `${line}L${WIDTH},${HEIGHT}L${x(at[0] ?? 0).toFixed(1)},${HEIGHT}Z` : "";
  const index = place ?? values.length - 1;
  const value = values[index];
  const text = value === undefined ? "–" : show(value);
  const peak = values.length ? show(Math.max(...values)) : "–";

  function point(event: PointerEvent) {
    const box = (event.currentTarget as Element).getBoundingClientRect();
    const time = last - (1 - (event.clientX - box.left) / box.width) * SPAN_MS;
    let best = values.length - 1;
    at.forEach((one, number) => {
      if (Math.abs(one - time) < Math.abs((at[best] ?? 0) - time)) best = number;
    });
    setPlace(best < 0 ? undefined : best);
  }

  return (
    <figure class="chart">
      <figcaption>
        <span>{title}</span>
        <strong>{text}</strong>
        <span class="soft">
          {place === undefined ? `peak ${peak}` : clock(at[index] ?? 0)}
        </span>
      </figcaption>
      <svg
        viewBox={`0 0 ${WIDTH} ${HEIGHT}`}
        preserveAspectRatio="none"
        role="img"
        aria-label={`${title}, last 15 minutes: now ${text}, at most ${peak}`}
        onPointerMove={point}
        onPointerLeave={() => setPlace(undefined)}
      >
        <line class="grid" x1="0" x2={WIDTH} y1={HEIGHT / 2} y2={HEIGHT / 2} />
        <line class="grid" x1="0" x2={WIDTH} y1={HEIGHT - 0.5} y2={HEIGHT - 0.5} />
        <path class="area" d={area} />
        <path class="line" d={line} />
        {place !== undefined && (
          <line class="cursor" x1={x(at[index] ?? 0)} x2={x(at[index] ?? 0)} y1="0" y2={HEIGHT} />
        )}
      </svg>
    </figure>
  );
}

export interface Column<Row> {
  name: string;
  key?: string;
  show: (row: Row) => ComponentChildren;
  right?: boolean;
  /** Left out on narrow screens. */
  wide?: boolean;
}

interface TableProps<Row> {
  label: string;
  columns: Column<Row>[];
  rows: readonly Row[];
  id: (row: Row) => string;
  empty: string;
  sort?: { key: string; down: boolean; change: (key: string, down: boolean) => void };
}

/** A table whose columns with a key sort it. */
export function Table<Row>({ label, columns, rows, id, empty, sort }: TableProps<Row>) {
  const style = (one: Column<Row>) =>
    [one.right ? "right" : "", one.wide ? "wide" : ""].filter(Boolean).join(" ");
  return (
    <div class="scroll" role="region" aria-label={label} tabIndex={0}>
      <table>
        <thead>
          <tr>
            {columns.map((one) => {
              const { key } = one;
              const chosen = sort !== undefined && key === sort.key;
              return (
                <th
                  scope="col"
                  class={style(one)}
                  aria-sort={chosen ? (sort.down ? "descending" : "ascending") : undefined}
                >
                  {sort && key ? (
                    <button type="button" onClick={() => sort.change(key, chosen ? !sort.down : key !== "name")}>
                      {one.name}
                      <span aria-hidden="true">{chosen ? (sort.down ? " ▾" : " ▴") : ""}</span>
                    </button>
                  ) : (
                    one.name
                  )}
                </th>
              );
            })}
          </tr>
        </thead>
        <tbody>
          {rows.map((row) => (
            <tr key={id(row)}>
              {columns.map((one) => (
                <td class={style(one)}>{one.show(row)}</td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
      {rows.length === 0 && <p class="empty">{empty}</p>}
    </div>
  );
}

interface ConfirmProps {
  /** What is done, such as "Kick Bob". */
  title: string;
  text?: string | undefined;
  reason?: boolean;
  until?: boolean;
  danger?: boolean;
  act: (given: { reason?: string; until?: number }) => Promise<unknown>;
  close: (done: boolean) => void;
}

/** Asks before it acts, with a reason and a time where they are told to somebody. */
export function Confirm({ title, text, reason, until, danger, act, close }: ConfirmProps) {
  const dialog = useRef<HTMLDialogElement>(null);
  const [wrong, setWrong] = useState<string | undefined>();
  const [busy, setBusy] = useState(false);
  const id = useId();
  useLayoutEffect(() => dialog.current?.showModal(), []); // a key that follows goes to the dialog

  async function submit(event: SubmitEvent) {
    event.preventDefault();
    const form = new FormData(event.currentTarget as HTMLFormElement);
    const why = String(form.get("reason") ?? "").trim();
    const hours = Number(form.get("until") ?? 0);
    const given: { reason?: string; until?: number } = {};
    if (why) given.reason = why;
    if (hours > 0) given.until = Date.now() + Math.round(hours * 3_600_000);
    setBusy(true);
    setWrong(undefined);
    try {
      await act(given);
      close(true);
    } catch (error) {
      setWrong(reasonOf(error));
      setBusy(false);
    }
  }

  return (
    <dialog ref={dialog} aria-labelledby={`${id}-title`} onClose={() => close(false)}>
      <form onSubmit={submit}>
        <h2 id={`${id}-title`}>{title}</h2>
        {text && <p class="soft">{text}</p>}
        {reason && (
          <div class="field">
            <label for={`${id}-reason`}>Reason</label>
            <input class="input" id={`${id}-reason`} name="reason" maxLength={500} />
            <span class="hint">Those concerned can read it.</span>
          </div>
        )}
        {until && (
          <div class="field">
            <label for={`${id}-until`}>For how many hours</label>
            <input class="input" id={`${id}-until`} name="until" type="number" min="0" step="0.5" />
            <span class="hint">Empty: until it is lifted.</span>
          </div>
        )}
        {wrong && <p class="notice bad" role="alert">{wrong}</p>}
        <p class="actions">
          <button class="button small" type="button" onClick={() => dialog.current?.close()}>
            Cancel
          </button>
          <button class={`button small ${danger ? "bad" : "main"}`} type="submit" disabled={busy}>
            {title}
          </button>
        </p>
      </form>
    </dialog>
  );
}

/** A list over HTTP that is asked for again when its question changes, and by `again`. */
export function useList<Answer>(ask: () => Promise<Answer>, question: string) {
  const [answer, setAnswer] = useState<Answer | undefined>();
  const [wrong, setWrong] = useState<string | undefined>();
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    let over = false;
    ask().then(
      (got) => {
        if (over) return;
        setAnswer(got);
        setWrong(undefined);
      },
      (error: unknown) => {
        if (!over) setWrong(reasonOf(error));
      },
    );
    return () => {
      over = true;
    };
  }, [question, turn]);
  return { answer, wrong, again: () => setTurn(turn + 1) };
}

/** A text to search for, which is taken a moment after the last key. */
export function Search({ label, found }: { label: string; found: (text: string) => void }) {
  const timer = useRef(0);
  const id = useId();
  return (
    <div class="search">
      <label class="unseen" for={id}>{label}</label>
      <input
        class="input small"
        id={id}
        type="search"
        placeholder={label}
        onInput={(event) => {
          const text = event.currentTarget.value.trim();
          clearTimeout(timer.current);
          timer.current = setTimeout(() => found(text), 250) as unknown as number;
        }}
      />
    </div>
  );
}

interface PagerProps {
  offset: number;
  limit: number;
  total: number;
  most?: number;
  go: (offset: number) => void;
}

export function Pager({ offset, limit, total, most = Infinity, go }: PagerProps) {
  if (total <= limit) return null;
  return (
    <p class="pager">
      <button class="button small" type="button" disabled={offset === 0} onClick={() => go(Math.max(0, offset - limit))}>
        Back
      </button>
      <span>
        {offset + 1} to {Math.min(offset + limit, total)} of {total}
      </span>
      <button
        class="button small"
        type="button"
        disabled={offset + limit >= total || offset + limit > most}
        onClick={() => go(offset + limit)}
      >
        Next
      </button>
    </p>
  );
}

export function Wrong({ children }: { children: string | undefined }) {
  return children ? <p class="notice bad" role="alert">{children}</p> : null;
}
