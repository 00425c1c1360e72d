/** What page and worker say to each other: typed values, one shape a method. */

import type { PlainError } from "./error.js";
import type {
  AnswerResult,
  Availability,
  Debug,
  DeviceChoice,
  Info,
  LoadProgress,
  ModelSize,
  Region,
  Segment,
  TaskRequest,
} from "./types.js";

/**
 * A photo on its way to the worker: a file, a bitmap in strips from top to bottom, or pixels (RGBA, 8 bits each) in a blob,
 * which crosses without a copy.
 */
export type PhotoSource =
  | { readonly blob: Blob }
  | { readonly strips: readonly ImageBitmap[] }
  | { readonly rgba: Blob; readonly width: number; readonly height: number };

/** A photo that the worker has opened. */
export interface Opened {
  readonly photo: number;
  readonly width: number;
  readonly height: number;
  readonly regions: readonly Region[];
}

/** A stage of looking at a photo, as steps done and steps in all. */
export interface StageProgress {
  readonly done: number;
  readonly total: number;
}

/** A question as asked and the tokens of its answer: enough for a conversation to go on in another engine. */
export interface Said {
  readonly request: TaskRequest;
  readonly tokens: readonly number[];
}

/** A cached model without its methods. */
export interface CachedEntry {
  readonly name: string;
  readonly url: string;
  readonly bytes: number;
}

/** Every method: what it takes, what it reports on the way, what it gives. */
export interface Methods {
  availability: { args: { model: string; debug: Debug }; event: never; result: Availability };
  size: { args: { model: string; debug: Debug }; event: never; result: ModelSize };
  models: { args: null; event: never; result: readonly CachedEntry[] };
  forget: { args: { url: string }; event: never; result: null };
  load: { args: { model: string; device: DeviceChoice; debug: Debug }; event: LoadProgress; result: Info };
  open: { args: { source: PhotoSource }; event: StageProgress; result: Opened };
  ask: { args: { photo: number; request: TaskRequest }; event: Segment; result: AnswerResult };
  recall: { args: { photo: number; said: readonly Said[] }; event: never; result: null };
  reset: { args: { photo: number }; event: never; result: null };
  close: { args: { photo: number }; event: never; result: null };
  destroy: { args: null; event: never; result: null };
}

export type Method = keyof Methods;

const STORE_METHODS = ["availability", "size", "models", "forget"] as const;

/** What only looks into the store, whichever engine the worker has. */
export type StoreMethod = (typeof STORE_METHODS)[number];

/** Whether a method only looks into the store. */
export function isStoreMethod(method: Method): method is StoreMethod {
  return (STORE_METHODS as readonly Method[]).includes(method);
}

/** From page to worker. */
export type ToWorker =
  | {
      [M in Method]: {
        readonly type: "call";
        readonly id: number;
        readonly method: M;
        readonly args: Methods[M]["args"];
      };
    }[Method]
  | { readonly type: "abort"; readonly id: number };

/** From worker to page. */
export type ToPage =
  | { readonly type: "event"; readonly id: number; readonly event: Methods[Method]["event"] }
  | { readonly type: "result"; readonly id: number; readonly result: Methods[Method]["result"] }
  /** `fatal`: the engine has failed, and with it everything that is open. */
  | { readonly type: "error"; readonly id: number; readonly error: PlainError; readonly fatal?: boolean };
