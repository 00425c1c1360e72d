/** The wasm module as an engine. */

import { aborted, GromaError, type Reason } from "../engine/error.js";
import type { DeviceKind } from "../engine/types.js";
import init, { Model, onPanic, Stop, type Thrown } from "../pkg/groma.js";
import type { Engine, EngineModel, EnginePhoto, Picture, RunOptions } from "./engine.js";

// What to do, for failures whose sentence the engine writes.
const WAYS_ON: Partial<Record<Reason, string>> = {
  "no-webgpu": "Use the processor instead (device “cpu”).",
  "device-lost": "Ask again; the model is loaded anew.",
  "out-of-memory": "Close other tabs, or use a smaller model.",
  "pack-invalid": "Choose another model, or tell whoever serves it.",
  "image-unreadable": "Try another picture.",
  "image-too-large": "Make the picture smaller first.",
  "prompt-too-long": "Begin a new conversation, or ask a shorter question.",
  "question-empty": "Type a question first.",
};

// Where it was the GPU that could not, the processor may.
const WAYS_OFF_THE_GPU: Partial<Record<Reason, string>> = {
  "out-of-memory": "Close other tabs, use a smaller model, or the processor (device “cpu”).",
};

/** Fetches and starts the module. */
export async function startEngine(): Promise<Engine> {
  const { memory } = await init();
  // What tests look at inside the worker: bytes of the module's memory, which never shrinks.
  const heap = { start: 0, streamed: 0, now: () => memory.buffer.byteLength };
  Object.assign(self, { gromaHeap: heap });
  let dead: GromaError | undefined;
  // A trap inside an asynchronous call leaves that call's promise open for ever, so the trap itself ends it. No race with
  // one promise for all calls: that one would keep every answer that was ever given.
  const running = new Set<(error: GromaError) => void>();
  let device: DeviceKind = "cpu";
  const die = (error: GromaError) => {
    dead ??= error;
    for (const end of running) end(dead);
  };
  onPanic((panic: string) => {
    die(new GromaError("internal", "The engine failed and must be started again.", { panic }));
  });
  self.addEventListener("error", (event) => {
    if (!(event.error instanceof WebAssembly.RuntimeError)) return;
    event.preventDefault();
    die(trapped(event.error));
  });

  /** Runs with a stop handle that follows the signal, and brings whatever is thrown into our form. */
  const guarded = async <T>(run: RunOptions, call: (stop: Stop) => Promise<T>): Promise<T> => {
    const stop = new Stop();
    const abort = () => stop.stop();
    run.signal.addEventListener("abort", abort, { once: true });
    if (run.signal.aborted) abort();
    let end: (error: GromaError) => void = () => undefined;
    try {
      return await new Promise<T>((resolve, reject: (error: unknown) => void) => {
        if (dead) throw dead;
        end = reject;
        running.add(end);
        call(stop).then(resolve, reject);
      });
    } catch (error) {
      if (error instanceof WebAssembly.RuntimeError) die(trapped(error));
      throw isThrown(error) ? fromThrown(error, device) : error;
    } finally {
      running.delete(end);
      run.signal.removeEventListener("abort", abort);
      if (!dead) stop.free();
    }
  };

  const wrapPhoto = (photo: Awaited<ReturnType<Model["openFile"]>>): EnginePhoto => ({
    width: photo.width,
    height: photo.height,
    regions: photo.regions(),
    ask: (request, onSegment, run) => guarded(run, (stop) => photo.ask(request, onSegment, stop)),
    recall: ({ request, tokens }, run) =>
      guarded(run, (stop) => photo.recall(request, Uint32Array.from(tokens), stop)),
    reset: () => photo.reset(),
    free: () => photo.free(),
  });

  const wrapModel = (model: Model): EngineModel => ({
    contextLength: model.contextLength,
    open: (picture: Picture, run) =>
      guarded(run, async (stop) => {
        const photo =
          "bytes" in picture
            ? await model.openFile(picture.bytes, picture.turned, stop, run.onProgress)
            : await model.openPixels(picture.width, picture.height, picture.rgba, stop, run.onProgress);
        return wrapPhoto(photo);
      }),
    free: () => model.free(),
  });

  return {
    get dead() {
      return dead;
    },
    load: (description, pack, options) =>
      guarded(options, async (stop) => {
        heap.start = heap.now();
        device = options.device;
        const onProgress = (done: number, all: number) => {
          // The weights are nine tenths of the progress.
          if (done * 10 <= all * 9) heap.streamed = heap.now();
          options.onProgress?.(done, all);
        };
        return wrapModel(
          await Model.load(description, pack, options.device, options.debug, stop, onProgress),
        );
      }),
  };
}

/** A trap without a panic is, in this module, an allocation that failed. */
function trapped(trap: WebAssembly.RuntimeError): GromaError {
  return new GromaError("out-of-memory", "The engine ran out of memory. Close other tabs and start again.", {
    trap: trap.message,
  });
}

function isThrown(error: unknown): error is Thrown {
  return (
    typeof error === "object" &&
    error !== null &&
    !(error instanceof Error) &&
    !(error instanceof DOMException) &&
    "reason" in error &&
    "message" in error
  );
}

function fromThrown(thrown: Thrown, device: DeviceKind): GromaError {
  const reason = thrown.reason as Reason;
  if (reason === "aborted") return aborted();
  // Which buffer it was that found no memory is no reader's business; it stays in the details.
  const place = reason === "out-of-memory" ? thrown.details.place.map((one) => `${one}: `).join("") : "";
  const words = thrown.message.startsWith(place) ? thrown.message.slice(place.length) : thrown.message;
  const sentence = `${words.charAt(0).toUpperCase()}${words.slice(1)}.`;
  const way = (device === "gpu" ? WAYS_OFF_THE_GPU[reason] : undefined) ?? WAYS_ON[reason];
  return new GromaError(reason, way ? `${sentence} ${way}` : sentence, thrown.details);
}
