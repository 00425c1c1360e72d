// The documentation as a site: dist/docs holds the guides of docs/, the reference of the JavaScript API out of its own
// comments, and a page that embeds the element live.

import { cp, rm } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { root, tool } from "./lib.mjs";

const OUT = join(root, "dist", "docs");

/** Builds the site; the live page takes the element from dist/groma and the model from dist/models beside it. */
export async function buildDocs() {
  await rm(OUT, { recursive: true, force: true });
  await tool("typedoc", ["--logLevel", "Warn"]);
  await cp(join(root, "docs", "live"), join(OUT, "live"), { recursive: true });
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) await buildDocs();
