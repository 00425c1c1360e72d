/** Looks over the shoulder of the engine's worker: which devices it asks for, the GPU memory that it holds; and refuses it some. */

import type { Page } from "@playwright/test";

/** What is seen in the worker. */
export interface Seen {
  /** What each device was given, in the order in which they were opened. */
  readonly devices: {
    readonly binding: number;
    readonly workgroup: number;
    readonly buffers: number;
    readonly features: readonly string[];
  }[];
  /** Bytes of buffers that were made and not destroyed; what only a garbage collector would free counts as held. */
  bytes: number;
  /** The most storage bytes that one binding had so far. */
  bound: number;
  /** Buffers made so far, by label. */
  readonly made: Record<string, number>;
  /** The label of the buffers for which there is no memory from now on. */
  refused: string;
}

/** Watches the workers that a page starts from now on. With `everything` their devices get all that the adapter has. */
export async function watchGpu(page: Page, { everything = false } = {}): Promise<void> {
  await page.route(/\/worker[^/]*\.js$/, async (route) => {
    const response = await route.fetch();
    const body = `(${watch.toString()})(${String(everything)});\n${await response.text()}`;
    await route.fulfill({ response, body });
  });
}

/** What the page's engine has done until now. */
export async function seen(page: Page): Promise<Seen> {
  return look(page, "");
}

/** From now on the browser has no memory for buffers of this label. */
export async function refuse(page: Page, label: string): Promise<void> {
  await look(page, label);
}

async function look(page: Page, refused: string): Promise<Seen> {
  const all = await Promise.all(
    page.workers().map((worker) =>
      worker.evaluate((label) => {
        const { gpuSeen } = self as unknown as { gpuSeen?: Seen };
        if (gpuSeen && label) gpuSeen.refused = label;
        return gpuSeen;
      }, refused),
    ),
  );
  const found = all.find((one) => one && one.devices.length > 0);
  if (!found) throw new Error("no worker has a device");
  return found;
}

/** Runs in the worker, before its own code: nothing from outside is known here. */
function watch(everything: boolean): void {
  const noted: Seen = { devices: [], bytes: 0, bound: 0, made: {}, refused: "" };
  Object.assign(self, { gpuSeen: noted });
  const adapter = GPUAdapter.prototype;
  const device = GPUDevice.prototype;
  const buffer = GPUBuffer.prototype;
  // eslint-disable-next-line @typescript-eslint/unbound-method -- each is called with its own `this`
  const [{ requestDevice }, { createBindGroup, createBuffer, popErrorScope }, { destroy }] = [
    adapter,
    device,
    buffer,
  ];
  adapter.requestDevice = async function (this: GPUAdapter, wanted) {
    const all = (limits: GPUSupportedLimits) => {
      const names = Object.keys(Object.getOwnPropertyDescriptors(GPUSupportedLimits.prototype));
      const values = names.map((name) => [name, limits[name as keyof GPUSupportedLimits]] as const);
      return Object.fromEntries(values.filter(([, value]) => typeof value === "number"));
    };
    const most = {
      requiredFeatures: [...this.features] as GPUFeatureName[],
      requiredLimits: all(this.limits) as Record<string, number>,
    };
    const got = await requestDevice.call(this, everything ? { ...wanted, ...most } : wanted);
    noted.devices.push({
      binding: got.limits.maxStorageBufferBindingSize,
      workgroup: got.limits.maxComputeWorkgroupStorageSize,
      buffers: got.limits.maxStorageBuffersPerShaderStage,
      features: [...got.features],
    });
    return got;
  };
  const held = new WeakMap<GPUBuffer, number>();
  device.createBuffer = function (this: GPUDevice, wanted) {
    const made = createBuffer.call(this, wanted);
    const label = wanted.label ?? "";
    held.set(made, wanted.size);
    noted.bytes += wanted.size;
    noted.made[label] = (noted.made[label] ?? 0) + 1;
    full ||= label !== "" && label === noted.refused;
    return made;
  };
  // As the browser tells it: by the scope around the buffer.
  let full = false;
  device.popErrorScope = async function (this: GPUDevice) {
    const refused = full && new GPUOutOfMemoryError("refused by a test");
    full = false;
    const error = await popErrorScope.call(this);
    return refused || error;
  };
  device.createBindGroup = function (this: GPUDevice, wanted) {
    for (const { resource } of wanted.entries) {
      if ("buffer" in resource) noted.bound = Math.max(noted.bound, resource.size ?? resource.buffer.size);
    }
    return createBindGroup.call(this, wanted);
  };
  buffer.destroy = function (this: GPUBuffer) {
    noted.bytes -= held.get(this) ?? 0;
    held.delete(this);
    destroy.call(this);
  };
}
