// `node scripts/size.mjs`: what a visitor downloads before the model, compressed as a good host compresses it.

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { brotliCompressSync, constants } from "node:zlib";
import { appFiles } from "./offline.mjs";
import { root } from "./lib.mjs";

/** Bytes of the page's own files in `dist`, raw and by brotli at its best, largest first. */
export async function pageSizes(dist = join(root, "dist")) {
  const files = [];
  for (const path of await appFiles(dist)) {
    if (!/\.(html|js|css|wasm|webmanifest|svg)$/.test(path)) continue;
    const raw = await readFile(join(dist, path));
    const params = {
      [constants.BROTLI_PARAM_QUALITY]: 11,
      [constants.BROTLI_PARAM_LGWIN]: 24,
      [constants.BROTLI_PARAM_SIZE_HINT]: raw.length,
    };
    files.push({ path, raw: raw.length, brotli: brotliCompressSync(raw, { params }).length });
  }
  return files.sort((a, b) => b.brotli - a.brotli);
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  const files = await pageSizes();
  const mib = (bytes) => `${(bytes / 2 ** 20).toFixed(3)} MiB`;
  for (const { path, raw, brotli } of files) process.stdout.write(`${mib(brotli)} of ${mib(raw)}  ${path}\n`);
  const sum = files.reduce((bytes, file) => bytes + file.brotli, 0);
  process.stdout.write(`${mib(sum)} in all, compressed\n`);
}
