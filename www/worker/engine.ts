/** What the worker needs of an engine. The wasm module is one; unit tests have another. */

import type { DeviceKind, AnswerResult, Debug, Region, Segment, TaskRequest } from "../engine/types.js";
import type { Said } from "../engine/protocol.js";
import type { PackReader } from "./reader.js";

/** When to stop and whom to tell. */
export interface RunOptions {
  readonly signal: AbortSignal;
  /** Told the steps done and the steps in all. */
  readonly onProgress?: (done: number, total: number) => void;
}

/** A photo's file as it is, or its pixels (RGBA) where the browser had to decode it. */
export type Picture =
  | { readonly bytes: Uint8Array; readonly turned: boolean }
  | { readonly width: number; readonly height: number; readonly rgba: Uint8Array };

/** A photo that was looked at. */
export interface EnginePhoto {
  readonly width: number;
  readonly height: number;
  readonly regions: readonly Region[];
  ask(request: TaskRequest, onSegment: (segment: Segment) => void, run: RunOptions): Promise<AnswerResult>;
  /** Takes a question as asked and its answer's tokens as said. */
  recall(said: Said, run: RunOptions): Promise<void>;
  reset(): void;
  free(): void;
}

/** A model that is ready. */
export interface EngineModel {
  readonly contextLength: number;
  open(picture: Picture, run: RunOptions): Promise<EnginePhoto>;
  free(): void;
}

/** Where a model is to run. */
export interface LoadOptions extends RunOptions {
  readonly device: DeviceKind;
  readonly debug: Debug;
}

/** Makes models of packs. */
export interface Engine {
  /** `description` is the text of `model.json`. */
  load(description: string, pack: PackReader, options: LoadOptions): Promise<EngineModel>;
  /** Why it can't be used any more, after a trap. */
  readonly dead: Error | undefined;
}
