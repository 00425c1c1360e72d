// `npm run build`: a static site in dist/ that any file server hosts under any path, and in dist/groma the package that
// `npm pack` packs.

import { existsSync } from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { buildWasm } from "./build-wasm.mjs";
import { buildDocs } from "./docs.mjs";
import { buildModel } from "./model.mjs";
import { buildServiceWorker } from "./offline.mjs";
import { buildPackage } from "./package.mjs";
import { bringSamples } from "./samples.mjs";
import { installPackages, root, tool } from "./lib.mjs";

/** Builds everything; what is already there is not built again. */
export async function buildSite() {
  await installPackages();
  await buildWasm();
  await buildModel();
  await buildPage();
  await buildPackage();
  await buildDocs();
  await bringSamples();
}

/** Builds the page alone, from what is in www/. */
export async function buildPage() {
  // Names have hashes: what an earlier build left would lie there for ever.
  await rm(join(root, "dist", "assets"), { recursive: true, force: true });
  await tool("vite", ["build", "--logLevel", "warn"]);
  if (!existsSync(join(root, "dist", "index.html"))) throw new Error("vite left no page");
  await buildServiceWorker();
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) await buildSite();
