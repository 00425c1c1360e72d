/** The worker that owns the engine. */

import { aborted, GromaError } from "../engine/error.js";
import type { ToWorker } from "../engine/protocol.js";
import type { Debug } from "../engine/types.js";
import type { Net } from "./download.js";
import type { Engine } from "./engine.js";
import { fail, slowReadbacks, watchDevices } from "./fault.js";
import { Host } from "./host.js";
import { Library, type Locks } from "./library.js";
import { openStore } from "./opfs.js";
import { MemoryStore } from "./store.js";
import { startEngine } from "./wasm.js";

declare const self: DedicatedWorkerGlobalScope;

const net: Net = {
  fetch: (input, init) => fetch(input, init),
  wait: (ms, signal) =>
    new Promise((resolve, reject) => {
      const abort = () => {
        clearTimeout(timer);
        reject(aborted());
      };
      const timer = setTimeout(() => {
        signal.removeEventListener("abort", abort);
        resolve();
      }, ms);
      signal.addEventListener("abort", abort, { once: true });
    }),
  sha256: async (bytes) => {
    if (!isSecureContext) throw insecure();
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
    return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
  },
};

/** The platform's own digests and locks are there on secure addresses only, as WebGPU and storage are. */
function insecure(): GromaError {
  return new GromaError(
    "io",
    "The model can only be checked on a secure address. Open this page by https or on localhost.",
  );
}

const locks: Locks = {
  run: async (name, signal, run) => {
    if (!isSecureContext) throw insecure();
    try {
      return await navigator.locks.request(name, { signal }, run);
    } catch (error) {
      throw signal.aborted ? aborted() : error;
    }
  },
  // Nobody holds any where there are none.
  held: async () =>
    isSecureContext
      ? new Set((await navigator.locks.query()).held?.flatMap(({ name }) => name ?? []))
      : new Set(),
};

function once<T>(make: () => Promise<T>): () => Promise<T> {
  let made: Promise<T> | undefined;
  return () => {
    // A failure is not kept: the next call tries again.
    made ??= make().catch((error: unknown) => {
      made = undefined;
      throw error;
    });
    return made;
  };
}

const refuse = () => Promise.reject(insecure());
const kept = once(async () => new Library(await openStore(), net, locks));
const unkept = once(() => Promise.resolve(new Library(new MemoryStore(), net, locks)));
const unchecked = once(() =>
  Promise.resolve(new Library(new MemoryStore(), { ...net, sha256: refuse }, { ...locks, run: refuse })),
);
/** Where models come from; not from where `debug` says that there is nothing. */
function library({ address, storage }: Debug): Promise<Library> {
  if (address === "insecure") return unchecked();
  return storage === "memory" ? unkept() : kept();
}
const engine: () => Promise<Engine> = once(startEngine);

const host = new Host({
  library,
  engine,
  post: (message) => self.postMessage(message),
  fail,
});

self.onmessage = ({ data }: MessageEvent<ToWorker>) => {
  if (data.type === "call" && data.method === "load") {
    const { fault, gpu } = data.args.debug;
    if (fault) watchDevices();
    if (gpu?.mapLatencyMs) slowReadbacks(gpu.mapLatencyMs);
  }
  host.receive(data);
};
