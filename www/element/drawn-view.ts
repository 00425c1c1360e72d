/** The boxes of the question on the photo: those that can still be changed, and those of a question that was asked. */

import { html, nothing, type TemplateResult } from "lit";
import { classMap } from "lit/directives/class-map.js";
import type { Box } from "../engine/index.js";
import { CORNERS, type Size } from "./boxes.js";
import type { Drawing } from "./draw.js";
import { place } from "./styled.js";

const HOW =
  "Arrow keys move it by a pixel, with Shift further; with Alt they resize it. Delete removes it, Enter goes to the question.";

/** Draws the boxes of the question that is being put, and what is being drawn. */
export function renderDrawing(drawing: Drawing, size: Size, busy: boolean): TemplateResult {
  return html`
    ${drawing.closed ? renderAsked(drawing.boxes, size) : drawing.boxes.map((box, at) => renderEditable(drawing, box, at, size, busy))}
    ${
      drawing.draft
        ? html`<div class="drawn draft" ${place(drawing.draft, size)} aria-hidden="true"></div>`
        : nothing
    }
  `;
}

/** Draws boxes that can't be changed: those of a question that was asked, or that the page gave. */
export function renderAsked(boxes: readonly Box[], size: Size): TemplateResult[] {
  return boxes.map(
    (box, at) =>
      html`<div class="drawn asked" ${place(box, size)} aria-hidden="true">
        <span class="number">[${at + 1}]</span>
      </div>`,
  );
}

function renderEditable(drawing: Drawing, box: Box, at: number, size: Size, fixed: boolean): TemplateResult {
  return html`<div
    class=${classMap({ drawn: true, editable: true, fixed })}
    id=${`drawn-${at}`}
    ${place(box, size)}
    tabindex="0"
    role="application"
    aria-roledescription="box"
    aria-label=${`Box ${at + 1} of the question. ${HOW}`}
    @keydown=${(event: KeyboardEvent) => drawing.key(event, at)}
    @pointerdown=${(event: PointerEvent) => drawing.grab(event, at)}
  >
    <span class="number">[${at + 1}]</span>
    ${CORNERS.map(
      (corner) =>
        html`<span
          class=${`grip ${corner}`}
          @pointerdown=${(event: PointerEvent) => drawing.grab(event, at, corner)}
        ></span>`,
    )}
  </div>`;
}
