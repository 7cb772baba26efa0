/** The page `/docs`: the endpoints in Swagger UI, with a search, and to be tried with one's own token. */
import "swagger-ui-dist/swagger-ui.css";
import "../shared/theme.css";
import "./docs.css";
import { render } from "preact";
import { Client } from "reileta-client";
import SwaggerUI, { type Tags } from "swagger-ui-dist/swagger-ui-es-bundle.js";

import { SERVER } from "../shared/base.js";
import { DocsBar } from "../shared/docs_bar.js";
import { resolveSubtree } from "./references.js";

const client = new Client(SERVER);

const dark = matchMedia("(prefers-color-scheme: dark)");
const follow = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", follow);
follow();

/** Swagger UI searches only the names of tags. This searches paths, names and texts of operations. */
function search(tags: Tags, phrase: string): Tags {
  const words = phrase.toLowerCase().split(/\s+/);
  return tags
    .map((tag) =>
      tag.set(
        "operations",
        tag.get("operations").filter((one) => {
          const text = `${one.get("method")} ${one.get("path")} ${JSON.stringify(one.get("operation"))}`.toLowerCase();
          return words.every((word) => text.includes(word));
        }),
      ),
    )
    .filter((tag) => tag.get("operations").size > 0);
}

render(
  <>
    <DocsBar now="HTTP" />
    <div> {/* Swagger UI brings the page's main element. */}
      <p class="login">
        {client.token === undefined
          ? <>To try endpoints as yourself, put your token under <i>Authorize</i>, or <a href={`${SERVER}/`}>log in</a> and come back.</>
          : <><i>Try it out</i> uses your login in this browser; <i>Authorize</i> changes it.</>}
      </p>
      <div id="endpoints" />
    </div>
  </>,
  document.getElementById("root")!,
);

const ui = SwaggerUI({
  domNode: document.getElementById("endpoints"),
  url: `${SERVER}/openapi.json`,
  deepLinking: true,
  displayRequestDuration: true,
  docExpansion: "list",
  defaultModelsExpandDepth: 0,
  filter: true,
  validatorUrl: null, // no other host
  plugins: [{ fn: { opsFilter: search, resolveSubtree } }],
  onComplete() {
    const field = document.querySelector(".operation-filter-input");
    field?.setAttribute("placeholder", "Search paths, names and texts");
    field?.setAttribute("aria-label", "Search the endpoints");
    if (client.token !== undefined) ui.preauthorizeApiKey("token", client.token);
  },
});
