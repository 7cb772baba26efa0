// What the scripts of scenes share: a server, a browser, how pages are judged, and the playing.
//
//   node SCRIPT CHROMIUM OPTIONS …   (OPTIONS of the server, as JSON; REILETA_COMMAND is its command;
//   PICTURES is a folder for what pages show when a scene fails)
import { readFile } from "node:fs/promises";

import { Server } from "../../clients/js/tests/server.mjs";
import { chromium } from "../../clients/web/node_modules/playwright-core/index.mjs";

const [executablePath, options] = process.argv.slice(2);
export const PATIENCE_MS = 60_000;
export const PASSWORD = "correct horse";

const axe = await readFile(new URL("../../clients/web/node_modules/axe-core/axe.min.js", import.meta.url), "utf8");
const complaints = [];

export const server = await Server.start(...JSON.parse(options));
process.on("exit", () => server.process.kill("SIGKILL")); // whatever went wrong
const browser = await chromium.launch({
  executablePath,
  args: [
    "--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--use-gl=angle", "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
  ],
});

/** A browser of one person, with a page. */
export async function person(how = {}, known = () => false) {
  const context = await browser.newContext({ viewport: { width: 640, height: 420 }, ...how });
  context.setDefaultTimeout(PATIENCE_MS);
  return tab(context, known);
}

/** One more page. Its errors are complaints, unless they are known. */
export async function tab(context, known = () => false) {
  const page = await context.newPage();
  page.on("console", (message) => {
    const text = `${message.text()} ${message.location().url}`;
    if (message.type() === "error" && !known(text)) complaints.push(text);
  });
  page.on("pageerror", (error) => complaints.push(String(error.stack)));
  return page;
}

/** The page as axe judges it, and whether it fits into the window. */
export async function check(page, what) {
  // The page learns of a change of its window or of its colours before the next frame.
  await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => axe.run(document, { resultTypes: ["violations"] }));
  const found = violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).join(" ")}`);
  if (found.length > 0) throw new Error(`${what}: axe finds ${found.join("\n")}`);
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  if (wide > 0) throw new Error(`${what}: the page is ${wide} px wider than the window`);
}

/** Plays scenes one after the other, and prints of each one line of JSON: its name, and what went
 * wrong. `pages` are those to keep a picture of, by name. */
export async function play(scenes, pages) {
  const all = {
    ...scenes,
    async "the browser's console has no error"() {
      if (complaints.length > 0) throw new Error(complaints.join("\n"));
    },
  };
  try {
    for (const [scene, act] of Object.entries(all)) {
      const begun = Date.now();
      let error = null;
      try {
        await act();
      } catch (problem) {
        error = String(problem.stack ?? problem);
      }
      console.log(JSON.stringify({ scene, error, ms: Date.now() - begun }));
      if (!error) continue;
      for (const [name, page] of Object.entries(process.env.PICTURES ? pages : {})) {
        await page.screenshot({ path: `${process.env.PICTURES}/${name}.png` }).catch(() => {});
      }
      break; // the next scenes go on where this one ended
    }
  } finally {
    await browser.close();
    await server.stop();
  }
}
