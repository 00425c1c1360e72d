// Draws the installed page's icons out of www/page/icon.svg into www/public/icons, where they are committed. Run by hand
// when the icon changes: `node scripts/icons.mjs`.

import { existsSync } from "node:fs";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { root } from "./lib.mjs";

const OUT = join(root, "www", "public", "icons");
const PAPER = "#f6f5f1";
const system = process.env.CHROMIUM ?? "/usr/bin/chromium";

const { chromium } = await import("@playwright/test");
const svg = await readFile(join(root, "www", "page", "icon.svg"), "utf8");
await mkdir(OUT, { recursive: true });
await writeFile(join(OUT, "icon.svg"), svg);
const browser = await chromium.launch({
  ...(existsSync(system) ? { executablePath: system } : {}),
  args: ["--no-sandbox"],
});
const page = await browser.newPage();

/** A square of paper with the mark in its middle; a maskable icon keeps the mark inside the circle that may be cut out. */
async function draw(name, size, share) {
  await page.setViewportSize({ width: size, height: size });
  const mark = `<div style="width:${share * 100}%;margin:auto">${svg}</div>`;
  await page.setContent(
    `<body style="margin:0;height:100vh;display:grid;align-items:center;background:${PAPER}">${mark}</body>`,
  );
  await page.screenshot({ path: join(OUT, name) });
}

await draw("icon-192.png", 192, 0.8);
await draw("icon-512.png", 512, 0.8);
await draw("icon-maskable-512.png", 512, 0.55);
await browser.close();
