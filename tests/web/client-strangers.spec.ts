/** What strangers hand in, through worker and wasm: photos, and packs whose hashes are right and whose content is not. */

import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { openApi, type Api } from "./api-page.js";
import { makePacks, PACKS } from "./packs.js";
import { HOSTILE, PHOTOS } from "./photos.js";
import { expect, test } from "./site.js";

const SOON_MS = 5000;

makePacks();

test.beforeEach(({ page, site }) => openApi(page, site));

test("odd photos are seen as the page shows them; what is none gets an error, in seconds", async ({
  page,
}) => {
  const list = [...PHOTOS, ...HOSTILE].map(({ name, bytes }) => ({ name, text: bytes.toString("base64") }));
  const seen = await page.evaluate(async (all) => {
    const groma = await window.api.Groma.create({ model: window.model, device: "cpu" });
    const found: { name: string; engine: string; page: string; ms: number }[] = [];
    for (const { name, text } of all) {
      const blob = new Blob([Uint8Array.from(atob(text), (c) => c.charCodeAt(0))]);
      const started = performance.now();
      const engine = await groma.open(blob).then(
        async (photo) => {
          await photo.close();
          return `${photo.width} x ${photo.height}`;
        },
        (error: unknown) => (error as Api.GromaError).reason,
      );
      const ms = performance.now() - started;
      const image = new Image();
      image.src = URL.createObjectURL(blob);
      const shown = await image.decode().then(
        () => `${image.naturalWidth} x ${image.naturalHeight}`,
        () => "nothing",
      );
      found.push({ name, engine, page: shown, ms });
    }
    await groma.destroy();
    return found;
  }, list);
  expect(seen.filter(({ ms }) => ms > SOON_MS)).toEqual([]);
  const photos = seen.slice(0, PHOTOS.length);
  expect(photos.filter(({ engine, page: shown }) => engine !== shown)).toEqual([]);
  expect(photos.map(({ name }) => name)).toEqual(
    expect.arrayContaining(["animated.gif", "ramp.bmp", "ramp.avif", "16_bit.png"]),
  );
  const refused = seen.slice(PHOTOS.length).map(({ name, engine }) => ({ name, engine }));
  expect(refused).toEqual(HOSTILE.map(({ name, reason }) => ({ name, engine: reason })));
});

interface Pack {
  readonly config: Record<string, Record<string, unknown>>;
  readonly files: readonly { readonly name: string; readonly parts: readonly { readonly name: string }[] }[];
}

const sha256 = (bytes: Buffer) => createHash("sha256").update(bytes).digest("hex");

/** Writes a pack like the tiny one, of which one file or the configuration is changed; every size and hash is right. */
function writePack(name: string, change: (file: string, bytes: Buffer) => Buffer, config: object = {}): void {
  const [from, to] = [join(PACKS, "tiny"), join(PACKS, name)];
  rmSync(to, { recursive: true, force: true });
  mkdirSync(to);
  const pack = JSON.parse(readFileSync(join(from, "model.json"), "utf8")) as Pack;
  const files = pack.files.map((file) => {
    const whole = Buffer.concat(file.parts.map((part) => readFileSync(join(from, part.name))));
    const bytes = change(file.name, whole);
    const said = { size: bytes.length, sha256: sha256(bytes) };
    writeFileSync(join(to, `${file.name}.000`), bytes);
    return { name: file.name, ...said, parts: [{ name: `${file.name}.000`, ...said }] };
  });
  const total = files.reduce((sum, { size }) => sum + size, 0);
  writeFileSync(
    join(to, "model.json"),
    JSON.stringify({ ...pack, config: { ...pack.config, ...config }, files, total }),
  );
}

/** Changes the head of the decoder's file: magic, version, numbers of tensors and of entries, the first entry's name. */
const head = (change: (bytes: Buffer) => void) => (file: string, bytes: Buffer) => {
  if (file !== "decoder.gguf") return bytes;
  const changed = Buffer.from(bytes);
  change(changed);
  return changed;
};
const same = (_: string, bytes: Buffer) => bytes;
const tokenizer = (text: string) => (file: string, bytes: Buffer) =>
  file === "tokenizer.json" ? Buffer.from(text) : bytes;

const PACKS_OF_STRANGERS: readonly (readonly [string, () => void])[] = [
  [
    "no-gguf",
    () =>
      writePack(
        "no-gguf",
        head((bytes) => bytes.fill(7)),
      ),
  ],
  [
    "many-tensors",
    () =>
      writePack(
        "many-tensors",
        head((bytes) => bytes.writeBigUInt64LE(1n << 40n, 8)),
      ),
  ],
  [
    "many-entries",
    () =>
      writePack(
        "many-entries",
        head((bytes) => bytes.writeBigUInt64LE(1n << 62n, 16)),
      ),
  ],
  [
    "long-name",
    () =>
      writePack(
        "long-name",
        head((bytes) => bytes.writeBigUInt64LE(4_000_000_000n, 24)),
      ),
  ],
  [
    "no-utf8",
    () =>
      writePack(
        "no-utf8",
        head((bytes) => bytes.writeUInt8(0xff, 32)),
      ),
  ],
  [
    "cut",
    () => writePack("cut", (file, bytes) => (file === "decoder.gguf" ? bytes.subarray(0, 200) : bytes)),
  ],
  ["no-tokenizer", () => writePack("no-tokenizer", tokenizer("{"))],
  ["other-tokenizer", () => writePack("other-tokenizer", tokenizer('{"model":{"type":"BPE","vocab":3}}'))],
  ["large", () => writePack("large", same, { llm_cfg: { hidden_size: 1e9, num_hidden_layers: 1e6 } })],
];

test("packs whose content is another than they say are refused, soon, and the next model loads", async ({
  page,
  site,
}) => {
  for (const [, write] of PACKS_OF_STRANGERS) write();
  const models = PACKS_OF_STRANGERS.map(([name]) => `${site.url}packs/${name}/`);
  const seen = await page.evaluate(async (addresses) => {
    const { Groma, GromaError } = window.api;
    const found: { error: boolean; reason: string; message: string; ms: number }[] = [];
    for (const model of addresses) {
      const started = performance.now();
      const error: unknown = await Groma.create({ model, device: "cpu", debug: { storage: "memory" } }).then(
        () => "loaded",
        (e: unknown) => e,
      );
      const ms = performance.now() - started;
      const { reason = "none", message = "" } = error as Partial<Api.GromaError>;
      found.push({ error: error instanceof GromaError, reason, message, ms });
    }
    const groma = await Groma.create({ model: window.model, device: "cpu" });
    const { width } = await groma.open(window.photo);
    await groma.destroy();
    return { found, width };
  }, models);
  const table = seen.found.map(({ reason, error }, at) => [PACKS_OF_STRANGERS[at]?.[0], reason, error]);
  expect(table).toEqual(PACKS_OF_STRANGERS.map(([name]) => [name, "pack-invalid", true]));
  expect(seen.found.filter(({ ms }) => ms > SOON_MS)).toEqual([]);
  for (const { message } of seen.found) expect(message.length).toBeGreaterThan(20);
  expect(seen.width).toBeGreaterThan(0);
});

test.describe("from another site", () => {
  test.use({ noise: [/blocked by CORS policy|Failed to load resource/] });

  test("a picture that was given for showing only is told so, and nothing is left of it", async ({
    page,
    site,
  }) => {
    // The same server by its other name is another site.
    const foreign = new URL("icons/icon-192.png", site.url);
    foreign.hostname = "127.0.0.1";
    const result = await page.evaluate(async (address) => {
      const groma = await window.api.Groma.create({ model: window.model, device: "cpu" });
      const image = new Image();
      image.src = address;
      await image.decode();
      const bitmap = await createImageBitmap(image);
      const reasons: string[] = [];
      for (const picture of [image, bitmap])
        await groma.open(picture).catch((e: unknown) => reasons.push((e as Api.GromaError).reason));
      const { width } = await groma.open(window.photo);
      await groma.destroy();
      return { reasons, width };
    }, foreign.href);
    expect(result.reasons).toEqual(["image-unreadable", "image-unreadable"]);
    expect(result.width).toBeGreaterThan(0);
  });

  test("colours behind transparency are the photo's, as they are in files", async ({ page }) => {
    const result = await page.evaluate(async () => {
      const groma = await window.api.Groma.create({ model: window.model, device: "cpu" });
      const whole = await createImageBitmap(window.photo);
      const context = new OffscreenCanvas(whole.width, whole.height).getContext("2d");
      context?.drawImage(whole, 0, 0);
      const pixels = context?.getImageData(0, 0, whole.width, whole.height);
      if (!pixels) throw new Error("no canvas");
      // Half of it is seen a little, the other half not at all.
      for (let at = 3; at < pixels.data.length; at += 4)
        pixels.data[at] = at % (8 * whole.width) < 4 * whole.width ? 0 : 40;
      const options = { premultiplyAlpha: "none", colorSpaceConversion: "none" } as const;
      const regions = [];
      for (const picture of [window.photo, pixels, await createImageBitmap(pixels, options)]) {
        const photo = await groma.open(picture);
        regions.push(photo.regions);
        await photo.close();
      }
      await groma.destroy();
      return regions;
    });
    expect(result[0]?.length).toBeGreaterThan(0);
    expect(result[1]).toEqual(result[0]);
    expect(result[2]).toEqual(result[0]);
  });
});
