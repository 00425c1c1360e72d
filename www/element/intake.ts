/** How a photo gets in by hand: dropped on the element, pasted into it, or picked from the reader's files. */

import type { LitElement, ReactiveController } from "lit";

/** Takes photos. */
export class Intake implements ReactiveController {
  /** Whether a file hovers above the element. */
  hovering = false;
  readonly #host: LitElement;
  readonly #closed: () => boolean;
  readonly #take: (photo: File) => void;

  constructor(host: LitElement, closed: () => boolean, take: (photo: File) => void) {
    this.#host = host;
    this.#closed = closed;
    this.#take = take;
    host.addController(this);
  }

  hostConnected(): void {
    for (const [type, listener] of this.#listeners) this.#host.addEventListener(type, listener);
  }

  hostDisconnected(): void {
    for (const [type, listener] of this.#listeners) this.#host.removeEventListener(type, listener);
    this.hovering = false;
  }

  /** A file was chosen in the browser's own dialog. */
  readonly picked = (event: Event): void => {
    const picker = event.target as HTMLInputElement;
    const file = picker.files?.[0];
    if (file) this.#take(file);
    // So that the same file can be chosen again.
    picker.value = "";
  };

  readonly #over = (event: Event): void => {
    if (this.#closed() || !(event as DragEvent).dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    this.#hover(true);
  };

  readonly #leave = (event: Event): void => {
    // From one part of the element to another it has not left.
    const to = (event as DragEvent).relatedTarget;
    if (!(to instanceof Node) || !this.#host.contains(to)) this.#hover(false);
  };

  readonly #drop = (event: Event): void => {
    this.#hover(false);
    const file = (event as DragEvent).dataTransfer?.files[0];
    if (this.#closed() || !file) return;
    event.preventDefault();
    this.#take(file);
  };

  readonly #paste = (event: Event): void => {
    const file = pastedPhoto(event as ClipboardEvent);
    if (this.#closed() || !file) return;
    event.preventDefault();
    this.#take(file);
  };

  readonly #listeners: readonly (readonly [string, (event: Event) => void])[] = [
    ["dragover", this.#over],
    ["dragleave", this.#leave],
    ["drop", this.#drop],
    ["paste", this.#paste],
  ];

  #hover(hovering: boolean): void {
    this.hovering = hovering;
    this.#host.requestUpdate();
  }
}

/** The photo of a clipboard, where it holds one. Text that is pasted into a field stays text: a table's cells bring their picture along. */
export function pastedPhoto(event: ClipboardEvent): File | undefined {
  const into = event.composedPath()[0];
  const field = into instanceof HTMLInputElement || into instanceof HTMLTextAreaElement;
  if (field && event.clipboardData?.types.includes("text/plain")) return undefined;
  return [...(event.clipboardData?.files ?? [])].find((file) => file.type.startsWith("image/"));
}
