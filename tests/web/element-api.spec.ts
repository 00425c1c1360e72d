/** The element as a page's author meets it: attributes, slots, events, methods, and what happens when they change. */

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "@playwright/test";
import type { GromaEvents } from "../../www/element/events.js";
import { change, made, open, put } from "./embed-page.js";
import { fakeAnswer, faults, regions } from "./fake-page.js";
import { ROOT } from "./packs.js";
import { PHOTO } from "./site.js";

test("what was set before the definition counts", async ({ page }) => {
  await open(page);
  await page.evaluate(() => {
    const chat = document.createElement("groma-chat");
    Object.assign(chat, {
      maker: embed.maker,
      question: "Why?",
      src: "/photos/a.png",
      boxes: [[1, 2, 30, 40]],
    });
    chat.setAttribute("model", "/pack/");
    document.querySelector("#here")?.append(chat);
    embed.define();
  });
  await page.getByRole("button", { name: "Start" }).click();
  await regions(page);
  await expect(page.getByRole("textbox", { name: "Ask" })).toHaveValue("Why?");
  expect(await change(page, (chat) => chat.boxes)).toEqual([[1, 2, 30, 40]]);
});

test("what is opened at once is not closed by an address that never was", async ({ page }) => {
  await open(page);
  await page.evaluate(async () => {
    embed.define();
    const chat = document.createElement("groma-chat");
    Object.assign(chat, { maker: embed.maker, model: "/pack/" });
    document.querySelector("#here")?.append(chat);
    await chat.open(await (await fetch("/photos/a.png")).blob(), "opened");
  });
  await regions(page);
  await expect(page.getByRole("img", { name: "opened" })).toBeVisible();
});

test("says the size and makes nothing before the reader agrees", async ({ page }) => {
  await open(page, "?");
  await put(page, { src: "/photos/a.png", alt: "A street" });
  await expect(page.getByRole("img", { name: "A street" })).toBeVisible();
  await expect(page.getByText("145 MB once, kept in this browser · licence MIT")).toBeVisible();
  await expect(page.getByText("It takes about 218 MB of memory", { exact: false })).toBeVisible();
  expect(await made(page)).toEqual([0, 0]);
  await page.getByRole("button", { name: "Load 145 MB" }).click();
  await regions(page);
  expect(await made(page)).toEqual([1, 1]);
});

test("load decides who begins", async ({ page }) => {
  await open(page);
  await put(page, { src: "/photos/a.png" });
  await expect(page.getByRole("button", { name: "Start" })).toBeVisible();
  expect(await made(page), "interaction waits even for what is here").toEqual([0, 0]);
  await change(page, (chat) => chat.remove());

  await page.evaluate(() => (document.body.style.paddingTop = "3000px"));
  await put(page, { src: "/photos/a.png", load: "visible" });
  await expect(page.getByText("no download", { exact: false })).toBeAttached();
  expect(await made(page), "visible waits until it is seen").toEqual([0, 0]);
  await page.locator("groma-chat").scrollIntoViewIfNeeded();
  await regions(page);
  await change(page, (chat) => chat.remove());

  await open(page, "?");
  await put(page, { load: "visible" });
  await expect(page.getByRole("button", { name: "Load 145 MB" })).toBeInViewport();
  await page.waitForTimeout(300);
  expect(await made(page), "visible never downloads unasked").toEqual([0, 0]);
  await change(page, (chat) => (chat.load = "eager"));
  await expect(page.getByRole("textbox", { name: "Ask" })).toBeVisible();
  expect(await made(page)).toEqual([1, 1]);
});

test("tells the page what happens, across the shadow's border", async ({ page }) => {
  await open(page);
  await put(page, { src: "/photos/a.png", "max-tokens": "12" });
  await page.evaluate(() => {
    globalThis.seen = [];
    for (const kind of ["progress", "ready", "regions", "segment", "answer", "error"]) {
      document.addEventListener(`groma-${kind}`, (event) => {
        const { detail, target } = event as CustomEvent<unknown>;
        seen.push({ name: event.type, detail, at: (target as Element).localName });
      });
    }
  });
  await page.getByRole("button", { name: "Start" }).click();
  await regions(page);
  const text = await change(page, async (chat) => (await chat.ask("Who?", [[1, 1, 9, 9]]))?.text);
  expect(text).toContain("A woman");
  await change(page, (chat) => chat.detect("cup"));
  await change(page, (chat) => chat.locate("the left cup"));
  await change(page, (chat) => chat.caption([1, 1, 9, 9]));
  const asked = await page.evaluate(() => embed.maker.asked);
  expect(asked.map(({ task }) => task.kind)).toEqual(["ask", "detect", "locate", "caption"]);
  expect(asked[0]).toMatchObject({ maxTokens: 12, task: { question: "Who?", refer: [[1, 1, 9, 9]] } });
  const events = await page.evaluate(() => seen);
  expect(new Set(events.map((event) => event.at))).toEqual(new Set(["groma-chat"]));
  const first = (name: string) => events.find((event) => event.name === name)?.detail;
  expect(first("groma-progress")).toMatchObject({ phase: "download", totalBytes: 145_300_000 });
  expect(first("groma-ready")).toMatchObject({ model: "groma-s", device: "cpu" });
  expect(first("groma-regions")).toHaveProperty("regions.length", 8);
  expect(first("groma-segment")).toMatchObject({ turn: 1, segment: { index: 0 } });
  expect(first("groma-answer")).toMatchObject({ turn: 1, task: { kind: "ask" }, result: { stopped: "end" } });
  expect(first("groma-error")).toBeUndefined();
});

test("stop() ends an answer and keeps what was said", async ({ page }) => {
  await open(page);
  await put(page, { src: "/photos/a.png", load: "eager" });
  await regions(page);
  const stopped = await change(page, async (chat) => {
    const answer = chat.ask("Who?");
    await new Promise((done) => chat.addEventListener("groma-segment", done, { once: true }));
    chat.stop();
    return (await answer)?.stopped;
  });
  expect(stopped).toBe("aborted");
});

test("another photo ends what was going on about the old one", async ({ page }) => {
  await open(page);
  await put(page, { src: "/photos/first.png", load: "eager" });
  await regions(page);
  await expect(page.getByRole("img", { name: "first.png" })).toBeVisible();
  await page.getByRole("textbox", { name: "Ask" }).fill("Who?");
  await page.keyboard.press("Enter");
  await expect(page.getByRole("button", { name: "Stop" })).toBeVisible();
  await change(page, (chat) => (chat.src = "/photos/second.png"));
  await expect(page.getByRole("img", { name: "second.png" })).toBeVisible();
  await regions(page);
  await expect(page.getByRole("article")).toHaveCount(0);
  // While it is still looked at.
  await change(page, (chat) => {
    chat.src = "/photos/third.png";
    setTimeout(() => (chat.src = "/photos/fourth.png"), 100);
  });
  await expect(page.getByRole("img", { name: "fourth.png" })).toBeVisible();
  await regions(page);
  await fakeAnswer(page);
  await change(page, (chat) => (chat.src = ""));
  await expect(page.getByRole("heading", { name: "Choose a photo" })).toBeVisible();
  await page.route("**/gone.png", (route) => route.fulfill({ status: 404 }));
  await change(page, (chat) => (chat.src = "/gone.png"));
  await expect(page.getByRole("alert")).toContainText("The photo could not be fetched");
});

test("another model is another question of the reader", async ({ page }) => {
  await open(page, "?slow");
  await put(page, { src: "/photos/a.png" });
  await page.getByRole("button", { name: "Load 145 MB" }).click();
  await expect(page.getByRole("progressbar")).toBeVisible();
  await change(page, (chat) => (chat.model = "/small/"));
  await expect(page.getByText("groma-small", { exact: false })).toBeVisible();
  await expect(page.getByRole("button", { name: "Load 15 MB" })).toBeVisible();
  expect(await made(page), "the old one is not made to the end").toEqual([1, 0]);
});

test("another model while answering gives the old one back", async ({ page }) => {
  await open(page);
  await put(page, { src: "/photos/a.png", load: "eager" });
  await regions(page);
  await page.getByRole("textbox", { name: "Ask" }).fill("Who?");
  await page.keyboard.press("Enter");
  await expect(page.getByRole("button", { name: "Stop" })).toBeVisible();
  await change(page, (chat) => (chat.model = "/small/"));
  await regions(page);
  await expect.poll(() => made(page)).toEqual([2, 1]);
  await expect(page.getByRole("article")).toHaveCount(0);
  await fakeAnswer(page);
});

test("another kind of arithmetic is another engine", async ({ page }) => {
  await open(page);
  await put(page, { src: "/photos/a.png", load: "eager" });
  await regions(page);
  await change(page, (chat) => (chat.numerics = "exact"));
  await expect.poll(() => made(page)).toEqual([2, 1]);
  await regions(page);
});

test("the keyboard's place is kept where what was focused goes", async ({ page }) => {
  const focused = () =>
    change(page, (chat) => {
      const focused = chat.shadowRoot?.activeElement;
      return focused?.getAttribute("aria-label") ?? focused?.textContent.trim();
    });
  await open(page, "?");
  await put(page, { src: "/photos/a.png" });
  await page.getByRole("button", { name: "Load 145 MB" }).focus();
  await page.keyboard.press("Enter");
  await regions(page);
  expect(await focused()).toBe("Ask");
  await page.getByRole("button", { name: "New photo" }).focus();
  await page.keyboard.press("Enter");
  expect(await focused()).toBe("Choose a photo");
  await page.getByRole("button", { name: "Back to the photo" }).focus();
  await page.keyboard.press("Enter");
  expect(await focused()).toBe("Draw a box");
});

test("an address without a photo ends the old one and says why", async ({ page }) => {
  await open(page);
  await put(page, { src: "/photos/a.png", load: "eager" });
  await regions(page);
  await fakeAnswer(page);
  await page.route("**/nowhere/b.jpg", (route) => route.fulfill({ status: 404 }));
  await change(page, (chat) => (chat.src = "/nowhere/b.jpg"));
  await expect(page.getByRole("alert")).toContainText("could not be fetched");
  await expect(page.getByRole("alert")).toContainText("image-unreadable");
  await expect(page.getByRole("article")).toHaveCount(0);
  await expect(page.getByRole("heading", { name: "Choose a photo" })).toBeVisible();
});

test("a new conversation lets every box go, and Tab reaches one", async ({ page }) => {
  await open(page);
  await put(page, { src: "/photos/a.png", load: "eager" });
  await regions(page);
  await fakeAnswer(page);
  const reached = page.locator('[role=option][tabindex="0"]');
  await page.getByRole("option").last().click();
  await expect(reached).toHaveCount(1);
  await expect(page.locator(".box.dimmed").first()).toBeAttached();
  await page.getByRole("button", { name: "New conversation" }).click();
  await page.mouse.move(0, 0);
  await expect(page.getByRole("article")).toHaveCount(0);
  await expect(page.locator(".box.dimmed")).toHaveCount(0);
  await expect(reached).toHaveCount(1);
});

test("moving keeps everything; taking out gives back; putting back begins again", async ({ page }) => {
  await open(page);
  await put(page);
  await page.locator("input[type=file]").setInputFiles(PHOTO);
  await regions(page);
  await fakeAnswer(page);
  await change(page, (chat) => document.querySelector("main")?.append(chat));
  await expect(page.getByRole("article")).toHaveCount(1);
  expect(await made(page)).toEqual([1, 1]);
  await page.evaluate(() => Object.assign(globalThis, { chat: document.querySelector("groma-chat") }));
  await change(page, (chat) => chat.remove());
  await expect.poll(() => made(page)).toEqual([1, 0]);
  await page.evaluate(() =>
    document.querySelector("#here")?.append((globalThis as never as { chat: Node }).chat),
  );
  await expect(page.getByRole("img", { name: "photo_A.png" })).toBeVisible();
  await regions(page);
  await fakeAnswer(page);
  expect(await made(page)).toEqual([2, 1]);
});

test("what the reader chose is what is put back", async ({ page }) => {
  await open(page);
  await put(page, { src: "/photos/a.png", load: "eager" });
  await regions(page);
  await page.locator("input[type=file]").setInputFiles(PHOTO);
  await expect(page.getByRole("img", { name: "photo_A.png" })).toBeVisible();
  await page.evaluate(() => {
    const chat = document.querySelector("groma-chat");
    chat?.remove();
    setTimeout(() => document.querySelector("#here")?.append(chat ?? ""), 50);
  });
  await expect(page.getByRole("img", { name: "photo_A.png" })).toBeVisible();
  await regions(page);
});

test("several elements live beside each other", async ({ page }) => {
  await open(page);
  await put(page, { src: "/photos/one.png", load: "eager" });
  await put(page, { src: "/photos/two.png", load: "eager" });
  const [one, two] = [page.locator("groma-chat").first(), page.locator("groma-chat").last()];
  for (const chat of [one, two]) await expect(chat.getByText("8 regions", { exact: true })).toBeVisible();
  await two.getByRole("button", { name: "Describe this photo" }).click();
  await expect(two.getByText("24 tokens")).toBeVisible();
  await expect(one.getByRole("article")).toHaveCount(0);
  expect(await faults(page)).toEqual([]);
});

test("tasks and readonly limit what can be done", async ({ page }) => {
  await open(page);
  await put(page, { src: "/photos/a.png", load: "eager", tasks: "detect locate" });
  await regions(page);
  await expect(page.getByRole("radio")).toHaveCount(2);
  await expect(page.getByRole("radio", { name: "Find all" })).toBeChecked();
  await expect(page.getByRole("button", { name: "Describe this photo" })).toHaveCount(0);
  await change(page, (chat) => {
    chat.tasks = "ask";
    chat.question = "Who is near the red car?";
    chat.readonly = true;
  });
  await expect(page.getByRole("radio")).toHaveCount(0);
  for (const name of ["Draw a box", "New photo"])
    await expect(page.getByRole("button", { name })).toHaveCount(0);
  const photo = await page.locator(".frame").boundingBox();
  await page.mouse.move((photo?.x ?? 0) + 20, (photo?.y ?? 0) + 20);
  await page.mouse.down();
  await page.mouse.move((photo?.x ?? 0) + 90, (photo?.y ?? 0) + 90, { steps: 4 });
  await page.mouse.up();
  expect(await change(page, (chat) => chat.boxes)).toEqual([]);
  const field = page.getByRole("textbox", { name: "Ask" });
  await expect(field).not.toBeEditable();
  await field.press("Enter");
  await expect(page.getByText("24 tokens")).toBeVisible();
  await expect(field).toHaveValue("Who is near the red car?");
});

test("slots stand where they should", async ({ page }) => {
  await open(page, "?nogpu");
  const slots = ["poster", "fallback", "toolbar", "samples"];
  await put(page, { device: "gpu" }, slots.map((name) => `<p slot="${name}">in ${name}</p>`).join(""));
  for (const name of ["toolbar", "poster", "samples", "fallback"])
    await expect(page.getByText(`in ${name}`)).toBeVisible();
  await expect(page.getByRole("heading", { name: "Choose a photo" })).toBeHidden();
  await expect(page.getByRole("alert")).toContainText("no WebGPU");
  await open(page, "?");
  await put(page, {}, '<p slot="fallback">in fallback</p>');
  await expect(page.getByRole("button", { name: "Load 145 MB" })).toBeVisible();
  await expect(page.getByText("in fallback")).toBeHidden();
});

test("custom properties and parts dress it", async ({ page }) => {
  await open(page, "?");
  await put(page);
  await page.addStyleTag({
    content:
      "groma-chat { --groma-accent: rgb(0, 80, 0); --groma-radius: 2px } ::part(button) { letter-spacing: 3px }",
  });
  const load = page.getByRole("button", { name: "Load 145 MB" });
  await expect(load).toHaveCSS("background-color", "rgb(0, 80, 0)");
  await expect(load).toHaveCSS("letter-spacing", "3px");
  await expect(load).toHaveCSS("border-radius", "0px");
});

test("a question that failed can be put once more", async ({ page }) => {
  await open(page, "?cached&trap");
  await put(page, { src: "/photos/a.png", load: "eager" });
  await regions(page);
  await page.getByRole("textbox", { name: "Ask" }).fill("Who?");
  await page.keyboard.press("Enter");
  await expect(page.getByRole("alert")).toContainText("The engine broke");
  await page.getByRole("button", { name: "Ask again" }).click();
  await expect(page.getByText("24 tokens")).toBeVisible();
  // The engine starts itself again: the element keeps it.
  expect(await made(page)).toEqual([1, 1]);
});

test("nothing foreign is ever markup", async ({ page }) => {
  const evil = "<img src=x onerror=alert(1)>";
  const dialogs: string[] = [];
  page.on("dialog", (dialog) => {
    dialogs.push(dialog.message());
    void dialog.dismiss();
  });
  await open(page, "?evil");
  await put(page);
  await expect(page.getByText(evil, { exact: false })).toBeVisible();
  await page.locator("input[type=file]").setInputFiles({
    name: `${evil}.png`,
    mimeType: "image/png",
    buffer: await readFile(PHOTO),
  });
  await expect(page.getByRole("img", { name: `${evil}.png` })).toBeVisible();
  await page.getByRole("button", { name: "Load 145 MB" }).click();
  await regions(page);
  await page.getByRole("radio", { name: "Find all" }).click();
  await page.getByRole("textbox", { name: "Find all" }).fill(evil);
  await page.keyboard.press("Enter");
  await expect(page.getByRole("article").getByText(evil)).toBeVisible();
  await expect(page.getByText("24 tokens")).toBeVisible();
  await page.getByRole("radio", { name: "Describe photo" }).click();
  await page.getByRole("button", { name: "Describe", exact: true }).click();
  await expect(page.getByRole("article").last().getByText(evil, { exact: false })).toBeVisible();
  await expect(page.locator('groma-chat img[src="x"]')).toHaveCount(0);
  expect(dialogs).toEqual([]);
});

test("custom-elements.json is true", async ({ page }) => {
  interface Named {
    readonly name: string;
  }
  interface Manifest {
    readonly modules: readonly {
      readonly declarations: readonly Record<
        "attributes" | "members" | "events" | "slots" | "cssParts" | "cssProperties",
        readonly Named[]
      >[];
    }[];
  }
  const manifest = JSON.parse(await readFile(join(ROOT, "custom-elements.json"), "utf8")) as Manifest;
  const said = manifest.modules[0]?.declarations[0];
  if (!said) throw new Error("no declaration");
  const names = (list: readonly Named[]) => list.map(({ name }) => name).sort();

  // All of its states, and what stands in them.
  const there = async () =>
    page.locator("groma-chat").evaluate((chat) => {
      const all = (name: string) =>
        [...(chat.shadowRoot?.querySelectorAll(`[${name}]`) ?? [])].map(
          (one) => one.getAttribute(name) ?? "",
        );
      return {
        parts: all("part"),
        slots: [...(chat.shadowRoot?.querySelectorAll("slot") ?? [])].map((s) => s.name),
      };
    });
  await open(page, "?nogpu");
  await put(page, { device: "gpu" });
  await expect(page.getByRole("alert")).toBeVisible();
  const seen = [await there()];
  await open(page, "?cached&hold");
  await put(page, { src: "/photos/a.png", load: "eager" });
  await expect(page.getByRole("progressbar")).toBeVisible();
  seen.push(await there());
  await open(page);
  await put(page, { src: "/photos/a.png", load: "eager" });
  await regions(page);
  await fakeAnswer(page);
  seen.push(await there());
  const every = (key: "parts" | "slots") => [...new Set(seen.flatMap((one) => one[key]))].sort();
  expect(every("parts")).toEqual(names(said.cssParts));
  expect(every("slots")).toEqual(names(said.slots));

  const real = await page.evaluate((members) => {
    const chat = document.querySelector("groma-chat");
    const style = [...(chat?.shadowRoot?.adoptedStyleSheets ?? [])]
      .flatMap((sheet) => [...sheet.cssRules].map((rule) => rule.cssText))
      .join("\n");
    return {
      attributes: (customElements.get("groma-chat") as unknown as { observedAttributes: string[] })
        .observedAttributes,
      missing: members.filter((name) => !chat || !(name in chat)),
      properties: [...new Set(style.match(/--groma-[a-z-]+/g))],
    };
  }, names(said.members));
  expect(real.attributes.sort()).toEqual(names(said.attributes));
  expect(real.missing).toEqual([]);
  expect(real.properties.sort()).toEqual(names(said.cssProperties));
  const events: Record<keyof GromaEvents, true> = {
    "groma-progress": true,
    "groma-ready": true,
    "groma-regions": true,
    "groma-segment": true,
    "groma-answer": true,
    "groma-error": true,
  };
  expect(names(said.events)).toEqual(Object.keys(events).sort());
});
