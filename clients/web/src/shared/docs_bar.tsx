/** The head of both pages about the API. */
import { SERVER } from "./base.js";
import "./docs_bar.css";

const PAGES = [
  ["HTTP", "/docs"],
  ["Sockets", "/docs/sockets"],
  ["Plain", "/docs/plain"],
] as const;

export function DocsBar({ now }: { now: (typeof PAGES)[number][0] }) {
  return (
    <header class="docs-bar">
      <a class="brand" href={`${SERVER}/`}>Reileta</a>
      <nav aria-label="The API">
        {PAGES.map(([name, path]) => (
          <a key={name} href={SERVER + path} aria-current={name === now ? "page" : undefined}>{name}</a>
        ))}
      </nav>
    </header>
  );
}
