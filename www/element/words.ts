/** What the element says, in one place. */

import type { DeviceNote, LoadProgress, Task } from "../engine/index.js";

/** What can be asked, in the order of the picker. */
export const TASKS = ["ask", "detect", "locate", "caption", "describe"] as const;

/** A task's name, as attributes and addresses have it. */
export type TaskName = Task["kind"];

/** How each task is offered. */
export const TASK_WORDS: Record<
  TaskName,
  { readonly label: string; readonly placeholder: string; readonly send: string }
> = {
  ask: { label: "Ask", placeholder: "Ask about the photo", send: "Ask" },
  detect: { label: "Find all", placeholder: "What to find: dog, cup, person …", send: "Find" },
  locate: { label: "Point to", placeholder: "Which one: the cup on the left …", send: "Find" },
  caption: { label: "Describe box", placeholder: "Draw a box on the photo first", send: "Describe" },
  describe: { label: "Describe photo", placeholder: "", send: "Describe" },
};

/** What to begin with. */
export const IDEAS: readonly { readonly words: string; readonly task: Task }[] = [
  { words: "Describe this photo", task: { kind: "describe" } },
  {
    words: "What is in the foreground?",
    task: { kind: "ask", question: "What is in the foreground?", grounded: true, refer: [] },
  },
  { words: "Find every person", task: { kind: "detect", label: "person" } },
];

/** Why the visitor's GPU is not used. */
export const NOTES: Record<DeviceNote, string> = {
  "no-webgpu":
    "This browser has no WebGPU, so the model runs on the processor: slower, with the same answers.",
  "no-adapter":
    "WebGPU found no graphics adapter here, so the model runs on the processor: slower, with the same answers.",
  "software-adapter":
    "The only graphics adapter here is a software one, so the model runs directly on the processor, which is faster.",
  forced: "The model runs on the processor, as asked for.",
};

/** Why the processor is no way for a model. */
export const TOO_LARGE =
  "That is more than a browser gives the processor's way of running it (3 GB): loading it will fail.";

/** What was typed for a task. */
export function wordsOf(task: Task): string {
  switch (task.kind) {
    case "ask":
      return task.question;
    case "detect":
      return task.label;
    case "locate":
      return task.phrase;
    case "caption":
    case "describe":
      return "";
  }
}

/** Bytes as people read them. */
export function megabytes(bytes: number): string {
  const mb = bytes / 1e6;
  if (mb >= 1000) return `${(mb / 1000).toFixed(1)} GB`;
  return mb >= 10 ? `${Math.round(mb)} MB` : `${mb.toFixed(1)} MB`;
}

/** How far loading is, in words. */
export function progressWords(progress: LoadProgress | undefined): string {
  if (!progress || progress.totalBytes === 0) return "Starting …";
  if (progress.phase === "prepare") return "Preparing the model …";
  if (progress.cached) return "Reading the model from this device …";
  return `${megabytes(progress.bytes)} of ${megabytes(progress.totalBytes)}`;
}

/** Seconds as people read them. */
export function seconds(ms: number): string {
  return ms < 10_000 ? `${(ms / 1000).toFixed(1)} s` : `${Math.round(ms / 1000)} s`;
}
