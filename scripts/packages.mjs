// The Python packages that tests look at our files with, out of PyPI into ~/.cache/groma/python.

import { rm } from "node:fs/promises";
import { join } from "node:path";
import { cache, python, run, say, unlessDone } from "./lib.mjs";

const PACKAGES = ["gguf==0.19.0", "numpy>=2,<3", "safetensors==0.8.0"];

/** Installs them where they are missing; gives the environment of a Python that has them. */
export async function bringPackages() {
  const folder = join(cache, "python");
  const version = await run(python, ["--version"], { quiet: true });
  await unlessDone(join(folder, ".groma"), `${version}${PACKAGES.join("\n")}`, async () => {
    say("Fetching Python packages for the tests …");
    await rm(folder, { recursive: true, force: true });
    // A folder of their own, not a virtual environment: Debian's Python makes none without another package.
    const pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
    await run(python, [...pip, "--only-binary", ":all:", "--target", folder, ...PACKAGES]);
  });
  return { GROMA_PYTHON: python, PYTHONPATH: folder };
}
