/** Before the model is here: what it is, how large, and a button. Nothing is downloaded before the reader agrees. */

import { html, nothing, type TemplateResult } from "lit";
import type { DeviceChoice } from "../engine/index.js";
import type { ModelState } from "./session.js";
import { megabytes, NOTES, progressWords } from "./words.js";

/** What the gate shows and does. */
export interface GateView {
  readonly model: ModelState;
  readonly device: DeviceChoice | undefined;
  readonly onLoad: () => void;
  readonly onCancel: () => void;
  readonly onRetry: () => void;
}

/** Draws the gate; nothing once the model is ready. */
export function renderGate(view: GateView): TemplateResult | typeof nothing {
  const { model } = view;
  switch (model.state) {
    case "unknown":
      return html`<div class="gate" aria-busy="true"><p class="muted">Looking for the model …</p></div>`;
    case "offered":
      return html`<div class="gate">
        <div class="gate-row">
          <div>
            <h2>${model.missing === 0 ? "The model is on this device" : "Load the model"}</h2>
            <p class="muted">
              ${model.name} ·
              ${
                model.missing === 0
                  ? `${megabytes(model.bytes)}, no download`
                  : `${megabytes(model.missing)} once, kept in this browser`
              }
            </p>
          </div>
          <button type="button" class="primary" part="button" @click=${view.onLoad}>
            ${model.missing === 0 ? "Start" : `Load ${megabytes(model.missing)}`}
          </button>
        </div>
        <p class="muted small">It runs here: your photos and questions never leave this device.</p>
        ${renderNote(view.device)}
      </div>`;
    case "loading": {
      const { progress } = model;
      const fraction = progress?.fraction ?? 0;
      const words = progressWords(progress);
      return html`<div class="gate" part="progress">
        <div class="gate-row">
          <div>
            <h2>Loading the model</h2>
            <p class="muted tabular">${words}</p>
          </div>
          <button type="button" part="button" @click=${view.onCancel}>Cancel</button>
        </div>
        <progress
          max="1"
          .value=${fraction}
          aria-label="Loading the model"
          aria-valuetext=${words}
        ></progress>
        ${renderNote(view.device)}
      </div>`;
    }
    case "failed":
      return html`<div class="gate">
        <div class="gate-row">
          <div role="alert">
            <h2>The model could not be loaded</h2>
            <p>${model.error.message}</p>
            <p class="muted small">${model.error.reason}</p>
          </div>
          <button type="button" class="primary" part="button" @click=${view.onRetry}>Try again</button>
        </div>
      </div>`;
    case "ready":
      return nothing;
  }
}

/** Says why the GPU is not used, where it is not. */
export function renderNote(device: DeviceChoice | undefined): TemplateResult | typeof nothing {
  return device?.note ? html`<p class="note small">${NOTES[device.note]}</p>` : nothing;
}
