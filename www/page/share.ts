/** What can be taken along: an answer, the photo with its boxes, a link to this setting. */

import type { GromaChat } from "../element/chat.js";
import type { Turn } from "../element/session.js";
import { wordsOf } from "../element/words.js";
import { download, part } from "./dom.js";
import { asCoco, asJson, asText, type About } from "./formats.js";
import { asPng, asSvg } from "./overlay.js";
import type { Samples } from "./samples.js";
import { writeSetting } from "./setting.js";

const FORMATS = { text: asText, json: asJson, coco: asCoco };
const PICTURES = { png: asPng, svg: asSvg };

/** The dialog "Share". */
export class Share {
  readonly #dialog: HTMLDialogElement;
  readonly #chat: GromaChat;
  readonly #samples: Samples;
  readonly #answers: HTMLSelectElement;
  readonly #link: HTMLInputElement;
  readonly #status: HTMLOutputElement;

  constructor(dialog: HTMLDialogElement, chat: GromaChat, samples: Samples) {
    this.#dialog = dialog;
    this.#chat = chat;
    this.#samples = samples;
    this.#answers = part(dialog, "select", HTMLSelectElement);
    this.#link = part(dialog, "input", HTMLInputElement);
    this.#status = part(dialog, "output", HTMLOutputElement);
    for (const button of dialog.querySelectorAll<HTMLButtonElement>("[data-does]")) {
      button.addEventListener("click", () => void this.#do(button.dataset.does ?? ""));
    }
  }

  /** Shows the dialog for what stands here now. */
  open(): void {
    const turns = this.#turns();
    this.#answers.replaceChildren(
      ...turns.map((turn) => new Option(questionOf(turn), String(turn.id), false, turn === turns.at(-1))),
    );
    this.#link.value = writeSetting(new URL(location.href), this.#chat, this.#samples.current).href;
    this.#status.value = "";
    const able = { answer: turns.length > 0, photo: this.#chat.photo !== undefined };
    for (const set of this.#dialog.querySelectorAll<HTMLFieldSetElement>("[data-needs]")) {
      set.disabled = !able[set.dataset.needs as keyof typeof able];
    }
    this.#dialog.showModal();
  }

  /** Answers that ended. */
  #turns(): Turn[] {
    return this.#chat.turns.filter((turn) => turn.result);
  }

  async #do(what: string): Promise<void> {
    try {
      if (what === "link") await this.#copy(this.#link.value, "The link is copied.");
      else if (what === "png" || what === "svg") await this.#picture(what);
      else if (what === "text" || what === "json" || what === "coco") await this.#answer(what);
    } catch (error) {
      this.#status.value = `That did not work: ${error instanceof Error ? error.message : String(error)}`;
    }
  }

  async #answer(format: keyof typeof FORMATS): Promise<void> {
    const turn = this.#chosen();
    if (turn) await this.#copy(FORMATS[format](turn, this.#about()), "The answer is copied.");
  }

  async #picture(format: keyof typeof PICTURES): Promise<void> {
    const { photo } = this.#chat;
    if (!photo) return;
    const overlay = { photo: photo.blob, turn: this.#chosen(), regions: photo.photo?.regions ?? [] };
    download(await PICTURES[format](overlay), `groma.${format}`);
    this.#status.value = `Saved as groma.${format}.`;
  }

  #chosen(): Turn | undefined {
    return this.#turns().find((turn) => String(turn.id) === this.#answers.value);
  }

  #about(): About {
    const { photo } = this.#chat;
    return {
      name: this.#samples.current ?? photo?.name ?? "",
      width: photo?.photo?.width ?? 0,
      height: photo?.photo?.height ?? 0,
    };
  }

  async #copy(text: string, done: string): Promise<void> {
    await navigator.clipboard.writeText(text);
    this.#status.value = done;
  }
}

function questionOf({ id, task }: Turn): string {
  const names = {
    ask: "",
    detect: "Find all: ",
    locate: "Point to: ",
    caption: "The box",
    describe: "The photo",
  };
  return `${id}. ${names[task.kind]}${wordsOf(task)}`;
}
