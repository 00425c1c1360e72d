/** Photos to begin with, with their credits. Set-up brings them; without them nothing is shown. */

import type { GromaChat } from "../element/chat.js";

/** What `samples/samples.json` says of a photo. */
interface Sample {
  readonly file: string;
  readonly alt: string;
  readonly credit: string;
}

/** The samples of this site. */
export class Samples {
  readonly #chat: GromaChat;
  readonly #home = new URL("samples/", document.baseURI);
  readonly #opened = new WeakMap<Blob, string>();
  #list: readonly Sample[] = [];

  constructor(chat: GromaChat) {
    this.#chat = chat;
  }

  /** Fills the list that the page shows. */
  async show(section: HTMLElement): Promise<void> {
    const list = section.querySelector("ul");
    const response = await fetch(new URL("samples.json", this.#home)).catch(() => undefined);
    // A server may answer anything for what it has not.
    if (!list || !response?.ok || !response.headers.get("content-type")?.includes("json")) return;
    this.#list = (await response.json()) as Sample[];
    list.replaceChildren(...this.#list.map((sample) => this.#item(sample)));
    section.hidden = this.#list.length === 0;
  }

  /** Opens a sample by its file's name; an unknown one is nothing. */
  async open(file: string): Promise<void> {
    const sample = this.#list.find((one) => one.file === file);
    if (!sample) return;
    const response = await fetch(new URL(sample.file, this.#home)).catch(() => undefined);
    if (!response?.ok) return;
    const blob = await response.blob();
    this.#opened.set(blob, sample.file);
    await this.#chat.open(blob, sample.alt);
  }

  /** The file of the sample that is open. */
  get current(): string | undefined {
    const { photo } = this.#chat;
    return photo ? this.#opened.get(photo.blob) : undefined;
  }

  #item(sample: Sample): HTMLLIElement {
    const image = new Image();
    image.src = new URL(sample.file, this.#home).href;
    image.alt = sample.alt;
    const button = document.createElement("button");
    button.type = "button";
    button.title = sample.credit;
    button.append(image);
    button.addEventListener("click", () => void this.open(sample.file));
    const credit = document.createElement("small");
    credit.textContent = sample.credit;
    const li = document.createElement("li");
    li.append(button, credit);
    return li;
  }
}
