/** The photo's side of the element: the invitation, or the photo with its tools. */

import { html, nothing, type TemplateResult } from "lit";
import type { Drawing } from "./draw.js";
import { renderPhoto, type PhotoView } from "./photo-view.js";
import type { Chosen } from "./session.js";

/** What the invitation does. */
export interface InvitationView {
  readonly onPick: () => void;
  /** Goes back to the photo that is open; without one there is no way back. */
  readonly onBack: (() => void) | undefined;
  /** Whether only a given photo is shown: then nobody is invited to choose. */
  readonly readonly: boolean;
}

/** Draws what is there before a photo. A click on it takes the focus, so that what is pasted then comes here. */
export function renderInvitation(view: InvitationView): TemplateResult {
  if (view.readonly) return html`<slot name="poster"></slot>`;
  return html`<slot name="poster">
      <div class="invitation" tabindex="-1">
        <svg class="mark" viewBox="0 0 48 48" aria-hidden="true">
          <path
            d="M6 14V8a2 2 0 0 1 2-2h6M34 6h6a2 2 0 0 1 2 2v6M42 34v6a2 2 0 0 1-2 2h-6M14 42H8a2 2 0 0 1-2-2v-6"
          />
          <circle cx="24" cy="24" r="4" />
          <path d="M24 13v5M24 30v5M13 24h5M30 24h5" />
        </svg>
        <h2>Choose a photo to ask about</h2>
        <p class="muted">Drop one here, paste it, or pick a file.</p>
        <div class="ways">
          <button type="button" class="primary" part="button" @click=${view.onPick}>Choose a photo</button>
          ${
            view.onBack
              ? html`<button type="button" part="button" @click=${view.onBack}>Back to the photo</button>`
              : nothing
          }
        </div>
      </div>
    </slot>
    <slot name="samples"></slot>`;
}

/** What the stage shows and does. */
export interface StageView extends PhotoView {
  readonly readonly: boolean;
  /** Whether the answer has boxes of its own, so that the others can be hidden. */
  readonly tied: boolean;
  readonly onShowAll: () => void;
  readonly onLookAgain: () => void;
  readonly onNewPhoto: () => void;
}

/** Draws the photo with its tools. */
export function renderStage(view: StageView): TemplateResult {
  const { chosen, drawing, zoom, readonly } = view;
  const regions = chosen.photo?.regions.length ?? 0;
  return html`
    <div
      class=${`pane${zoom.scale > 1 ? " zoomed" : ""}`}
      role="group"
      aria-label="The photo and its boxes"
      tabindex=${zoom.scale > 1 ? 0 : nothing}
      @keydown=${(event: KeyboardEvent) => {
        drawing.keyDown(event);
        if (!event.defaultPrevented) zoom.keyDown(event);
      }}
    >
      ${renderPhoto(view)}
    </div>
    <div class="tools">
      <span class="status muted small">${status(chosen, drawing, regions)}</span>
      ${
        chosen.halted || mayPass(chosen.error)
          ? html`<button type="button" class="quiet" @click=${view.onLookAgain}>Look at the photo</button>`
          : nothing
      }
      ${
        view.tied && regions > 0
          ? html`<button
              type="button"
              class="quiet"
              aria-pressed=${view.showAll ? "true" : "false"}
              @click=${view.onShowAll}
            >
              All boxes
            </button>`
          : nothing
      }
      ${
        readonly
          ? nothing
          : html`<button
                type="button"
                class="quiet draw"
                aria-pressed=${drawing.armed ? "true" : "false"}
                @keydown=${drawing.keyDown}
                @click=${(event: MouseEvent) => {
                  // A press of Enter or Space has no clicks to count.
                  if (event.detail === 0 && !drawing.armed) drawing.addByKeys();
                  else drawing.toggle();
                }}
              >
                Draw a box
              </button>
              <button type="button" class="quiet" @click=${view.onNewPhoto}>New photo</button>`
      }
      <span class="zoom" role="group" aria-label="Zoom">
        <button
          type="button"
          class="quiet"
          aria-label="Zoom out"
          ?disabled=${zoom.scale <= 1}
          @click=${() => void zoom.step(-1)}
        >
          −
        </button>
        <button
          type="button"
          class="quiet"
          aria-label="Zoom in"
          ?disabled=${!zoom.canGrow}
          @click=${() => void zoom.step(1)}
        >
          +
        </button>
      </span>
    </div>
  `;
}

/** Whether looking again may do what failed. */
function mayPass(error: Chosen["error"]): boolean {
  return error?.reason === "out-of-memory" || error?.reason === "device-lost" || error?.reason === "internal";
}

function status(chosen: Chosen, drawing: Drawing, regions: number): string {
  if (drawing.armed) return "Drag over the photo, or click two corners";
  if (chosen.error) return "";
  if (chosen.looking) {
    const { done, total } = chosen.looking;
    return total > 0
      ? `Looking at the photo … ${Math.round((done / total) * 100)} %`
      : "Looking at the photo …";
  }
  if (chosen.halted) return "Stopped";
  if (chosen.photo) return regions === 1 ? "1 region" : `${regions} regions`;
  return "";
}
