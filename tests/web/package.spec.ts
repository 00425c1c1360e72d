/** The npm package as strangers get it: packed, installed, imported on a server, and every worked example of the docs built and driven. */

import { execFileSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test as base, type Page } from "@playwright/test";
import { rolldown } from "rolldown";
import { serve } from "../../scripts/serve.mjs";
import { BOOK_SCRIPT, BOOK_STYLE, bookPage } from "./book.js";
import { makePacks, PACKS, ROOT } from "./packs.js";
import { ask, choosePhoto, expect, load, looked, PHOTO } from "./site.js";

const EXAMPLES = join(ROOT, "docs", "examples");
// Inside the repository, so that the examples find its Vite, and nowhere a package of the name.
const HOME = join(ROOT, ".cache", "examples");
const INSTALLED = join(HOME, "vite", "node_modules", "groma-web");
const npm = process.platform === "win32" ? "npm.cmd" : "npm";

interface Pack {
  readonly filename: string;
  readonly files: readonly { readonly path: string }[];
}

const run = (program: string, args: readonly string[], cwd: string) =>
  execFileSync(program, args, { cwd, stdio: ["ignore", "pipe", "pipe"] }).toString();

const test = base.extend<{ served: (dir: string) => Promise<string>; clean: Page }>({
  // eslint-disable-next-line no-empty-pattern
  served: async ({}, use) => {
    const servers: (() => void)[] = [];
    await use(async (dir) => {
      const { url, close } = await serve({ dir, base: "/docs/en/" });
      servers.push(close);
      return url;
    });
    for (const close of servers) close();
  },
  /** A page whose console must stay clean. */
  clean: async ({ page }, use) => {
    const said: string[] = [];
    page.on("console", (message) => {
      if (["error", "warning"].includes(message.type())) said.push(message.text());
    });
    page.on("pageerror", (error) => said.push(error.message));
    await use(page);
    expect(said, "the console stays clean").toEqual([]);
  },
});

test.describe.configure({ mode: "serial" });

test.beforeAll(() => {
  makePacks();
  rmSync(HOME, { recursive: true, force: true });
  mkdirSync(HOME, { recursive: true });
});

/** A copy of an example with the package's files, a tiny model and a photo where its pages say that they are. */
function copyOf(name: string, from = join(EXAMPLES, name)): string {
  const dir = join(HOME, name);
  cpSync(from, dir, { recursive: true });
  cpSync(join(INSTALLED, "dist", "groma"), join(dir, "groma"), { recursive: true });
  cpSync(join(PACKS, "tiny"), join(dir, "groma", "models", "groma-s"), { recursive: true });
  cpSync(PHOTO, join(dir, "street.png"));
  return dir;
}

test("holds what it should and nothing else", () => {
  const [pack] = JSON.parse(run(npm, ["pack", "--dry-run", "--json"], ROOT)) as Pack[];
  const paths = (pack?.files ?? []).map(({ path }) => path).sort();
  const types = paths.filter((path) => /^dist\/groma\/types\/(engine|element)\/[a-z-]+\.d\.ts$/.test(path));
  expect(types).toContain("dist/groma/types/engine/index.d.ts");
  expect(types).toContain("dist/groma/types/element/groma-chat.d.ts");
  expect(paths.filter((path) => !types.includes(path) && path !== "dist/groma/custom-elements.json")).toEqual(
    [
      "LICENSE",
      "README.md",
      "dist/groma/THIRD-PARTY.txt",
      "dist/groma/engine.js",
      "dist/groma/groma-chat.js",
      "dist/groma/groma-chat.server.js",
      "dist/groma/groma-web.js",
      "dist/groma/groma_bg.wasm",
      "dist/groma/types/lit.d.ts",
      "dist/groma/worker.js",
      "package.json",
    ],
  );
});

test("installs from its tarball, without a network", () => {
  const dir = join(HOME, "vite");
  const [pack] = JSON.parse(run(npm, ["pack", "--json", "--pack-destination", HOME], ROOT)) as Pack[];
  cpSync(join(EXAMPLES, "vite"), dir, { recursive: true });
  const manifest = JSON.parse(readFileSync(join(dir, "package.json"), "utf8")) as Record<string, object>;
  // The repository's Vite is the one that builds it.
  delete manifest.devDependencies;
  manifest.dependencies = { "groma-web": `file:../${pack?.filename ?? ""}` };
  writeFileSync(join(dir, "package.json"), JSON.stringify(manifest));
  run(npm, ["install", "--offline", "--no-audit", "--no-fund", "--ignore-scripts"], dir);
  expect(existsSync(join(INSTALLED, "dist", "groma", "groma_bg.wasm"))).toBe(true);
  expect(readdirSync(join(dir, "node_modules")).filter((name) => !name.startsWith("."))).toEqual([
    "groma-web",
  ]);
});

test("is imported on a server without harm", () => {
  const script = `
    const { Groma, GromaError } = await import("groma-web");
    const { GromaChat } = await import("groma-web/element");
    const files = ["groma-web/worker", "groma-web/wasm"].map((name) => import.meta.resolve(name));
    const error = new GromaError("closed", "x");
    console.log(JSON.stringify([typeof Groma.create, typeof GromaChat, error.name, typeof window, files.length]));
  `;
  const out = run(process.execPath, ["--input-type=module", "--eval", script], join(HOME, "vite"));
  expect(JSON.parse(out)).toEqual(["function", "function", "InvalidStateError", "undefined", 2]);
});

test("is typed without any other package", () => {
  const dir = join(HOME, "vite");
  writeFileSync(
    join(dir, "typed.ts"),
    `import { Groma, GromaError, type Region } from "groma-web";
     import { GromaChat } from "groma-web/element";
     export async function regions(file: File): Promise<readonly Region[]> {
       const groma = await Groma.create({ model: "/m/" });
       const photo = await groma.open(file);
       for await (const { text, regions } of photo.ask("?")) console.log(text, regions[0]?.box[0].toFixed());
       const chat: GromaChat | null = document.querySelector("groma-chat");
       chat?.addEventListener("groma-answer", ({ detail }) => console.log(detail.result.tokens.length));
       // @ts-expect-error a question is text
       photo.ask(7);
       if (new GromaError("closed", "x").reason === "aborted") return [];
       return photo.regions;
     }`,
  );
  const tsc = join(ROOT, "node_modules", "@typescript", "native", "bin", "tsc");
  const options =
    "--ignoreConfig --noEmit --strict --target es2022 --module esnext --moduleResolution bundler";
  const lib = ["--lib", "es2023,dom,dom.iterable,dom.asynciterable", "--types", ""];
  const args = [tsc, ...options.split(" "), ...lib, "typed.ts"];
  expect(run(process.execPath, args, dir)).toBe("");
});

test("leaves out what is not used", async () => {
  const entry = join(HOME, "vite", "only.js");
  writeFileSync(entry, `export { GromaError } from "groma-web";`);
  const build = await rolldown({ input: entry, platform: "browser", logLevel: "silent" });
  const { output } = await build.generate({ format: "esm" });
  await build.close();
  expect(output[0].code).toContain("extends DOMException");
  expect(output[0].code).not.toContain("new Worker");
  expect(output[0].code.length).toBeLessThan(4000);
});

test("the Vite example builds and answers", async ({ clean: page, served }) => {
  const dir = join(HOME, "vite");
  const vite = join(ROOT, "node_modules", "vite", "bin", "vite.js");
  run(process.execPath, [vite, "build", "--logLevel", "error"], dir);
  cpSync(join(PACKS, "tiny"), join(dir, "dist", "models", "groma-s"), { recursive: true });
  await page.goto(await served(join(dir, "dist")));
  await page.getByRole("button", { name: "Load the model" }).click();
  await expect(page.locator("#status")).toContainText("is ready on cpu");
  await page.getByLabel("Photo").setInputFiles(PHOTO);
  await expect(page.locator("#status")).toContainText(/\d+ tokens, ended by/);
  await expect(page.locator("#answer")).not.toBeEmpty();
});

/** Agrees, waits, asks. */
async function drive(page: Page): Promise<void> {
  await load(page);
  await looked(page);
  await ask(page, "What is this?");
}

test("the static example: two figures, one engine", async ({ clean: page, served }) => {
  await page.goto(`${await served(copyOf("static"))}index.html`);
  const [first, second] = [page.locator("#first"), page.locator("#second")];
  await first.getByRole("button", { name: /^(Load|Start)/ }).click();
  await expect(first.getByText(/^\d+ regions?$/)).toBeVisible();
  const gate = second.getByRole("button", { name: /^(Load|Start)/ });
  await expect(gate.or(second.getByText(/^\d+ regions?$/)).first()).toBeVisible();
  if (await gate.isVisible()) await gate.click();
  await expect(second.getByText(/^\d+ regions?$/)).toBeVisible();
  for (const figure of [first, second]) {
    await figure.getByRole("textbox", { name: "Ask" }).fill("What is this?");
    await figure.getByRole("button", { name: "Ask", exact: true }).click();
  }
  for (const figure of [first, second]) await expect(figure.locator(".foot")).toHaveCount(1);
  expect(page.workers().length).toBe(1);
  // A figure on someone else's page leaves that page's service workers alone.
  expect(await page.evaluate(async () => (await navigator.serviceWorker.getRegistrations()).length)).toBe(0);
});

test("the example under a strict policy answers", async ({ clean: page, served }) => {
  await page.goto(`${await served(copyOf("strict-csp"))}index.html`);
  await drive(page);
  await expect(page.locator("#log li")).toHaveCount(1);
});

test("the chapter of a book answers", async ({ clean: page, served }) => {
  const dir = copyOf("mdbook", join(EXAMPLES, "mdbook", "src"));
  // What mdBook makes of a chapter, in the frame that it puts around: HTML blocks as they are, paragraphs in tags.
  const chapter = readFileSync(join(EXAMPLES, "mdbook", "src", "photo.md"), "utf8")
    .split(/\n{2,}/)
    .map((block) =>
      block.startsWith("<")
        ? block
        : block.replace(/^# (.*)/, "<h1>$1</h1>").replace(/^(?!<)(.*)/s, "<p>$1</p>"),
    )
    .join("\n");
  writeFileSync(join(dir, "photo.html"), bookPage("A figure", chapter));
  writeFileSync(join(dir, "book.css"), BOOK_STYLE);
  writeFileSync(join(dir, "book.js"), BOOK_SCRIPT);
  await page.goto(`${await served(dir)}photo.html`);
  await drive(page);
  await expect(page.getByRole("textbox", { name: "Ask" })).toHaveCSS("font-size", "16px");
  // A question about one thing opens no search and leaves no chapter.
  await page.getByRole("textbox", { name: "Ask" }).pressSequentially("is/so?");
  expect(await page.evaluate(() => shortcuts)).toEqual([]);
});

test("the engine alone lets a photo be chosen by hand as well", async ({ clean: page, served }) => {
  const dir = copyOf("strict-csp");
  writeFileSync(
    join(dir, "bare.html"),
    `<!doctype html><html lang="en"><title>Bare</title><link rel="icon" href="data:,">
     <script type="module" src="groma/groma-chat.js"></script><groma-chat model="groma/models/groma-s/"></groma-chat>`,
  );
  await page.goto(`${await served(dir)}bare.html`);
  await choosePhoto(page);
  await load(page);
  await looked(page);
});
