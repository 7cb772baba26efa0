// Prints the complaints of AsyncAPI's own parser about the document on standard input.
import { text } from "node:stream/consumers";
import { createRequire } from "node:module";

const { Parser } = createRequire(`${process.argv[2]}/`)("@asyncapi/parser");
const { document, diagnostics } = await new Parser().parse(await text(process.stdin));
// The parser proposes the newest version of AsyncAPI for any document of an older one.
const complaints = diagnostics.filter(({ code }) => code !== "asyncapi-latest-version");
console.log(JSON.stringify({
  messages: document?.allMessages().all().length ?? 0,
  complaints: complaints.map(({ code, message, path }) => `${code} ${path.join("/")} ${message}`),
}));
