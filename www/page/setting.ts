/** What the address asks for, and the address that asks for what stands here. The photo is never part of it. */

import type { GromaChat } from "../element/chat.js";
import { boxesOfTask } from "../element/boxes.js";
import { TASKS, type TaskName, wordsOf } from "../element/words.js";
import type { Box, DeviceWish } from "../engine/index.js";

// No question speaks of more boxes than this, and an address may come from anywhere.
const MOST_BOXES = 16;

/** What an address can ask for; what it leaves out is as usual. */
export interface Setting {
  readonly model: string;
  readonly device: DeviceWish;
  readonly exact: boolean;
  readonly task?: TaskName;
  readonly question?: string;
  readonly boxes?: readonly Box[];
  /** A sample's file. */
  readonly sample?: string;
}

/** The address of the model that the page has of itself. */
export function ownModel(): string {
  return new URL("models/groma-s/", document.baseURI).href;
}

/** Reads an address. What can't be understood is left out: a link that was cut still opens the page. */
export function readSetting(address: URL): Setting {
  const asked = address.searchParams;
  const device = asked.get("device");
  const task = TASKS.find((name) => name === asked.get("task"));
  const boxes = readBoxes(asked.get("boxes") ?? "");
  const model = asked.get("model") ?? "";
  return {
    model: modelAddress(model) ?? ownModel(),
    device: device === "gpu" || device === "cpu" ? device : "auto",
    exact: asked.get("numerics") === "exact",
    ...(task ? { task } : {}),
    ...(asked.has("question") ? { question: asked.get("question") ?? "" } : {}),
    ...(boxes.length > 0 ? { boxes } : {}),
    ...(asked.has("sample") ? { sample: asked.get("sample") ?? "" } : {}),
  };
}

/** The address of a pack as the reader wrote it, in full; nothing where it can't be one. */
export function modelAddress(written: string): string | undefined {
  if (!written.trim() || !URL.canParse(written, document.baseURI)) return undefined;
  const url = new URL(written, document.baseURI);
  return url.protocol === "https:" || url.protocol === "http:" ? url.href : undefined;
}

/** The address that asks for what stands here: the last question, or the one that is being put. */
export function writeSetting(page: URL, chat: GromaChat, sample: string | undefined): URL {
  const address = new URL(page.pathname, page);
  const asked = address.searchParams;
  const last = chat.turns.at(-1)?.task;
  const task = last?.kind ?? chat.task;
  const question = last ? wordsOf(last) : chat.question;
  const boxes = last ? boxesOfTask(last) : chat.boxes;
  if (task !== "ask") asked.set("task", task);
  if (question) asked.set("question", question);
  if (boxes.length > 0) asked.set("boxes", boxes.map((box) => box.join(",")).join(";"));
  if (sample) asked.set("sample", sample);
  if (chat.device !== "auto") asked.set("device", chat.device);
  if (chat.numerics === "exact") asked.set("numerics", "exact");
  if (chat.model !== ownModel()) asked.set("model", chat.model);
  return address;
}

function readBoxes(text: string): Box[] {
  return text
    .split(";")
    .slice(0, MOST_BOXES)
    .flatMap((one) => {
      const numbers = one.split(",").map(Number);
      const [x0, y0, x1, y1] = numbers;
      if (numbers.length !== 4 || !numbers.every((n) => Number.isFinite(n) && n >= 0)) return [];
      if (x0 === undefined || y0 === undefined || x1 === undefined || y1 === undefined) return [];
      return [[x0, y0, x1, y1] as const];
    });
}
