/**
 * Style sheets whose `rem` is the element's own: pages set the root's size as they like (mdBook has 62.5 %), and the element is
 * to be read on all of them. In container queries `em` is the same size, for the element is the container.
 */

import { unsafeCSS, type CSSResult } from "lit";

// Set in base.ts, where the element's size is.
const UNIT = "--_groma-unit";

try {
  // So that it is inherited as a length, not as the words "1em", which are another length in every element. There is none on a
  // server that renders the page; browsers without it (Firefox before 128) take the words.
  (globalThis as { CSS?: Partial<typeof CSS> }).CSS?.registerProperty?.({
    name: UNIT,
    syntax: "<length>",
    inherits: true,
    initialValue: "16px",
  });
} catch (error) {
  // Another copy of the element was here before.
  if (!(error instanceof DOMException && error.name === "InvalidModificationError")) throw error;
}

/** A style sheet of the element. */
export function css(text: TemplateStringsArray): CSSResult {
  return unsafeCSS(text.join("").replace(/(-?[\d.]+)rem\b/g, `calc($1 * var(${UNIT}))`));
}
