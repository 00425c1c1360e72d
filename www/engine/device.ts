/** The device, chosen once, before anything is downloaded. */

import { GromaError } from "./error.js";
import type { Debug, DeviceChoice } from "./types.js";

/** What a caller may ask for. */
export type DeviceWish = "auto" | "gpu" | "cpu";

// Adapters that compute on the CPU; there the engine's own CPU device is many times faster.
const SOFTWARE = /swiftshader|llvmpipe|lavapipe|basic render|warp/i;

const NO_WORDS = { description: "", vendor: "", architecture: "", isFallbackAdapter: false };

/** Chooses the device: with "auto" the GPU unless there is none or only a software adapter. */
export async function chooseDevice(wish: DeviceWish, debug: Debug = {}): Promise<DeviceChoice> {
  if (wish === "cpu") return { kind: "cpu", adapter: "", note: "forced" };
  if (wish === "auto" && debug.webgpu === "software")
    return { kind: "cpu", adapter: "", note: "software-adapter" };
  // Whatever there is: it is not there any more when the worker asks for it.
  if (debug.webgpu === "gone") return { kind: "gpu", adapter: "" };
  const gpu = debug.webgpu === "none" ? undefined : (globalThis.navigator as Navigator | undefined)?.gpu;
  const adapter =
    gpu && debug.webgpu !== "no-adapter"
      ? await gpu.requestAdapter({ powerPreference: "high-performance" }).catch(() => null)
      : null;
  if (!adapter) {
    if (wish === "gpu") {
      throw new GromaError(
        "no-webgpu",
        gpu
          ? "This browser has WebGPU but found no graphics adapter. Update the graphics driver, or use the processor (device “cpu”)."
          : "This browser has no WebGPU. Use a current Chrome, Edge, Firefox or Safari, or the processor (device “cpu”).",
      );
    }
    return { kind: "cpu", adapter: "", note: gpu ? "no-adapter" : "no-webgpu" };
  }
  // Chrome has it from 127 on.
  const info = (adapter as { readonly info?: GPUAdapterInfo }).info ?? NO_WORDS;
  const words = [info.description, info.vendor, info.architecture].filter(Boolean);
  const name = info.description || words.join(" ");
  if (wish === "auto" && (info.isFallbackAdapter || words.some((word) => SOFTWARE.test(word)))) {
    return { kind: "cpu", adapter: name, note: "software-adapter" };
  }
  return { kind: "gpu", adapter: name };
}
