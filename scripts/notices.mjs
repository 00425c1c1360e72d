// The licences of what the package contains besides our own code: crates compiled into the wasm, and Lit.

import { readdir, readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { root, run } from "./lib.mjs";
import { TARGET } from "./build-wasm.mjs";

const LICENCE = /^(LICEN[CS]E|COPYING|UNLICENSE)/i;

/** One text: every licence once, below the names of what stands under it. */
export async function notices() {
  const known = new Map();
  for (const { name, version, license, folder } of [...(await crates()), await lit()]) {
    const text = await licenceOf(folder, license);
    const names = known.get(text) ?? [];
    known.set(text, [...names, `${name} ${version} (${license})`]);
  }
  const parts = [...known].map(([text, names]) => `${names.join("\n")}\n\n${text}\n`);
  return `What this package contains besides its own code, and the licences of that.\n\n${parts.join(`\n${"-".repeat(78)}\n\n`)}`;
}

/** Crates that are compiled into the wasm: what our library needs there, without macros, which run while it is built. */
async function crates() {
  const args = ["metadata", "--format-version", "1", "--no-default-features", "--filter-platform", TARGET];
  const { packages, resolve } = JSON.parse(await run("cargo", args, { quiet: true }));
  const byId = new Map(packages.map((p) => [p.id, p]));
  const needs = new Map(resolve.nodes.map((n) => [n.id, n.deps]));
  const found = new Set();
  const queue = [resolve.root];
  for (let id = queue.pop(); id; id = queue.pop()) {
    const macro = byId.get(id).targets.some((t) => t.kind.includes("proc-macro"));
    if (macro || found.has(id)) continue;
    found.add(id);
    const normal = needs.get(id).filter((d) => d.dep_kinds.some((k) => k.kind === null));
    queue.push(...normal.map((d) => d.pkg));
  }
  found.delete(resolve.root);
  const all = [...found].map((id) => byId.get(id));
  all.sort((a, b) => a.name.localeCompare(b.name) || a.version.localeCompare(b.version));
  return all.map((p) => ({ ...p, folder: dirname(p.manifest_path) }));
}

async function lit() {
  const folder = join(root, "node_modules", "lit");
  const { name, version, license } = JSON.parse(await readFile(join(folder, "package.json"), "utf8"));
  return { name, version, license, folder };
}

/** The text of a package's licence: MIT's where it may be chosen, as the shortest. */
async function licenceOf(folder, license) {
  const files = (await readdir(folder)).filter((name) => LICENCE.test(name)).sort();
  const file = files.find((name) => /mit/i.test(name)) ?? files[0];
  if (!file) return `(The package holds no text of its licence: ${license}.)`;
  return (await readFile(join(folder, file), "utf8")).replaceAll("\r\n", "\n").trim();
}
