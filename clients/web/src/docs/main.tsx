/** The page `/docs`: the endpoints in Swagger UI, with a search, and to be tried with one's own token. */
import "swagger-ui-dist/swagger-ui.css";
import "../shared/theme.css";
import "./docs.css";
import { render } from "preact";
import { Client } from "reileta-client";
import SwaggerUI, { type System, type Tags } from "swagger-ui-dist/swagger-ui-es-bundle.js";

import { SERVER } from "../shared/base.js";
import { DocsBar } from "../shared/docs_bar.js";
import { complete } from "./complete.js";
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

/** The path of an operation as text: a link inside of the button that opens it could not be reached. */
const plainPaths = ({ React }: System) => ({
  components: { DeepLink: ({ text }: { text: unknown }) => React.createElement("span", null, text) },
});

render(
  <>
    <DocsBar now="HTTP" />
    <div> {/* Swagger UI brings the page's main element. */}
      <section class="login" aria-label="Your login">
        <p>
          {client.token === undefined
            ? <>To try endpoints as yourself, put your token under <i>Authorize</i>, or <a href={`${SERVER}/`}>log in</a> and come back.</>
            : <><i>Try it out</i> uses your login in this browser; <i>Authorize</i> changes it.</>}
        </p>
      </section>
      <div id="endpoints" />
    </div>
  </>,
  document.getElementById("root")!,
);

const endpoints = document.getElementById("endpoints")!;
complete(endpoints);
const ui = SwaggerUI({
  domNode: endpoints,
  url: `${SERVER}/openapi.json`,
  deepLinking: true,
  displayRequestDuration: true,
  docExpansion: "list",
  defaultModelsExpandDepth: 0,
  filter: true,
  validatorUrl: null, // no other host
  syntaxHighlight: { theme: "tomorrow-night" }, // its colours can be read on that ground
  plugins: [plainPaths, { fn: { opsFilter: search, resolveSubtree } }],
  onComplete() {
    if (client.token !== undefined) ui.preauthorizeApiKey("token", client.token);
  },
});
