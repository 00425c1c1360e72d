/** What the engine takes and gives. Boxes are pixels of the photo as it is seen, after EXIF rotation. */

/** `[x0, y0, x1, y1]` in pixels of the photo. */
export type Box = readonly [x0: number, y0: number, x1: number, y1: number];

/** A numbered box. */
export interface Region {
  /** Its number; ids of an answer belong to that answer. */
  readonly id: number;
  readonly box: Box;
  /** How sure the proposer is, 0 to 1; a box of the user's has 1. */
  readonly score: number;
}

/** A piece of an answer, as it grows. */
export interface Segment {
  /** Its place in the answer. An event replaces the earlier one of the same index. */
  readonly index: number;
  readonly kind: "text" | "phrase";
  /** All of its text so far. */
  readonly text: string;
  /** What this event added to the text. */
  readonly delta: string;
  /** Whether it is final. */
  readonly closed: boolean;
  /** What a phrase is tied to. */
  readonly regions: readonly Region[];
}

/** Why an answer ended. */
export type Stopped = "end" | "length" | "aborted";

/** Where the time went, in milliseconds; named as the command line names it. */
export interface Timing {
  /** Photo to regions, once a photo. */
  readonly vision_ms: number;
  /** Tokens of the regions, where the boxes are other ones than before. */
  readonly regions_ms: number;
  readonly prefill_ms: number;
  readonly decode_ms: number;
  /** Positions of the prompt, those of them that were kept, those that were computed. */
  readonly prompt: number;
  readonly reused: number;
  readonly prefilled: number;
}

/** A whole answer. */
export interface AnswerResult {
  readonly text: string;
  readonly segments: readonly Segment[];
  readonly regions: readonly Region[];
  readonly tokens: readonly number[];
  readonly stopped: Stopped;
  readonly timing: Timing;
}

/** What can be asked of a photo. */
export type Task =
  | {
      readonly kind: "ask";
      readonly question: string;
      readonly grounded: boolean;
      readonly refer: readonly Box[];
    }
  | { readonly kind: "detect"; readonly label: string }
  | { readonly kind: "locate"; readonly phrase: string }
  | { readonly kind: "caption"; readonly box: Box; readonly long: boolean }
  | { readonly kind: "describe" };

/** A task with the limits of its answer. */
export interface TaskRequest {
  readonly task: Task;
  readonly maxTokens: number;
  readonly temperature: number;
  readonly seed: number;
}

/** Where the engine runs. */
export type DeviceKind = "gpu" | "cpu";

/** Why a device was chosen, when it is not the visitor's GPU. */
export type DeviceNote = "no-webgpu" | "no-adapter" | "software-adapter" | "forced";

/** A chosen device. */
export interface DeviceChoice {
  readonly kind: DeviceKind;
  /** The adapter in the browser's words, where there is one. */
  readonly adapter: string;
  readonly note?: DeviceNote;
}

/** What is loaded. */
export interface Info {
  /** The pack's name. */
  readonly model: string;
  readonly device: DeviceKind;
  readonly adapter: string;
  readonly note?: DeviceNote;
  /** Bytes of the pack's files. */
  readonly bytes: number;
  readonly contextLength: number;
  /** Element type a component, as the pack names them. */
  readonly quantisation: Readonly<Record<string, string>>;
  readonly licence: readonly string[];
}

/** Whether a model can be used, as the browser's own built-in AI names it. */
export type Availability = "available" | "downloadable" | "downloading" | "unavailable";

/** What is known of a model before its download. */
export interface ModelSize {
  readonly name: string;
  readonly licence: readonly string[];
  /** Bytes of the pack's files. */
  readonly bytes: number;
  /** How many of them are not on this machine. */
  readonly missing: number;
  /** About how many bytes of memory it takes while it answers about a photo. */
  readonly memory: number;
}

/** What loading is doing. */
export type LoadPhase = "download" | "prepare";

/** How far loading is. */
export interface LoadProgress {
  readonly phase: LoadPhase;
  /** All of loading as one number from 0 to 1 that never goes back. */
  readonly fraction: number;
  /** Bytes that are here, from cache or network. */
  readonly bytes: number;
  readonly totalBytes: number;
  /** Whether every byte came from the cache. */
  readonly cached: boolean;
}

/** Fall-backs that tests and bug reports force; none is for a page that people use. */
export interface Debug {
  /** How the cpu device multiplies quantised matrices; "fast" unless told. */
  readonly numerics?: "exact" | "fast";
  /** Keep nothing: weights stay in memory, as where the browser offers no storage. */
  readonly storage?: "memory";
  /** As in a browser without WebGPU, without a graphics adapter, with a software one only, or whose adapter is gone by the time the model is loaded. */
  readonly webgpu?: "none" | "no-adapter" | "software" | "gone";
  /** As in a browser that turns WebP files by their EXIF orientation, or that shows them as they lie. */
  readonly webp?: "turned" | "unturned";
  /** As on an address that is neither https nor localhost. */
  readonly address?: "insecure";
  /** What the GPU device is told to do without. */
  readonly gpu?: DebugGpu;
  /** What is to fail, once. */
  readonly fault?: Fault;
}

/** Fall-backs of the GPU device. */
export interface DebugGpu {
  /** WebGPU's default limits, whatever the adapter offers. */
  readonly defaultLimits?: boolean;
  /** Bytes that can be bound at once. */
  readonly binding?: number;
  /** Bytes after which allocations fail. */
  readonly memory?: number;
  /** Kernels for software adapters or for real ones. */
  readonly kernels?: "software" | "hardware";
  /** A readback takes this much longer. */
  readonly mapLatencyMs?: number;
}

/** Loses the GPU, traps the engine or ends the worker, after some pieces of the first answer. */
export interface Fault {
  readonly kind: "device" | "trap" | "worker";
  readonly after: number;
}

/** A cached model. */
export interface CachedModel {
  readonly name: string;
  readonly url: string;
  /** Bytes on this machine. */
  readonly bytes: number;
  /** Removes it; parts that other models share stay. */
  delete(): Promise<void>;
}
