/** Makes packs of the tiny golden models, which is what most tests run on. */

import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";

export const ROOT = join(import.meta.dirname, "..", "..");
/** Where the packs lie. */
export const PACKS = join(ROOT, ".cache", "test-packs");
const TINY = ["tiny"] as const;

/** Makes the packs that are not there yet. */
export function makePacks(): void {
  mkdirSync(PACKS, { recursive: true });
  for (const name of TINY) {
    const out = join(PACKS, name);
    if (existsSync(join(out, "model.json"))) continue;
    rmSync(out, { recursive: true, force: true });
    const source = join(ROOT, "tests", "golden", name);
    const groma =
      process.env.GROMA ?? join(process.env.CARGO_TARGET_DIR ?? join(ROOT, "target"), "release", "groma");
    execFileSync(groma, ["convert", source, "-o", out], { stdio: "inherit" });
  }
}
