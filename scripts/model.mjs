// Makes the embedded model pack dist/models/groma-s out of models/groma-s and its bases.

import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { readdir, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { bringBases } from "./bases.mjs";
import { converterHash } from "./converter.mjs";
import { root, run, say, unlessDone } from "./lib.mjs";

const SOURCE = join(root, "models", "groma-s");

/** Converts the model unless its pack is there, and neither it nor the converter has changed since. */
export async function buildModel(out = join(root, "dist", "models", "groma-s")) {
  if (!existsSync(SOURCE)) {
    say("models/groma-s is not there: the page is built without a model.");
    return;
  }
  const key = `${await fingerprint(SOURCE)} ${converterHash()}`;
  const stamp = join(root, ".cache", "groma-s");
  if (!existsSync(join(out, "model.json"))) await rm(stamp, { force: true });
  await unlessDone(stamp, key, async () => {
    await bringBases();
    say("Converting the model …");
    // The profile that the tests build too: a second, optimised build would take minutes and save seconds.
    await run("cargo", ["run", "--quiet", "--", "convert", SOURCE, "-o", out, "--force"]);
  });
}

/** Names, sizes and times of a folder's files: enough to see a change. */
async function fingerprint(folder) {
  const hash = createHash("sha256");
  for (const name of (await readdir(folder)).sort()) {
    const { size, mtimeMs } = await stat(join(folder, name));
    hash.update(`${name} ${size} ${mtimeMs}\n`);
  }
  return hash.digest("hex");
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) await buildModel();
