/** What the page adds to the element, over the fake engine: camera, sharing, links, the choice of a model, about. */

import { readFile } from "node:fs/promises";
import { expect, test, type Page } from "@playwright/test";
import { fakeAnswer, faults, openPage, regions } from "./fake-page.js";
import { wrong } from "./looks.js";
import { choosePhoto } from "./site.js";

test.use({
  launchOptions: async ({ launchOptions }, use) => {
    const fake = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"];
    await use({ ...launchOptions, args: [...(launchOptions.args ?? []), ...fake] });
  },
});

const EVIL = "<img src=x onerror=alert(1)>";

async function answered(page: Page, query?: string): Promise<void> {
  await openPage(page, query);
  await choosePhoto(page);
  await regions(page);
  await fakeAnswer(page);
}

const press = (page: Page, name: string) => page.getByRole("button", { name, exact: true }).click();
const clipboard = (page: Page) => page.evaluate(() => navigator.clipboard.readText());

/** Presses a button and gives the file that the page hands out. */
async function saved(page: Page, name: string): Promise<{ file: string; bytes: Buffer }> {
  const [download] = await Promise.all([page.waitForEvent("download"), press(page, name)]);
  return { file: download.suggestedFilename(), bytes: await readFile(await download.path()) };
}

test.describe("sharing", () => {
  test.use({ permissions: ["clipboard-read", "clipboard-write"] });

  test("an answer is copied as text, as JSON and as COCO boxes", async ({ page }) => {
    await answered(page);
    await page.getByRole("radio", { name: "Find all" }).click();
    await page.getByRole("textbox", { name: "Find all" }).fill(EVIL);
    await page.keyboard.press("Enter");
    await expect(page.getByText("24 tokens")).toHaveCount(2);
    await press(page, "Share");
    const which = page.getByRole("combobox", { name: "Question" });
    await expect(which.getByRole("option")).toHaveText(["1. Who is on the photo?", `2. Find all: ${EVIL}`]);
    await which.selectOption("1. Who is on the photo?");
    await press(page, "Copy as text");
    await expect(page.getByText("The answer is copied.")).toBeVisible();
    expect(await clipboard(page)).toBe(
      "A woman [0, 1] in an orange suit [5] stands before a flag [3] and a model of a space shuttle [2, 6]. " +
        "She smiles at the camera.",
    );
    await press(page, "Copy as JSON");
    await expect.poll(() => clipboard(page)).toContain('"photo"');
    expect(JSON.parse(await clipboard(page))).toMatchObject({
      photo: { name: "photo_A.png", width: 150, height: 97 },
      task: { kind: "ask", question: "Who is on the photo?" },
      answer: {
        stopped: "end",
        segments: [{ text: "A woman", regions: [{ id: 0 }, { id: 1 }] }, {}, {}, {}, {}, {}, {}, {}],
      },
    });
    await which.selectOption(`2. Find all: ${EVIL}`);
    await press(page, "Copy as COCO boxes");
    await expect.poll(() => clipboard(page)).toContain('"annotations"');
    const coco = JSON.parse(await clipboard(page)) as {
      categories: unknown;
      annotations: { bbox: number[]; area: number }[];
    };
    expect(coco).toMatchObject({
      images: [{ id: 1, file_name: "photo_A.png", width: 150, height: 97 }],
      categories: [{ id: 1, name: EVIL }],
    });
    expect(coco.annotations).toHaveLength(3);
    expect(coco.annotations[0]).toMatchObject({ id: 1, image_id: 1, category_id: 1, iscrowd: 0 });
    const { bbox = [], area } = coco.annotations[0] ?? {};
    // Region 0 is 0.19 … 0.66 of the width and 0.04 … 0.985 of the height.
    expect(bbox).toEqual([29, 4, 70, 92]);
    expect(area).toBe(70 * 92);
  });

  test("a link brings the setting back, and not the photo", async ({ page }) => {
    await openPage(page, "?cached&device=cpu");
    await press(page, "A test picture");
    await regions(page);
    await page.getByRole("button", { name: "Draw a box" }).press("Enter");
    await page.getByRole("textbox", { name: "Ask" }).fill("What is in [1]? & more");
    const boxes = await page
      .locator("groma-chat")
      .evaluate((chat) => (chat as HTMLElementTagNameMap["groma-chat"]).boxes);
    await press(page, "Share");
    await expect(
      page.getByText("Your photo is not in it and is not uploaded.", { exact: false }),
    ).toBeVisible();
    await press(page, "Copy the link");
    await expect(page.getByText("The link is copied.")).toBeVisible();
    const link = new URL(await clipboard(page));
    expect(Object.fromEntries(link.searchParams)).toEqual({
      question: "What is in [1]? & more",
      boxes: boxes[0]?.join(","),
      sample: "a.png",
      device: "cpu",
    });
    await openPage(page, `${link.search}&cached`);
    await expect(page.getByRole("img", { name: "A test picture" })).toBeVisible();
    await regions(page);
    await expect(page.getByRole("textbox", { name: "Ask" })).toHaveValue("What is in [1]? & more");
    await expect(page.getByRole("application", { name: "Box 1" })).toBeVisible();
    // What was asked last is what a link is about.
    await page.getByRole("radio", { name: "Point to" }).click();
    await page.getByRole("textbox", { name: "Point to" }).fill("the cup");
    await page.keyboard.press("Enter");
    await expect(page.getByText("24 tokens")).toBeVisible();
    await press(page, "Share");
    await expect(page.getByRole("textbox", { name: "Link" })).toHaveValue(/\?task=locate&question=the\+cup&/);
  });
});

test("boxes of a link lie on the photo, and take none of the reader's away", async ({ page }) => {
  await openPage(page, "?boxes=0,0,99999,99999&question=What+is+in+[1]%3F");
  await choosePhoto(page);
  await expect(page.getByRole("application", { name: "Box 1" })).toBeVisible();
  await page.getByRole("button", { name: "Draw a box" }).press("Enter");
  await page.getByRole("button", { name: "Load 145 MB" }).click();
  await regions(page);
  const boxes = await page
    .locator("groma-chat")
    .evaluate((chat) => (chat as HTMLElementTagNameMap["groma-chat"]).boxes);
  expect(boxes).toHaveLength(2);
  expect(boxes[0]).toEqual([0, 0, 150, 97]);
});

test("however often a new version is told, it is used once", async ({ page }) => {
  await openPage(page);
  const applied = await page.evaluate(() => {
    const seen: number[] = [];
    for (const at of [1, 2, 3])
      window.dispatchEvent(new CustomEvent("groma-update", { detail: { apply: () => seen.push(at) } }));
    document.querySelector<HTMLButtonElement>("#update button")?.click();
    return seen;
  });
  expect(applied).toEqual([3]);
});

test("a link from anywhere is only words", async ({ page }) => {
  const dialogs: string[] = [];
  page.on("dialog", (dialog) => {
    dialogs.push(dialog.message());
    void dialog.dismiss();
  });
  const evil = encodeURIComponent(EVIL);
  await openPage(
    page,
    `?question=${evil}&task=${evil}&boxes=1,2;${evil};1,2,3,x&sample=${evil}&model=javascript:alert(1)&device=x`,
  );
  await expect(page.getByRole("button", { name: "Load 145 MB" })).toBeVisible();
  const chat = page.locator("groma-chat");
  await expect(chat).toHaveJSProperty("question", EVIL);
  await expect(chat).toHaveJSProperty("task", "ask");
  await expect(chat).toHaveJSProperty("device", "auto");
  await expect(chat).toHaveJSProperty("boxes", []);
  expect(await chat.evaluate((it) => (it as HTMLElementTagNameMap["groma-chat"]).model)).toMatch(
    /\/models\/groma-s\/$/,
  );
  expect(dialogs).toEqual([]);
});

test("the photo with its boxes is saved as PNG and as SVG", async ({ page }) => {
  await answered(page);
  // A phrase of the model and a question of the reader are in the SVG: both are text there.
  await page.getByRole("textbox", { name: "Ask" }).fill(`${EVIL} & "`);
  await page.keyboard.press("Enter");
  await expect(page.getByText("24 tokens")).toHaveCount(2);
  await press(page, "Share");
  const png = await saved(page, "Save as PNG");
  expect(png.file).toBe("groma.png");
  expect([png.bytes.readUInt32BE(16), png.bytes.readUInt32BE(20)], "the photo's own pixels").toEqual([
    150, 97,
  ]);
  const { file, bytes } = await saved(page, "Save as SVG");
  expect(file).toBe("groma.svg");
  const svg = bytes.toString();
  expect(svg).toContain('href="data:image/png;base64,');
  expect(svg).not.toContain("<img");
  const read = await page.evaluate(async (text) => {
    const tree = new DOMParser().parseFromString(text, "image/svg+xml");
    const image = new Image();
    image.src = URL.createObjectURL(new Blob([text], { type: "image/svg+xml" }));
    await image.decode();
    const all = (name: string) => [...tree.querySelectorAll(name)].map((one) => one.textContent);
    return {
      size: [image.naturalWidth, image.naturalHeight],
      titles: all("title"),
      labels: all("text"),
      bad: all("parsererror"),
    };
  }, svg);
  expect(read.bad).toEqual([]);
  expect(read.size).toEqual([150, 97]);
  expect(read.titles[0]).toBe(`${EVIL} & "`);
  expect(read.titles).toContain("a flag");
  expect(read.labels.sort()).toEqual(["0", "1", "2", "3", "5", "6"]);
});

test("nothing can be shared before it is there", async ({ page }) => {
  await openPage(page);
  await press(page, "Share");
  for (const name of ["Copy as text", "Save as PNG"])
    await expect(page.getByRole("button", { name })).toBeDisabled();
  await expect(page.getByRole("button", { name: "Copy the link" })).toBeEnabled();
});

test("its photo is a photo like any other, and it is off afterwards", async ({ page }) => {
  await openPage(page);
  await press(page, "Camera");
  await page.evaluate(() => {
    const video = document.querySelector("video");
    Object.assign(globalThis, { track: () => (video?.srcObject as MediaStream | null)?.getTracks()[0] });
  });
  await expect(page.getByRole("button", { name: "Take the photo" })).toBeEnabled();
  const track = await page.evaluateHandle(() =>
    (globalThis as never as { track(): MediaStreamTrack }).track(),
  );
  expect(await faults(page)).toEqual([]);
  await press(page, "Take the photo");
  await expect(page.getByRole("img", { name: "Photo of the camera" })).toBeVisible();
  await regions(page);
  expect(await track.evaluate((one) => one.readyState)).toBe("ended");
});

test("a camera that is not there or not allowed is told", async ({ page }) => {
  await openPage(page);
  for (const [name, words] of [
    ["NotAllowedError", "Allow it in the page's permissions"],
    ["NotFoundError", "No camera was found"],
    ["NotReadableError", "Another program may be using it"],
  ] as const) {
    await page.evaluate((kind) => {
      navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException("", kind));
    }, name);
    await press(page, "Camera");
    await expect(page.getByRole("alert")).toContainText(words);
    await expect(page.getByRole("button", { name: "Take the photo" })).toBeDisabled();
    await press(page, "Cancel");
  }
});

test("another model is chosen by its address, and said with its size before any download", async ({
  page,
}) => {
  await openPage(page, "?");
  await press(page, "Model");
  await expect(page.getByRole("radio", { name: "groma-s, of this page" })).toBeChecked();
  const address = page.getByRole("textbox", { name: "Address of the pack" });
  await address.fill("ftp://example.org/");
  await press(page, "Use this");
  await expect(page.getByRole("dialog")).toBeVisible();
  await address.fill("https://packs.example.org/small/");
  await expect(page.getByRole("radio", { name: "A pack from elsewhere" })).toBeChecked();
  await page.getByRole("radio", { name: "Processor" }).click();
  await press(page, "Use this");
  await expect(page.getByText("groma-small", { exact: false })).toContainText("from packs.example.org");
  await expect(page.getByText("It takes about 22 MB of memory", { exact: false })).toBeVisible();
  await expect(page.getByRole("button", { name: "Load 15 MB" })).toBeVisible();
  expect(Object.fromEntries(new URL(page.url()).searchParams)).toEqual({
    device: "cpu",
    model: "https://packs.example.org/small/",
  });
});

test("About says what runs here, and after an answer how long it took", async ({ page }) => {
  await openPage(page, "?cached&evil");
  await press(page, "About");
  await expect(page.getByText("not loaded yet")).toBeVisible();
  await press(page, "Close");
  await choosePhoto(page);
  await regions(page);
  await fakeAnswer(page);
  await press(page, "About");
  const said = page.getByRole("dialog", { name: "About" });
  await expect(said.getByText(EVIL)).toHaveCount(2);
  await expect(said).toContainText("question 0.1 s (80 of 80 positions), answer 0.8 s");
  await expect(said).toContainText("decoder q4_1");
  await expect(said.locator("img")).toHaveCount(0);
});

test("nothing bars the way on the page and in its dialogs, in any look", async ({ page }) => {
  await openPage(page, "?cached");
  const found = await wrong(page, "page");
  await choosePhoto(page);
  await regions(page);
  await fakeAnswer(page);
  await page.evaluate(() =>
    window.dispatchEvent(new CustomEvent("groma-update", { detail: { apply: () => undefined } })),
  );
  found.push(...(await wrong(page, "page answered")));
  for (const name of ["Share", "Model", "About", "Camera"]) {
    await press(page, name);
    if (name === "Camera") await expect(page.getByRole("button", { name: "Take the photo" })).toBeEnabled();
    found.push(...(await wrong(page, `dialog ${name}`)));
    await page.keyboard.press("Escape");
  }
  await page.evaluate(() => {
    navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException("", "NotFoundError"));
  });
  await press(page, "Camera");
  await expect(page.getByRole("alert")).toBeVisible();
  found.push(...(await wrong(page, "dialog Camera failed")));
  expect(found).toEqual([]);
});

test("a newer version of the page is told, and used when the reader says so", async ({ page }) => {
  await openPage(page);
  await page.evaluate(() => {
    const apply = () => Object.assign(globalThis, { applied: true });
    window.dispatchEvent(new CustomEvent("groma-update", { detail: { apply } }));
  });
  await expect(page.getByText("A new version is here.")).toBeVisible();
  await press(page, "Use it");
  expect(await page.evaluate(() => "applied" in globalThis)).toBe(true);
});

test("New photo leads back to the samples, and from there back to the photo", async ({ page }) => {
  await answered(page);
  await press(page, "New photo");
  await expect(page.getByRole("button", { name: "Another picture" })).toBeVisible();
  await press(page, "Back to the photo");
  await expect(page.getByRole("article")).toHaveCount(1);
  await press(page, "New photo");
  await press(page, "Another picture");
  await expect(page.getByRole("img", { name: "Another picture" })).toBeVisible();
  await expect(page.getByRole("article")).toHaveCount(0);
});
