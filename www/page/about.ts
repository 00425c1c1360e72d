/** What runs here: model, licence, device, and how long the last answer took. */

import { megabytes, NOTES, seconds } from "../element/words.js";
import type { Info, Timing } from "../engine/index.js";

/** Fills the list of the dialog "About". What a pack says of itself is foreign text and stays text. */
export function fillAbout(list: HTMLElement, info: Info | undefined, timing: Timing | undefined): void {
  const rows: [term: string, text: string][] = info
    ? [
        ["Model", info.model],
        ["Licence of the model", info.licence.join(", ") || "not said by the pack"],
        ["Size", megabytes(info.bytes)],
        ["Weights", quantisation(info)],
        ["Longest conversation", `${info.contextLength} tokens`],
        ["Device", info.device === "gpu" ? "graphics card (WebGPU)" : "processor"],
        ["Adapter", info.adapter || "none"],
      ]
    : [["Model", "not loaded yet"]];
  if (info?.note) rows.push(["Why not the graphics card", NOTES[info.note]]);
  // An answer that was stopped before it began took no time.
  if (timing && timing.prompt > 0) rows.push(["Last answer", times(timing)]);
  list.replaceChildren(...rows.flatMap(([term, text]) => [cell("dt", term), cell("dd", text)]));
}

function quantisation({ quantisation: types }: Info): string {
  const list = Object.entries(types).map(([component, type]) => `${component} ${type}`);
  return list.join(", ") || "not said by the pack";
}

function times({ vision_ms, regions_ms, prefill_ms, decode_ms, prefilled, prompt }: Timing): string {
  return [
    `photo ${seconds(vision_ms + regions_ms)}`,
    `question ${seconds(prefill_ms)} (${prefilled} of ${prompt} positions)`,
    `answer ${seconds(decode_ms)}`,
  ].join(", ");
}

function cell(name: "dt" | "dd", text: string): HTMLElement {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}
