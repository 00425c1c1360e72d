/** Ways on where a model could not do what was asked: without the GPU, with a smaller model. */

import { html, nothing, type TemplateResult } from "lit";
import type { GromaError } from "../engine/index.js";
import type { Session } from "./session.js";

/** A way on, which the reader may take. */
export interface Way {
  readonly label: string;
  readonly go: () => void;
}

/** Where an element's model is, and a smaller one. */
interface Models {
  readonly model: string;
  readonly smaller: string;
}

/** The ways on after a failure; `change` gets the properties to be set. */
export function waysOn(
  error: GromaError,
  session: Session,
  { model, smaller }: Models,
  change: (to: { device: "cpu" } | { model: string }) => void,
): Way[] {
  const ways: Way[] = [];
  if (session.processorMay(error))
    ways.push({ label: "Use the processor", go: () => change({ device: "cpu" }) });
  const full = error.reason === "out-of-memory" || error.reason === "out-of-storage";
  if (full && smaller && !same(smaller, model))
    ways.push({ label: "Use the smaller model", go: () => change({ model: smaller }) });
  return ways;
}

/** Whether two addresses mean the same pack: its folder, with or without its end, or its description. */
function same(a: string, b: string): boolean {
  const folder = (address: string) =>
    new URL(address, document.baseURI).href.replace(/(\/model\.json|\/)$/, "");
  return folder(a) === folder(b);
}

/** Draws a button for each. */
export function renderWays(ways: readonly Way[]): TemplateResult | typeof nothing {
  if (ways.length === 0) return nothing;
  return html`${ways.map(
    ({ label, go }) => html`<button type="button" class="way" part="button" @click=${go}>${label}</button>`,
  )}`;
}
