// What turns a checkpoint into a pack: packs that an earlier one made are made anew.

import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { root } from "./lib.mjs";

/** The hash of the converter's sources, and of the versions of the crates that it stands on. */
export function converterHash() {
  const sources = readdirSync(join(root, "crate", "pack"), { recursive: true })
    .filter((name) => name.endsWith(".rs"))
    .sort();
  const hash = createHash("sha256");
  for (const name of [...sources.map((source) => join("crate", "pack", source)), "Cargo.lock"]) {
    hash.update(`${name}\n`).update(readFileSync(join(root, name)));
  }
  return hash.digest("hex");
}
