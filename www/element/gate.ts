/** Before the model is here: what it is, how large, and a button. Nothing is downloaded before the reader agrees. */

import { html, nothing, type TemplateResult } from "lit";
import type { DeviceChoice } from "../engine/index.js";
import { fitsProcessor, type ModelState } from "./session.js";
import { renderWays, type Way } from "./ways.js";
import { megabytes, NOTES, progressWords, TOO_LARGE } from "./words.js";

/** What the gate shows and does. */
export interface GateView {
  readonly model: ModelState;
  /** The model's address; empty where none was named. */
  readonly address: string;
  readonly device: DeviceChoice | undefined;
  readonly onLoad: () => void;
  readonly onCancel: () => void;
  readonly onRetry: () => void;
  /** Ways on where loading failed. */
  readonly ways: readonly Way[];
}

/** Draws the gate; nothing once the model is ready. */
export function renderGate(view: GateView): TemplateResult | typeof nothing {
  const { model } = view;
  switch (model.state) {
    case "unknown":
      return view.address
        ? html`<div class="gate" aria-busy="true"><p class="muted">Looking for the model …</p></div>`
        : html`<div class="gate"><p class="muted">No model was named: set the attribute “model”.</p></div>`;
    case "offered":
      return renderOffer(model, view);
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
          <span class="gate-buttons">
            ${renderWays(view.ways)}
            <button type="button" class="primary" part="button" @click=${view.onRetry}>Try again</button>
          </span>
        </div>
        ${model.error.reason === "no-webgpu" ? html`<slot name="fallback"></slot>` : nothing}
      </div>`;
    case "ready":
      return nothing;
  }
}

function renderOffer(
  { name, licence, bytes, missing, memory }: ModelState & { readonly state: "offered" },
  { address, device, onLoad }: GateView,
): TemplateResult {
  const { host } = new URL(address, document.baseURI);
  const elsewhere = host !== location.host;
  return html`<div class="gate">
    <div class="gate-row">
      <div>
        <h2>${missing === 0 ? "The model is on this device" : "Load the model"}</h2>
        <p class="muted">
          ${name} ·
          ${missing === 0 ? `${megabytes(bytes)}, no download` : `${megabytes(missing)} once, kept in this browser`}${
            elsewhere ? ` · from ${host}` : ""
          }${licence.length > 0 ? ` · licence ${licence.join(", ")}` : ""}
        </p>
      </div>
      <button type="button" class="primary" part="button" @click=${onLoad}>
        ${missing === 0 ? "Start" : `Load ${megabytes(missing)}`}
      </button>
    </div>
    <p class="muted small">
      It runs here: your photos and questions never leave this device. It takes about ${megabytes(memory)} of
      memory.${device?.kind === "cpu" && !fitsProcessor(memory) ? ` ${TOO_LARGE}` : ""}
    </p>
    ${renderNote(device)}
  </div>`;
}

/** Says why the GPU is not used, where it is not. */
export function renderNote(device: DeviceChoice | undefined): TemplateResult | typeof nothing {
  return device?.note ? html`<p class="note small">${NOTES[device.note]}</p>` : nothing;
}
