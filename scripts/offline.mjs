// Writes dist/service-worker.js: www/service-worker behind the list of the built app's files.

import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { root } from "./lib.mjs";

/** The files that are the app: the page, what it loads, what an installed page shows. Not models, not samples. */
export async function appFiles(dist = join(root, "dist")) {
  const inside = async (folder) =>
    existsSync(join(dist, folder)) ? (await readdir(join(dist, folder))).map((f) => `${folder}/${f}`) : [];
  return [
    "index.html",
    "manifest.webmanifest",
    ...(await inside("assets")),
    ...(await inside("icons")),
  ].sort();
}

/** Builds the service worker for what lies in `dist` now. */
export async function buildServiceWorker(dist = join(root, "dist")) {
  const { rolldown } = await import("rolldown");
  const files = {};
  for (const path of await appFiles(dist)) {
    files[path] = createHash("sha256")
      .update(await readFile(join(dist, path)))
      .digest("hex");
  }
  const version = createHash("sha256").update(JSON.stringify(files)).digest("hex").slice(0, 16);
  const build = await rolldown({
    input: join(root, "www", "service-worker", "service-worker.ts"),
    platform: "browser",
    logLevel: "warn",
  });
  const { output } = await build.generate({ format: "iife", minify: true });
  await build.close();
  const head = `const FILES=${JSON.stringify(files)},VERSION=${JSON.stringify(version)};\n`;
  await writeFile(join(dist, "service-worker.js"), head + output[0].code);
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) await buildServiceWorker();
