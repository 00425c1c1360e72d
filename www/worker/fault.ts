/** Failures and slowness on request: what tests and bug reports force by `debug.fault` and `debug.gpu.mapLatencyMs`. */

import type { Fault } from "../engine/types.js";

// A module whose only function is `unreachable`: a real trap, as a failed allocation is.
const TRAP = Uint8Array.of(
  ...[0, 97, 115, 109, 1, 0, 0, 0],
  ...[1, 4, 1, 96, 0, 0],
  ...[3, 2, 1, 0],
  ...[7, 5, 1, 1, 116, 0, 0],
  ...[10, 5, 1, 3, 0, 0, 11],
);

const devices = new Set<GPUDevice>();

/** Remembers the devices that are made from now on, so that one can be lost. */
export function watchDevices(): void {
  if (typeof GPUAdapter === "undefined") return;
  const prototype = GPUAdapter.prototype;
  // eslint-disable-next-line @typescript-eslint/unbound-method -- called with its own `this` below
  const request = prototype.requestDevice;
  prototype.requestDevice = async function (this: GPUAdapter, ...args) {
    const device = await request.apply(this, args);
    devices.add(device);
    return device;
  };
}

/** Makes every readback from now on take this much longer. */
export function slowReadbacks(ms: number): void {
  if (typeof GPUBuffer === "undefined") return;
  const prototype = GPUBuffer.prototype;
  // eslint-disable-next-line @typescript-eslint/unbound-method -- called with its own `this` below
  const map = prototype.mapAsync;
  prototype.mapAsync = async function (this: GPUBuffer, ...args) {
    await map.apply(this, args);
    await new Promise((resolve) => setTimeout(resolve, ms));
    return undefined;
  };
}

const SEEN_BY_ALL_MS = 200;

/** Lets it happen, after what is running now; settles when everyone has noticed. */
export function fail(kind: Fault["kind"]): Promise<void> {
  setTimeout(() => {
    if (kind === "worker") throw new Error("forced to fail");
    if (kind === "trap") {
      const { t } = new WebAssembly.Instance(new WebAssembly.Module(TRAP)).exports;
      (t as () => void)();
    }
    for (const device of devices) device.destroy();
    devices.clear();
  });
  return new Promise((resolve) => setTimeout(resolve, SEEN_BY_ALL_MS));
}
