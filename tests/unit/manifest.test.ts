import { describe, expect, test } from "vitest";
import { parseManifest, partsOf } from "../../www/worker/manifest.js";

const hash = (digit: string) => digit.repeat(64);

const good = () => ({
  format: "groma-pack",
  version: 1,
  name: "tiny",
  licence: ["Apache-2.0"],
  quantisation: { decoder: "q8_0" },
  total: 15,
  files: [
    {
      name: "decoder.gguf",
      size: 10,
      sha256: hash("a"),
      parts: [
        { name: "decoder.gguf.000", size: 6, sha256: hash("b") },
        { name: "decoder.gguf.001", size: 4, sha256: hash("c") },
      ],
    },
    {
      name: "tokenizer.json",
      size: 5,
      sha256: hash("d"),
      parts: [{ name: "tokenizer.json", size: 5, sha256: hash("d") }],
    },
  ],
});

describe("a description", () => {
  test("is read", () => {
    const manifest = parseManifest(JSON.stringify(good()));
    expect(manifest.total).toBe(15);
    expect(manifest.licence).toEqual(["Apache-2.0"]);
    expect(partsOf(manifest).map((part) => part.name)).toEqual([
      "decoder.gguf.000",
      "decoder.gguf.001",
      "tokenizer.json",
    ]);
  });

  test.each<[string, (pack: ReturnType<typeof good>) => unknown]>([
    ["not JSON", () => "{"],
    ["no object", () => []],
    ["another format", (pack) => ({ ...pack, format: "zip" })],
    ["another version", (pack) => ({ ...pack, version: 2 })],
    ["no files", (pack) => ({ ...pack, files: [] })],
    ["a total that lies", (pack) => ({ ...pack, total: 16 })],
    ["a name that climbs", (pack) => ({ ...pack, files: [{ ...pack.files[1], parts: [], name: "../x" }] })],
    [
      "a name that is an address",
      (pack) => ({ ...pack, files: [{ ...pack.files[1], parts: [], name: "https://x" }] }),
    ],
    [
      "a size that overflows",
      (pack) => ({ ...pack, files: [{ ...pack.files[1], parts: [], size: 2 ** 60 }] }),
    ],
    ["a negative size", (pack) => ({ ...pack, files: [{ ...pack.files[1], parts: [], size: -1 }] })],
    [
      "a hash that is a path",
      (pack) => ({ ...pack, files: [{ ...pack.files[1], parts: [], sha256: "../../x" }] }),
    ],
    ["parts that are not the file", (pack) => ({ ...pack, files: [{ ...pack.files[0], size: 11 }] })],
  ])("with %s is refused", (_, change) => {
    const changed = change(good());
    const text = typeof changed === "string" ? changed : JSON.stringify(changed);
    expect(() => parseManifest(text)).toThrow(
      expect.objectContaining({ reason: "pack-invalid", name: "DataError" }) as Error,
    );
  });
});
