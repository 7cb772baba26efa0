/** What an admin tells everybody, until it is over or the reader hides it. */
import { announced } from "./session.js";

export function Announcement() {
  const notice = announced.value;
  if (!notice) return null;
  return (
    <p class={`notice ${notice.level === "critical" ? "bad" : notice.level === "warning" ? "warn" : ""}`}>
      {notice.text}{" "}
      <button class="button small" onClick={() => (announced.value = undefined)}>Hide</button>
    </p>
  );
}
