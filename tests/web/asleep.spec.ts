/**
 * A tab that is hidden and a laptop that sleeps. Playwright's own pages are always taken to be seen, so a browser is started beside
 * it and left as it is.
 */

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium, type Page } from "@playwright/test";
import { makePacks } from "./packs.js";
import { choosePhoto, expect, load, looked, test as base } from "./site.js";

/** A tab as its reader has it. */
interface Tab {
  readonly page: Page;
  /** Another tab is brought to front. */
  readonly hide: () => Promise<void>;
  /** Nothing runs any more, as on a laptop whose lid was closed. */
  readonly sleep: () => Promise<unknown>;
  readonly wake: () => Promise<unknown>;
}

const test = base.extend<{ tab: Tab }>({
  tab: async ({ launchOptions: { executablePath, args = [] } }, use) => {
    const home = await mkdtemp(join(tmpdir(), "groma-browser-"));
    const own = ["--headless=new", "--remote-debugging-port=0", `--user-data-dir=${home}`, "--no-first-run"];
    const program = executablePath ?? chromium.executablePath();
    const started = spawn(program, [...own, ...args, "about:blank"], { stdio: ["ignore", "ignore", "pipe"] });
    const ended = once(started, "exit");
    try {
      const browser = await chromium.connectOverCDP(await addressOf(started.stderr), { noDefaults: true });
      const [context] = browser.contexts();
      const [page] = context?.pages() ?? [];
      if (!context || !page) throw new Error("the browser has no tab");
      const session = await context.newCDPSession(page);
      const other = await context.newPage();
      await page.bringToFront();
      await use({
        page,
        hide: async () => {
          await other.bringToFront();
          await expect.poll(() => page.evaluate(() => document.visibilityState)).toBe("hidden");
        },
        sleep: () => session.send("Page.setWebLifecycleState", { state: "frozen" }),
        wake: () => session.send("Page.setWebLifecycleState", { state: "active" }),
      });
      await browser.close();
    } finally {
      started.kill();
      await ended;
      // Its helpers may write for a moment longer; what they leave is the system's to clear.
      await rm(home, { recursive: true, force: true, maxRetries: 5 }).catch(() => undefined);
    }
  },
});

/** Where a browser that was started listens, as it says on its way. */
async function addressOf(said: NodeJS.ReadableStream): Promise<string> {
  let all = "";
  for await (const piece of said) {
    all += String(piece);
    const found = /listening on (ws:\S+)/.exec(all)?.[1];
    if (found) return found;
  }
  throw new Error(`the browser did not start: ${all}`);
}

/** What the element said, with whether anyone could see it. */
interface Told {
  readonly name: string;
  readonly seen: boolean;
  readonly fraction?: number;
}

declare global {
  interface Window {
    told: Told[];
  }
}

async function open(page: Page, url: string): Promise<void> {
  await page.goto(url);
  await page.evaluate(() => {
    window.told = [];
    for (const kind of ["progress", "segment", "answer", "error"] as const) {
      document.addEventListener(`groma-${kind}`, (event) => {
        const { fraction } = (event as CustomEvent<{ fraction?: number }>).detail;
        const seen = document.visibilityState === "visible";
        window.told.push({ name: kind, seen, ...(fraction === undefined ? {} : { fraction }) });
      });
    }
    document.addEventListener("freeze", () => window.told.push({ name: "freeze", seen: false }));
  });
}

const told = (page: Page, name: string) =>
  page.evaluate((kind) => window.told.filter((one) => one.name === kind), name);

/** Asks in a new conversation; gives the answer's tokens. */
async function ask(page: Page, most: number): Promise<readonly number[]> {
  const again = page.getByRole("button", { name: "New conversation" });
  // No click by pointer: nothing is drawn for it in a tab that is hidden.
  if (await again.isVisible()) await again.dispatchEvent("click");
  return page.evaluate(async (maxTokens) => {
    window.told = [];
    const chat = document.querySelector("groma-chat");
    if (!chat) throw new Error("no element");
    chat.maxTokens = maxTokens;
    return (await chat.ask("What is this?"))?.tokens ?? [];
  }, most);
}

/** Asks and lets something happen once the answer has begun. */
async function askWhile(page: Page, most: number, happens: () => Promise<void>): Promise<readonly number[]> {
  await page.evaluate(() => (window.told = []));
  const tokens = ask(page, most);
  await expect.poll(async () => (await told(page, "segment")).length, { intervals: [20] }).toBeGreaterThan(0);
  await happens();
  return tokens;
}

test.beforeAll(() => makePacks());

// So many tokens that there is time to look away.
for (const [device, tokens] of [
  ["cpu", 800],
  ["gpu", 100],
] as const) {
  test(`an answer on the ${device} goes on where nobody looks, and after a sleep`, async ({ tab, site }) => {
    const { page, hide, sleep, wake } = tab;
    await open(page, site.page({ device, numerics: "exact" }));
    await choosePhoto(page);
    await load(page);
    await looked(page);
    // The first answer reads the photo; those that follow compute alike, to the bit.
    await ask(page, 1);
    const whole = await ask(page, tokens);
    expect(whole).toHaveLength(tokens);

    expect(await askWhile(page, tokens, hide)).toEqual(whole);
    expect(await told(page, "answer")).toEqual([{ name: "answer", seen: false }]);

    const slept = await askWhile(page, tokens, async () => {
      await sleep();
      await page.waitForTimeout(500);
      const before = await told(page, "segment");
      await page.waitForTimeout(1500);
      expect((await told(page, "segment")).length, "nothing runs").toBe(before.length);
      expect(await told(page, "answer"), "it was not over before").toEqual([]);
      await wake();
    });
    expect(slept).toEqual(whole);
    expect(await told(page, "freeze")).toHaveLength(1);
    expect(await told(page, "error")).toEqual([]);
    await expect(page.locator(".foot")).toHaveText(new RegExp(`${tokens} tokens$`));
    await expect(page.getByRole("alert")).toHaveCount(0);
  });
}

test("a download goes on where nobody looks, and where a sleep has cut it", async ({ tab, site }) => {
  const { page, hide, sleep, wake } = tab;
  const file = "perceiver.gguf.000";
  site.fates.push({ file, fate: "held", times: 1 });
  await open(page, site.page({ device: "cpu" }));
  await choosePhoto(page);
  await load(page);
  // All but the half that is held.
  await expect.poll(async () => (await told(page, "progress")).at(-1)?.fraction ?? 0).toBeGreaterThan(0.5);
  await hide();
  await sleep();
  for (const response of site.held) response.destroy();
  await page.waitForTimeout(1500);
  expect(site.parts.filter(({ path }) => path.endsWith(file))).toHaveLength(1);
  await wake();
  await looked(page);
  const asked = site.parts.filter(({ path }) => path.endsWith(file)).map(({ range }) => range);
  expect(asked).toEqual([undefined, expect.stringMatching(/^bytes=[1-9]\d*-$/)]);
  const fractions = (await told(page, "progress")).map(({ fraction }) => fraction ?? 0);
  expect(fractions).toEqual([...fractions].sort((a, b) => a - b));
  expect(fractions.at(-1)).toBe(1);
  expect(await told(page, "freeze")).toHaveLength(1);
  expect(await told(page, "error")).toEqual([]);
  expect(await page.evaluate(() => document.visibilityState)).toBe("hidden");
  await expect(page.getByRole("alert")).toHaveCount(0);
});
