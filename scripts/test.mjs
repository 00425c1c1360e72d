// `npm test`: everything that must pass. `npm test -- web` runs only the steps whose name contains a word.

import { existsSync } from "node:fs";
import { join } from "node:path";
import { bringBases } from "./bases.mjs";
import { buildSite } from "./build.mjs";
import { answers, installPackages, root, run, say, tool } from "./lib.mjs";
import { buildWasm } from "./build-wasm.mjs";

/** Playwright drives Debian's chromium where it is there, else its own. */
async function browser() {
  if (!existsSync(process.env.CHROMIUM ?? "/usr/bin/chromium"))
    await tool("playwright", ["install", "chromium"]);
}

async function rustTests() {
  const nextest = await answers("cargo-nextest");
  await run("cargo", nextest ? ["nextest", "run"] : ["test"]);
}

// What is quick and often wrong comes first; the packages of one language do not wait for the other's.
const STEPS = [
  ["packages", installPackages],
  ["rustfmt", () => run("cargo", ["fmt", "--check"])],
  ["prettier", () => tool("prettier", ["--check", "--log-level", "warn", "."])],
  ["clippy", () => run("cargo", ["clippy", "--all-targets", "--quiet", "--", "-D", "warnings"])],
  ["bases", bringBases],
  ["rust", rustTests],
  ["goldens", () => run("cargo", ["run", "--quiet", "--", "verify", "tests/golden", "--device", "cpu"])],
  // The types of the wasm module are generated: TypeScript is checked against them.
  ["wasm", buildWasm],
  [
    "typescript",
    () => run(process.execPath, [join(root, "node_modules/@typescript/native/bin/tsc"), "--noEmit"]),
  ],
  [
    "typescript of the worker",
    () =>
      run(process.execPath, [
        join(root, "node_modules/@typescript/native/bin/tsc"),
        "--noEmit",
        "-p",
        "www/worker",
      ]),
  ],
  ["eslint", () => tool("eslint", ["."])],
  ["unit", () => tool("vitest", ["run"])],
  ["site", buildSite],
  ["web", () => browser().then(() => tool("playwright", ["test"]))],
];

const wanted = process.argv.slice(2);
for (const [name, step] of STEPS) {
  if (wanted.length > 0 && !wanted.some((word) => name.includes(word))) continue;
  const start = Date.now();
  say(`\n== ${name}`);
  await step();
  say(`== ${name}: ${((Date.now() - start) / 1000).toFixed(1)} s`);
}
