/** A photo from the camera. The picture goes to the element and nowhere else; the camera is off as soon as the dialog closes. */

import { part } from "./dom.js";

/** Opens the camera in a dialog; `take` gets the photo. */
export class Camera {
  readonly #dialog: HTMLDialogElement;
  readonly #video: HTMLVideoElement;
  readonly #problem: HTMLElement;
  readonly #shutter: HTMLButtonElement;
  readonly #take: (photo: Blob) => void;
  #stream: MediaStream | undefined;
  /** Counts the openings: a stream that comes late is nobody's. */
  #opened = 0;

  constructor(dialog: HTMLDialogElement, take: (photo: Blob) => void) {
    this.#dialog = dialog;
    this.#take = take;
    this.#video = part(dialog, "video", HTMLVideoElement);
    this.#problem = part(dialog, ".problem", HTMLElement);
    this.#shutter = part(dialog, "[data-does=shoot]", HTMLButtonElement);
    this.#shutter.addEventListener("click", () => void this.#shoot());
    this.#video.addEventListener("loadeddata", () => (this.#shutter.disabled = false));
    dialog.addEventListener("close", () => this.#off());
  }

  /** Shows the dialog and asks for the camera. */
  async open(): Promise<void> {
    this.#problem.hidden = true;
    this.#video.hidden = false;
    this.#shutter.disabled = true;
    this.#dialog.showModal();
    const opened = ++this.#opened;
    try {
      // Without a secure context there is no such object, whatever the types say.
      const devices = navigator.mediaDevices as MediaDevices | undefined;
      if (!devices) throw new DOMException("", "SecurityError");
      const stream = await devices.getUserMedia({
        video: { facingMode: "environment", width: { ideal: 1920 }, height: { ideal: 1080 } },
      });
      // Closed while the browser was asking, perhaps opened again.
      if (!this.#dialog.open || opened !== this.#opened) {
        stop(stream);
        return;
      }
      this.#stream = stream;
      this.#video.srcObject = stream;
    } catch (error) {
      if (opened !== this.#opened) return;
      this.#problem.textContent = why(error);
      this.#problem.hidden = false;
      this.#video.hidden = true;
    }
  }

  async #shoot(): Promise<void> {
    const canvas = document.createElement("canvas");
    canvas.width = this.#video.videoWidth;
    canvas.height = this.#video.videoHeight;
    canvas.getContext("2d")?.drawImage(this.#video, 0, 0);
    const blob = await new Promise<Blob | null>((done) => canvas.toBlob(done, "image/jpeg", 0.95));
    this.#dialog.close();
    if (blob) this.#take(blob);
  }

  #off(): void {
    if (this.#stream) stop(this.#stream);
    this.#stream = undefined;
    this.#video.srcObject = null;
  }
}

function stop(stream: MediaStream): void {
  for (const track of stream.getTracks()) track.stop();
}

/** Why there is no picture, and what to do. */
function why(error: unknown): string {
  switch (error instanceof DOMException ? error.name : "") {
    case "NotAllowedError":
      return "The browser may not use the camera here. Allow it in the page's permissions, then try again.";
    case "NotFoundError":
    case "OverconstrainedError":
      return "No camera was found. Connect one, or choose a file.";
    case "NotReadableError":
      return "The camera can't be read. Another program may be using it: close that, then try again.";
    case "SecurityError":
      return "Browsers give a camera only to pages over https. Choose a file instead.";
    default:
      return `The camera did not start: ${error instanceof Error ? error.message : String(error)}`;
  }
}
