// Builds the pages: node build.mjs FOLDER. `build.py` runs it, and says what it needs.
//
// esbuild bundles: one package without dependencies, and a build takes under a second. REILETA_ERRORS
// holds the codes of errors by name, as JSON: the only generated part of the SDK that is not a type.
import { createHash } from "node:crypto";
import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { promisify } from "node:util";
import zlib from "node:zlib";
import * as esbuild from "esbuild";

const [folder] = process.argv.slice(2);
const here = import.meta.dirname ?? path.dirname(new URL(import.meta.url).pathname);
const sdk = path.resolve(here, "../js/src/index.ts");
const PAGES = ["client", "console", "docs", "sockets"];
const COMPRESSED = /\.(js|css|html|svg|txt|json)$/;

const sdkParts = {
  name: "reileta-client",
  setup(build) {
    build.onResolve({ filter: /^reileta-client$/ }, () => ({ path: sdk }));
    build.onResolve({ filter: /generated\/errors\.js$/ }, () => ({ path: "errors", namespace: "made" }));
    build.onLoad({ filter: /.*/, namespace: "made" }, () => ({
      contents: `export const ErrorCode = ${process.env.REILETA_ERRORS ?? "{}"};`,
    }));
    // Browsers have a WebSocket: that of the SDK for Node stays out.
    build.onResolve({ filter: /node_socket\.js$/ }, () => ({ path: "none", namespace: "none" }));
    build.onLoad({ filter: /.*/, namespace: "none" }, () => ({
      contents: "export const NodeSocket = undefined;",
    }));
  },
};

const made = await esbuild.build({
  absWorkingDir: here,
  entryPoints: PAGES.map((page) => ({ in: `src/${page}/main.tsx`, out: page })),
  outdir: folder,
  entryNames: "assets/[name]-[hash]",
  chunkNames: "assets/[name]-[hash]",
  assetNames: "assets/[name]-[hash]",
  bundle: true,
  splitting: true,
  format: "esm",
  target: "es2022",
  platform: "browser",
  jsx: "automatic",
  jsxImportSource: "preact",
  minify: true,
  charset: "utf8",
  legalComments: "none", // licenses.txt has them all
  loader: { ".svg": "file" },
  metafile: true,
  write: false,
  logLevel: "warning",
  plugins: [sdkParts],
});

const files = new Map(
  made.outputFiles.map((file) => [path.relative(folder, file.path), Buffer.from(file.contents)]),
);
const outputs = Object.entries(made.metafile.outputs).map(([name, output]) => [
  path.relative(folder, path.resolve(here, name)),
  output,
]);
const named = (name) => outputs.find(([, output]) => output.entryPoint === name);

const text = Buffer.from(await licenses(made.metafile));
const terms = `assets/licenses-${createHash("sha256").update(text).digest("hex").slice(0, 8)}.txt`;
files.set(terms, text);

// In pages, `{base}` stands for the server's base path: the server puts it in.
for (const page of PAGES) {
  const [script, { cssBundle }] = named(`src/${page}/main.tsx`);
  const style = cssBundle && path.relative(folder, path.resolve(here, cssBundle));
  const html = (await readFile(path.join(here, `src/${page}/index.html`), "utf8"))
    .replace("{script}", `{base}/${script}`)
    .replace("{style}", `{base}/${style}`)
    .replace("{icon}", `{base}/${outputs.find(([name]) => /\/icon-\w+\.svg$/.test(name))[0]}`)
    .replace("{licenses}", `{base}/${terms}`);
  files.set(`${page}.html`, Buffer.from(html));
}

for (const [name, content] of files) {
  const target = path.join(folder, name);
  await mkdir(path.dirname(target), { recursive: true });
  await writeFile(target, content);
  // Pages are completed by the server, which compresses nothing.
  if (COMPRESSED.test(name) && !name.endsWith(".html") && content.length > 1024) {
    const gzip = await promisify(zlib.gzip)(content, { level: 9 });
    await writeFile(`${target}.gz`, gzip);
    const brotli = await promisify(zlib.brotliCompress)(content);
    await writeFile(`${target}.br`, brotli);
  }
}

/** The licenses of the packages whose code is in the pages. */
async function licenses({ inputs }) {
  const packages = new Set();
  for (const name of Object.keys(inputs)) {
    const found = /(.*node_modules\/(?:@[^/]+\/)?[^/]+)\//.exec(name);
    if (found) packages.add(found[1]);
  }
  const texts = [];
  for (const one of [...packages].sort()) {
    const { name, version } = JSON.parse(await readFile(path.join(here, one, "package.json"), "utf8"));
    const terms = [];
    // A package that is a bundle has those of its parts beside its scripts.
    for (const file of (await readdir(path.join(here, one))).sort()) {
      if (/^(LICENSE|NOTICE)$|-es-bundle\.js\.LICENSE\.txt$/.test(file)) {
        terms.push((await readFile(path.join(here, one, file), "utf8")).trim());
      }
    }
    texts.push(`${name} ${version}\n\n${terms.join("\n\n")}\n`);
  }
  return texts.join(`\n${"-".repeat(72)}\n\n`);
}
