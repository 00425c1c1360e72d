// A static server for dist/, for localhost: ranges, and the strict headers under which the page must work.

import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join, normalize, sep } from "node:path";
import { pathToFileURL } from "node:url";
import { root } from "./lib.mjs";

const TYPES = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".json": "application/json",
  ".webmanifest": "application/manifest+json",
  ".svg": "image/svg+xml",
  ".png": "image/png",
  ".jpg": "image/jpeg",
  ".wasm": "application/wasm",
};

const POLICY =
  "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; connect-src 'self'; " +
  "img-src 'self' blob: data:; style-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'";

const REFERENCE_POLICY =
  "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:";

/**
 * Serves a folder under a base path. `hook(request, response, path)` may answer instead (tests break things with it) by
 * returning true.
 */
export function serve({ dir = join(root, "dist"), port = 0, base = "/", hook = () => false } = {}) {
  const server = createServer((request, response) => {
    void answer(request, response).catch(() => response.destroy());
  });

  async function answer(request, response) {
    const path = decodeURIComponent(new URL(request.url, "http://localhost").pathname);
    if (await hook(request, response, path)) return;
    if (!path.startsWith(base)) return fail(response, 404);
    const relative = normalize(path.slice(base.length) || "index.html");
    if (relative.startsWith("..")) return fail(response, 404);
    const file = join(dir, relative.endsWith(sep) ? join(relative, "index.html") : relative);
    const found = await stat(file).catch(() => undefined);
    if (!found?.isFile()) return fail(response, 404);
    const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? "");
    const start = range ? Number(range[1]) : 0;
    const end = range?.[2] ? Math.min(Number(range[2]), found.size - 1) : found.size - 1;
    if (range && start > end) {
      response.writeHead(416, { "content-range": `bytes */${found.size}` }).end();
      return;
    }
    response.writeHead(range ? 206 : 200, {
      "content-type": TYPES[extname(file)] ?? "application/octet-stream",
      "content-length": Math.max(0, end - start + 1),
      "accept-ranges": "bytes",
      "cache-control": "no-cache",
      // The generated reference styles itself inline; everything of ours does without.
      "content-security-policy": /^docs\/(?!live\/)/.test(relative) ? REFERENCE_POLICY : POLICY,
      "x-content-type-options": "nosniff",
      "referrer-policy": "no-referrer",
      ...(range ? { "content-range": `bytes ${start}-${end}/${found.size}` } : {}),
    });
    if (request.method === "HEAD" || found.size === 0) response.end();
    else {
      createReadStream(file, { start, end })
        .on("error", () => response.destroy())
        .pipe(response);
    }
  }

  return new Promise((done, bad) => {
    server.on("error", bad);
    server.listen(port, "localhost", () => {
      done({ url: `http://localhost:${server.address().port}${base}`, close: () => server.close() });
    });
  });
}

function fail(response, status) {
  response.writeHead(status).end();
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  const { url } = await serve({ port: Number(process.env.PORT ?? 8080) });
  process.stdout.write(`${url}\n`);
}
