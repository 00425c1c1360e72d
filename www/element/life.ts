/** The element's life with its model and its photo: what starts when, what another address changes, what leaving gives back. */

import type { LitElement, ReactiveController } from "lit";
import { GromaError } from "../engine/index.js";
import { fetchPhoto } from "../engine/source.js";
import { Session, type Listener, type Maker, type Settings } from "./session.js";

/** What the element was told by its page. */
export interface Wishes {
  readonly model: string;
  readonly src: string;
  readonly alt: string;
  readonly load: "interaction" | "visible" | "eager";
  readonly settings: Settings;
  readonly maker: Maker | undefined;
}

/** Holds the session. */
export class Life implements ReactiveController {
  /** Made late, so that properties set before the first update count. */
  session: Session | undefined;
  /** Why the photo of `src` is not there. */
  error: GromaError | undefined;
  /** Whether the photo is the one of `src`, not one that the reader or a program chose. */
  fromSource = false;
  readonly #host: LitElement;
  readonly #wishes: () => Wishes;
  readonly #listener: Listener;
  readonly #onShow: () => void;
  #visible: IntersectionObserver | undefined;
  /** Whether what is on this device may start: the reader did something, or the page said so. */
  #mayStart = false;
  /** The fetch of `src` that is under way; whoever shows something else ends it. */
  #fetching: AbortController | undefined;
  /** What was open when the element was taken out of the page. */
  #kept:
    | {
        readonly photo: { readonly blob: Blob; readonly name: string };
        readonly src: string;
        readonly fromSource: boolean;
      }
    | undefined;

  /** `onShow` is called before another photo is shown. */
  constructor(host: LitElement, wishes: () => Wishes, listener: Listener, onShow: () => void) {
    this.#host = host;
    this.#wishes = wishes;
    this.#listener = listener;
    this.#onShow = onShow;
    host.addController(this);
  }

  hostConnected(): void {
    // Put back after it was taken out: what it gave back is fetched anew.
    if (this.#host.hasUpdated && !this.session) queueMicrotask(() => this.#begin());
  }

  hostDisconnected(): void {
    // Moving an element disconnects and connects it in one go: only who stays out gives back.
    queueMicrotask(() => {
      if (this.#host.isConnected) return;
      this.#visible?.disconnect();
      this.#fetching?.abort();
      const photo = this.session?.chosen;
      this.#kept = photo && { photo, src: this.#wishes().src, fromSource: this.fromSource };
      void this.session?.destroy();
      this.session = undefined;
    });
  }

  hostUpdate(): void {
    this.session?.configure(this.#wishes().settings);
  }

  /** The session, made where it is not there yet; with what was set just now, before the next update. */
  ready(): Session {
    const { settings, maker } = this.#wishes();
    this.session ??= new Session(this.#listener, settings, maker);
    this.session.configure(settings);
    return this.session;
  }

  /** Shows a photo that the reader or the page's program chose. */
  async open(photo: Blob, name: string): Promise<void> {
    this.allow();
    await this.#show(photo, name, false);
    await this.session?.startCached();
  }

  /** What is on this device may start: the reader wants it. */
  allow(): void {
    this.#mayStart = true;
  }

  /** Says what the model is; `other` when it is another one than before. Starts what `load` allows. */
  async offer(other: boolean): Promise<void> {
    const { model, load } = this.#wishes();
    if (!this.#host.isConnected || (!model && !this.session)) return;
    const session = this.ready();
    if (other) await session.leaveModel();
    if (!model) return;
    await session.offer();
    // Taken out of the page meanwhile.
    if (this.session !== session) return;
    this.#visible?.disconnect();
    // What could not even be offered waits for the reader to try again.
    if (load === "eager" && session.model.state === "offered") await session.load();
    else if (this.#mayStart) await session.startCached();
    else if (load === "visible") this.#startWhenSeen();
  }

  /** Shows the photo of `src`, or none. */
  async openSource(): Promise<void> {
    const { src, alt } = this.#wishes();
    this.#fetching?.abort();
    this.error = undefined;
    // The old photo and its conversation are over, whatever becomes of the new one.
    if (this.session?.chosen) {
      this.#onShow();
      this.session.close();
    }
    if (!src) return;
    const fetching = new AbortController();
    this.#fetching = fetching;
    const current = () => !fetching.signal.aborted && this.#wishes().src === src && this.#host.isConnected;
    try {
      const blob = await fetchPhoto(src, fetching.signal);
      if (current()) await this.#show(blob, alt || nameOf(src), true);
    } catch (error) {
      if (!current()) return;
      this.error = GromaError.wrap(error);
      this.#listener.failed?.(this.error);
      this.#listener.changed();
    }
  }

  async #show(photo: Blob, name: string, fromSource: boolean): Promise<void> {
    this.#fetching?.abort();
    this.error = undefined;
    this.fromSource = fromSource;
    this.#onShow();
    await this.ready().choose(photo, name);
  }

  /** Begins again after the element was put back. */
  #begin(): void {
    if (!this.#host.isConnected || this.session) return;
    const kept = this.#kept;
    this.#kept = undefined;
    void this.offer(false);
    const { src } = this.#wishes();
    // What was open, also where the reader had chosen it; unless the page named another meanwhile.
    if (kept?.src === src) void this.#show(kept.photo.blob, kept.photo.name, kept.fromSource);
    else if (src) void this.openSource();
  }

  #startWhenSeen(): void {
    this.#visible = new IntersectionObserver((entries) => {
      if (!entries.some((entry) => entry.isIntersecting)) return;
      this.#visible?.disconnect();
      this.#mayStart = true;
      void this.session?.startCached();
    });
    this.#visible.observe(this.#host);
  }
}

/** The last part of an address, as people read it. */
function nameOf(src: string): string {
  const name = src.split(/[?#]/, 1)[0]?.split("/").pop() ?? "";
  try {
    return decodeURIComponent(name) || "photo";
  } catch {
    return name;
  }
}
