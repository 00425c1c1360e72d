import { afterEach, describe, expect, test, vi } from "vitest";
import { chooseDevice, type DeviceWish } from "../../www/engine/device.js";
import type { Debug } from "../../www/engine/types.js";

const CARD = { description: "A card", vendor: "", architecture: "", isFallbackAdapter: false };
const SOFTWARE = { ...CARD, description: "llvmpipe (LLVM 15)" };

/** A browser with an adapter of this name, without one (null), or without WebGPU (undefined). */
function browser(info: typeof CARD | null | undefined): void {
  const gpu = { requestAdapter: () => Promise.resolve(info && { info }) };
  vi.stubGlobal("navigator", info === undefined ? {} : { gpu });
}

afterEach(() => vi.unstubAllGlobals());

describe("the device", () => {
  test.each<[string, typeof CARD | null | undefined, DeviceWish, object]>([
    ["a card", CARD, "auto", { kind: "gpu", adapter: "A card" }],
    ["a software adapter", SOFTWARE, "auto", { kind: "cpu", note: "software-adapter" }],
    ["a software adapter that is wanted", SOFTWARE, "gpu", { kind: "gpu" }],
    ["no adapter", null, "auto", { kind: "cpu", note: "no-adapter" }],
    ["no WebGPU", undefined, "auto", { kind: "cpu", note: "no-webgpu" }],
    ["the processor that is wanted", CARD, "cpu", { kind: "cpu", note: "forced" }],
  ])("of a browser with %s", async (_, info, wish, expected) => {
    browser(info);
    await expect(chooseDevice(wish)).resolves.toMatchObject(expected);
  });

  test.each<[NonNullable<Debug["webgpu"]>, DeviceWish, object]>([
    ["none", "auto", { kind: "cpu", note: "no-webgpu" }],
    ["no-adapter", "auto", { kind: "cpu", note: "no-adapter" }],
    ["software", "auto", { kind: "cpu", note: "software-adapter" }],
    ["gone", "auto", { kind: "gpu" }],
    ["gone", "cpu", { kind: "cpu" }],
  ])(
    "that is forced by “%s” with %s is the same in every browser that has it",
    async (webgpu, wish, expected) => {
      for (const info of [CARD, SOFTWARE]) {
        browser(info);
        await expect(chooseDevice(wish, { webgpu })).resolves.toMatchObject(expected);
      }
    },
  );
});
