import { describe, expect, test } from "vitest";
import { parseManifest, partsOf } from "../../www/worker/manifest.js";

const hash = (digit: string) => digit.repeat(64);

const good = () => ({
  format: "groma-pack",
  version: 1,
  name: "tiny",
  licence: ["Apache-2.0"],
  config: {},
  generation: { eos_token_ids: [2], max_new_tokens: 64 },
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

/** One file of one part, both changed alike, so that nothing else is wrong. */
function partsThat(name: string, change: object): [string, (pack: ReturnType<typeof good>) => unknown][] {
  const changed = ({ files: [, file] }: ReturnType<typeof good>) => ({ ...file, ...change });
  const total = "size" in change ? change.size : 5;
  const of = (pack: ReturnType<typeof good>) => ({ ...pack.files[1]?.parts[0], ...change });
  return [[name, (pack) => ({ ...pack, files: [{ ...changed(pack), parts: [of(pack)] }], total })]];
}

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
    ["no total", (pack) => ({ ...pack, total: undefined })],
    ["no config", (pack) => ({ ...pack, config: undefined })],
    ["no generation", (pack) => ({ ...pack, generation: undefined })],
    ["no parts", (pack) => ({ ...pack, files: [{ ...pack.files[1], parts: [] }], total: 5 })],
    ["two files of a name", (pack) => ({ ...pack, files: [pack.files[1], pack.files[1]], total: 10 })],
    [
      "two parts of a name",
      (pack) => ({
        ...pack,
        files: [
          pack.files[0],
          { ...pack.files[1], name: "x.json", parts: [{ ...pack.files[0]?.parts[0], size: 5 }] },
        ],
      }),
    ],
    ...partsThat("a name that climbs", { name: "../x" }),
    ...partsThat("a name that is an address", { name: "https://x" }),
    ...partsThat("a size that overflows", { size: 2 ** 60 }),
    ...partsThat("a part larger than hosts take", { size: 24 * 2 ** 20 + 1 }),
    ...partsThat("an empty part", { size: 0 }),
    ...partsThat("a negative size", { size: -1 }),
    ...partsThat("a hash that is a path", { sha256: "../../x" }),
    ["parts that are not the file", (pack) => ({ ...pack, files: [{ ...pack.files[0], size: 11 }] })],
  ])("with %s is refused", (_, change) => {
    const changed = change(good());
    const text = typeof changed === "string" ? changed : JSON.stringify(changed);
    expect(() => parseManifest(text)).toThrow(
      expect.objectContaining({ reason: "pack-invalid", name: "DataError" }) as Error,
    );
  });
});
