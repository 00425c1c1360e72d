/** Which model and which device. Choosing downloads nothing: the element then says what it would load, and asks. */

import type { GromaChat } from "../element/chat.js";
import { part } from "./dom.js";
import { modelAddress, ownModel } from "./setting.js";

/** The dialog "Model". */
export class ModelChoice {
  readonly #dialog: HTMLDialogElement;
  readonly #form: HTMLFormElement;
  readonly #address: HTMLInputElement;
  readonly #chat: GromaChat;
  readonly #chosen: () => void;

  /** `chosen` is called after a choice. */
  constructor(dialog: HTMLDialogElement, chat: GromaChat, chosen: () => void) {
    this.#dialog = dialog;
    this.#chat = chat;
    this.#chosen = chosen;
    this.#form = part(dialog, "form", HTMLFormElement);
    this.#address = part(dialog, "input[name=address]", HTMLInputElement);
    this.#form.addEventListener("submit", (event) => this.#submit(event));
    // A field that is wrong would keep the form from being sent, whatever is chosen instead.
    this.#form.addEventListener("change", () => this.#address.setCustomValidity(""));
    // Who writes an address means it.
    this.#address.addEventListener("input", () => {
      this.#address.setCustomValidity("");
      this.#pick("other");
    });
  }

  /** Shows the dialog with what is chosen now. */
  open(): void {
    const own = this.#chat.model === ownModel();
    this.#pick(own ? "own" : "other");
    this.#address.value = own ? "" : this.#chat.model;
    this.#address.setCustomValidity("");
    this.#radio("device", this.#chat.device).checked = true;
    this.#dialog.showModal();
  }

  #submit(event: SubmitEvent): void {
    event.preventDefault();
    const data = new FormData(this.#form);
    const model = data.get("model") === "own" ? ownModel() : modelAddress(this.#address.value);
    if (!model) {
      this.#address.setCustomValidity("Write the address of a pack: its folder or its model.json.");
      this.#address.reportValidity();
      return;
    }
    const device = data.get("device");
    this.#chat.model = model;
    this.#chat.device = device === "gpu" || device === "cpu" ? device : "auto";
    this.#dialog.close();
    this.#chosen();
  }

  #pick(value: "own" | "other"): void {
    this.#radio("model", value).checked = true;
  }

  #radio(name: string, value: string): HTMLInputElement {
    return part(this.#form, `input[name=${name}][value=${value}]`, HTMLInputElement);
  }
}
