// Makes the types of the protocol from what a server says of itself: src/generated/*.ts.
//
//   node scripts/types.mjs http://127.0.0.1:3032
//
// The schemas of /asyncapi.json are JSON Schema, as those of /openapi.json are, so one generator
// makes both.
import { mkdir, writeFile } from "node:fs/promises";
import openapiTS, { astToString } from "openapi-typescript";

const server = process.argv[2] ?? process.env.REILETA_URL ?? "http://127.0.0.1:3032";
const folder = new URL("../src/generated/", import.meta.url);

async function document(name) {
  const answer = await fetch(`${server}/${name}`);
  if (!answer.ok) throw new Error(`${server}/${name} answers ${answer.status}`);
  return answer.json();
}

async function write(name, source) {
  await save(name, astToString(await openapiTS(source)));
}

async function save(name, text) {
  const head = "// Made by scripts/types.mjs from what a server says of itself. Do not edit.\n\n";
  await writeFile(new URL(`${name}.ts`, folder), head + text);
}

try {
  await mkdir(folder, { recursive: true });
  const endpoints = await document("openapi.json");
  await write("openapi", endpoints);
  const { ErrorCode } = endpoints.components.schemas;
  const codes = ErrorCode.enum.map((code, index) => `  ${ErrorCode["x-enum-varnames"][index]}: ${code},`);
  await save("errors", `/** The code of each error, by its name. */\nexport const ErrorCode = {\n${codes.join("\n")}\n} as const;\n`);
  const sockets = await document("asyncapi.json");
  const { schemas } = sockets.components;
  await write("asyncapi", {
    openapi: "3.1.0",
    info: sockets.info,
    paths: {},
    components: { schemas },
  });
} catch (error) {
  console.error(`the types can't be made: ${error.cause?.message ?? error.message}`);
  process.exit(1);
}
