// Builds what `npm pack` packs: dist/groma, the engine, the element, the worker and the wasm as files with fixed names that
// find each other by their own addresses. A bundler takes them apart; a static host serves them as they are.

import { copyFile, mkdir, readdir, readFile, rm, rmdir, writeFile } from "node:fs/promises";
import { dirname, join, posix } from "node:path";
import { pathToFileURL } from "node:url";
import { root, run } from "./lib.mjs";
import { notices } from "./notices.mjs";

const OUT = join(root, "dist", "groma");

// On a server there is nothing to draw: importing the element must do no harm there.
const SERVER = `/** Stands for the element where there is no document. */
export class GromaChat {}
`;

// The element's class is Lit's; its users need no more of Lit than this, and no package for it.
const LIT_TYPES = `/** What of Lit's types the element shows. */
export declare class LitElement extends HTMLElement {
  readonly updateComplete: Promise<boolean>;
  requestUpdate(name?: PropertyKey, oldValue?: unknown): void;
  connectedCallback(): void;
  disconnectedCallback(): void;
}
export type CSSResult = unknown;
export type CSSResultGroup = unknown;
export type TemplateResult = unknown;
export type PropertyValues<_T = unknown> = Map<PropertyKey, unknown>;
export type PropertyValueMap<_T = unknown> = Map<PropertyKey, unknown>;
export declare const nothing: unique symbol;
`;

/** Builds the package from what is in www/. */
export async function buildPackage() {
  await rm(OUT, { recursive: true, force: true });
  await mkdir(OUT, { recursive: true });
  await bundle({
    "groma-web": join(root, "www", "engine", "index.ts"),
    "groma-chat": join(root, "www", "element", "groma-chat.ts"),
  });
  await bundle({ worker: join(root, "www", "worker", "worker.ts") });
  await copyFile(join(root, "www", "pkg", "groma_bg.wasm"), join(OUT, "groma_bg.wasm"));
  await writeFile(join(OUT, "groma-chat.server.js"), SERVER);
  await writeFile(join(OUT, "THIRD-PARTY.txt"), await notices());
  const described = join(root, "custom-elements.json");
  await copyFile(described, join(OUT, "custom-elements.json")).catch(() => undefined);
  await types();
}

async function bundle(input) {
  const { rolldown } = await import("rolldown");
  const build = await rolldown({
    input,
    platform: "browser",
    tsconfig: join(root, "tsconfig.json"),
    logLevel: "warn",
    plugins: [
      {
        name: "worker-address",
        // In www/ the worker is a source file of another folder; in the package it lies beside.
        transform: (code, id) =>
          id.endsWith("lines.ts") ? code.replace("../worker/worker.ts", "./worker.js") : undefined,
      },
    ],
  });
  await build.write({
    dir: OUT,
    format: "esm",
    entryFileNames: "[name].js",
    chunkFileNames: "[name].js",
    // Whitespace stays: who embeds it may want to read it, and bundlers and hosts compress.
    minify: false,
    comments: { legal: true, annotation: true, jsdoc: false },
  });
  await build.close();
}

/** Declarations of the engine and the element, as far as their users can see, in need of no other package. */
async function types() {
  const tsc = join(root, "node_modules", "@typescript", "native", "bin", "tsc");
  await run(process.execPath, [tsc, "-p", join(root, "tsconfig.package.json")]);
  const home = join(OUT, "types");
  const seen = new Set(["lit.d.ts"]);
  const queue = ["engine/index.d.ts", "element/groma-chat.d.ts"];
  for (let path = queue.pop(); path; path = queue.pop()) {
    if (seen.has(path)) continue;
    seen.add(path);
    const text = await readFile(join(home, path), "utf8");
    const up = "../".repeat(path.split("/").length - 1);
    await writeFile(
      join(home, path),
      text.replaceAll(/(from |import\()"lit(?:\/[^"]*)?"/g, `$1"${up}lit.js"`),
    );
    for (const [, from = ""] of text.matchAll(/(?:from |import\()"([^"]+)"/g)) {
      if (from.startsWith(".")) queue.push(posix.join(dirname(path), from.replace(/\.js$/, ".d.ts")));
      else if (!/^lit(\/|$)/.test(from)) throw new Error(`${path} needs the package ${from}`);
    }
  }
  await writeFile(join(home, "lit.d.ts"), LIT_TYPES);
  for (const path of await readdir(home, { recursive: true })) {
    if (path.endsWith(".d.ts") && !seen.has(path.replaceAll("\\", "/"))) await rm(join(home, path));
  }
  for (const path of (await readdir(home, { recursive: true })).reverse()) {
    // What is empty now; a folder with files refuses.
    await rmdir(join(home, path)).catch(() => undefined);
  }
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) await buildPackage();
