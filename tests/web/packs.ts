/** Makes packs of the tiny golden models, which is what most tests run on. */

import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { converterHash } from "../../scripts/converter.mjs";

export const ROOT = join(import.meta.dirname, "..", "..");
/** Where the packs lie. */
export const PACKS = join(ROOT, ".cache", "test-packs");
/** The packs, of which golden model each is, and how it is made; without quantised blocks rows are four times as long. */
const TINY = { tiny: ["tiny"], "tiny3-f32": ["tiny3", "--quant", "f32"] } as const;

/** The command line, as the tests of Rust leave it. */
export const groma =
  process.env.GROMA ?? join(process.env.CARGO_TARGET_DIR ?? join(ROOT, "target"), "debug", "groma");

/** Makes the packs that are not there yet, or that another converter made. */
export function makePacks(): void {
  mkdirSync(PACKS, { recursive: true });
  const converter = converterHash();
  for (const [name, [golden, ...options]] of Object.entries(TINY)) {
    const out = join(PACKS, name);
    const stamp = `${out}.key`;
    const key = [converter, golden, ...options].join(" ");
    const whole = existsSync(join(out, "model.json")) && existsSync(stamp);
    if (whole && readFileSync(stamp, "utf8") === key) continue;
    const source = join(ROOT, "tests", "golden", golden);
    execFileSync(groma, ["convert", source, "-o", out, "--force", ...options], { stdio: "inherit" });
    writeFileSync(stamp, key);
  }
}
