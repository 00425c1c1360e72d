// Builds the wasm module into www/pkg.

import { existsSync } from "node:fs";
import { readFile, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { answers, cache, root, run, say, sha256, unlessDone } from "./lib.mjs";

/** What the module is compiled for. */
export const TARGET = "wasm32-unknown-unknown";

/** Builds the module; a second call with nothing changed takes about a second. */
export async function buildWasm() {
  const bindgen = await wasmBindgen();
  const env = await compiler();
  // Only this build wants a cdylib: in Cargo.toml it would be linked at every native build too.
  const crate = ["--lib", "--crate-type", "cdylib", "--no-default-features"];
  await run("cargo", ["rustc", "--profile", "web", ...crate, "--target", TARGET], { env });
  const target = process.env.CARGO_TARGET_DIR ?? join(root, "target");
  const wasm = join(target, TARGET, "web", "groma.wasm");
  const out = join(root, "www", "pkg");
  await unlessDone(join(out, ".stamp"), `${await sha256(wasm)} ${await version()}`, async () => {
    await rm(out, { recursive: true, force: true });
    await run(bindgen, ["--target", "web", "--out-dir", out, wasm]);
  });
  const { size } = await stat(join(out, "groma_bg.wasm"));
  say(`wasm: ${(size / 1e6).toFixed(2)} MB`);
}

/** Clippy over what only the browser gets: the native run never sees it. */
export async function lintWasm() {
  const env = await compiler();
  // Debian's compiler has its own clippy; a mixture of both does not work.
  const [program, ...rest] = env.RUSTC ? ["/usr/bin/cargo-clippy", "clippy"] : ["cargo", "clippy"];
  const crate = ["--lib", "--no-default-features", "--target", TARGET];
  await run(program, [...rest, "--quiet", ...crate, "--", "-D", "warnings"], { env });
}

/** The version of wasm-bindgen that the crate pins; the tool must have the same. */
async function version() {
  const manifest = await readFile(join(root, "Cargo.toml"), "utf8");
  const found = /^wasm-bindgen = "=([\d.]+)"/m.exec(manifest)?.[1];
  if (!found) throw new Error("Cargo.toml pins no wasm-bindgen");
  return found;
}

/** The wasm-bindgen of the wanted version: installed, or ours beside the caches (an installed other one stays). */
async function wasmBindgen() {
  const wanted = await version();
  const exe = process.platform === "win32" ? ".exe" : "";
  const own = join(cache, "tools", wanted, "bin", `wasm-bindgen${exe}`);
  for (const program of ["wasm-bindgen", own]) if (await answers(program, wanted)) return program;
  say(`Installing wasm-bindgen ${wanted} (a few minutes, once a machine) …`);
  await run(
    "cargo",
    ["install", "--quiet", "wasm-bindgen-cli", "--version", wanted, "--root", join(cache, "tools", wanted)],
    {
      env: { CARGO_TARGET_DIR: join(cache, "tools", "target") },
    },
  );
  await rm(join(cache, "tools", "target"), { recursive: true, force: true });
  return own;
}

/** Which compiler has the target: rustup's own where it can, else Debian's (see TOOLCHAIN in scripts/wasm-std.sh). */
async function compiler() {
  const sysroot = (await run("rustc", ["--print", "sysroot"], { quiet: true })).trim();
  if (existsSync(join(sysroot, "lib", "rustlib", TARGET, "lib"))) return {};
  if (await rustupAdds()) return {};
  await run("bash", [join(root, "scripts", "wasm-std.sh")]);
  return { RUSTC: "/usr/bin/rustc" };
}

/** Asks rustup for the target; where its server can't be reached, Debian's compiler is the way. */
async function rustupAdds() {
  if (existsSync("/usr/lib/rustlib/" + TARGET + "/built-by")) return false;
  try {
    await run("rustup", ["target", "add", TARGET], { quiet: true });
    return true;
  } catch {
    return false;
  }
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  await buildWasm();
}
