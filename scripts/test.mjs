// `npm test`: everything that must pass. One command proves a change; CI calls exactly this.

import { existsSync } from "node:fs";
import { join } from "node:path";

import { lintWasm } from "./build-wasm.mjs";
import { buildSite } from "./build.mjs";
import { bases, bringBases } from "./bases.mjs";
import { answers, installPackages, python, root, run, say, tool } from "./lib.mjs";
import { bringPackages } from "./packages.mjs";

/** Another seed for every commit, the same wherever that is tested; of the day, where there is no repository. */
async function fuzzSeed() {
  const commit = await run("git", ["rev-parse", "HEAD"], { quiet: true }).catch(() => "");
  return String(commit ? parseInt(commit.slice(0, 8), 16) : Math.floor(Date.now() / 86_400_000));
}

/** Runs one step and says how long it took. */
async function step(name, work) {
  const start = Date.now();
  say(`── ${name}`);
  await work();
  say(`── ${name}: ${Math.round((Date.now() - start) / 1000)} s`);
}

await step("packages", installPackages);
await step("bases", bringBases);
let readers = {};
await step("other people's readers", async () => (readers = await bringPackages()));
// Rust first: it takes the longest, and what it finds is the most interesting.
await step("rustfmt", () => run("cargo", ["fmt", "--check"]));
await step("clippy", () => run("cargo", ["clippy", "--all-targets", "--quiet", "--", "-D", "warnings"]));
// What only the browser gets, and the native run never sees.
await step("clippy for the browser", lintWasm);
await step("rust tests", async () => {
  process.env.GROMA_FUZZ_SEED ??= await fuzzSeed();
  say(`fuzzing with GROMA_FUZZ_SEED=${process.env.GROMA_FUZZ_SEED}`);
  const nextest = await answers("cargo-nextest", "nextest");
  await run("cargo", nextest ? ["nextest", "run"] : ["test"], { env: readers });
});
await step("site", buildSite);
await step("the pack in PyPI's gguf", () => {
  const pack = join(root, "dist", "models", "groma-s");
  const decoder = join(bases, "SmolLM2-135M-Instruct.Q4_1.gguf");
  return run(python, [join(root, "scripts", "check_pack.py"), pack, decoder], { env: readers });
});
await step("lint", async () => {
  await tool("prettier", ["--check", "--log-level", "warn", "."]);
  await tool("eslint", ["."]);
  await run("npm", ["run", "--silent", "typecheck"]);
});
await step("unit tests", () => tool("vitest", ["run"]));
await step("browser tests", async () => {
  // Debian's chromium where it is there, else the one that Playwright brings.
  if (!existsSync(process.env.CHROMIUM ?? "/usr/bin/chromium"))
    await tool("playwright", ["install", "chromium"]);
  await tool("playwright", ["test"]);
});
