/** Which part of the client is shown: it stands in the address after `#`, so links lead to it. */
import { signal } from "@preact/signals";

export type Route = { readonly at: "lobby" } | { readonly at: "instance"; readonly instance: string };

export const route = signal<Route>(read());

export function go(to: Route): void {
  location.hash = to.at === "instance" ? `#/in/${encodeURIComponent(to.instance)}` : "#/";
}

function read(): Route {
  const found = /^#\/in\/([^/]+)$/.exec(location.hash);
  if (!found?.[1]) return { at: "lobby" };
  try {
    return { at: "instance", instance: decodeURIComponent(found[1]) };
  } catch {
    return { at: "lobby" };
  }
}

addEventListener("hashchange", () => (route.value = read()));
