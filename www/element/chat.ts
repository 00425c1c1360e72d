/** The element's class. `groma-chat.ts` defines it. */

import { html, LitElement, nothing, type PropertyValues, type TemplateResult } from "lit";
import { property, query, state } from "lit/decorators.js";
import { GromaError, type AnswerResult, type Box, type DeviceWish, type Task } from "../engine/index.js";
import { renderComposer, taskOf } from "./composer.js";
import { Drawing } from "./draw.js";
import { emit } from "./events.js";
import { renderGate } from "./gate.js";
import { Highlight } from "./highlight.js";
import { firstKey, renderPhoto } from "./photo-view.js";
import { Session, type Maker, type Settings } from "./session.js";
import { styles } from "./styles/index.js";
import { renderTranscript, spoken } from "./transcript.js";
import { IDEAS, TASKS, type TaskName } from "./words.js";

/**
 * A photo that can be asked about, in the reader's own browser.
 *
 * @summary Ask about a photo; the answer's phrases are tied to boxes on it.
 * @slot poster - Shown in place of the invitation while no photo is chosen.
 * @slot fallback - Shown where the browser can't run the element at all.
 * @slot toolbar - Above the conversation.
 * @slot samples - Below the invitation to choose a photo.
 * @csspart photo - The photo.
 * @csspart box - A box on the photo.
 * @csspart label - A box's number.
 * @csspart answer - An answer.
 * @csspart phrase - A phrase that is tied to boxes.
 * @csspart question - A question, and where it is typed.
 * @csspart progress - The loading panel.
 * @csspart button - The main buttons.
 * @cssproperty --groma-accent - The colour of what can be pressed.
 * @cssproperty --groma-font - The typeface.
 * @fires groma-progress - How far loading is.
 * @fires groma-ready - The model is ready.
 * @fires groma-regions - The photo was looked at.
 * @fires groma-segment - A piece of an answer.
 * @fires groma-answer - A whole answer.
 * @fires groma-error - A failure.
 */
export class GromaChat extends LitElement {
  static override styles = styles;
  static override shadowRootOptions: ShadowRootInit = {
    ...LitElement.shadowRootOptions,
    delegatesFocus: false,
  };

  /** A pack's folder or its model.json. */
  @property() model = "";
  /** The photo's address. Without it the reader chooses one. */
  @property() src = "";
  /** What is on the photo, for those who don't see it. */
  @property() alt = "";
  /** A question that stands ready. */
  @property() question = "";
  /** "auto", "gpu" or "cpu". */
  @property() device: DeviceWish = "auto";
  /** "interaction" (a press of the button), "visible" or "eager". */
  @property() load: "interaction" | "visible" | "eager" = "interaction";
  /** Which tasks to offer, separated by spaces. */
  @property() tasks: string = TASKS.join(" ");
  /** The longest answer in tokens. */
  @property({ attribute: "max-tokens", type: Number }) maxTokens = 256;
  /** Whether only the given question can be asked of the given photo. */
  @property({ type: Boolean }) readonly = false;
  /** How the cpu device computes; "exact" is what equality with the command line is claimed for. */
  @property() numerics: "exact" | "fast" = "fast";

  /** Makes engines; only tests set it. */
  @property({ attribute: false }) maker: Maker | undefined;

  @state() private task: TaskName = "ask";
  @state() private words = "";
  @state() private shownTurn = 0;
  @state() private showAll = false;
  @state() private focusable = "";
  @state() private size = { width: 0, height: 0 };
  @state() private said = "";
  @state() private dropping = false;

  @query(".frame") private frame!: HTMLElement | null;
  @query(".log") private log!: HTMLElement | null;
  @query("input[type=file]") private picker!: HTMLInputElement | null;

  readonly #highlight = new Highlight(this);
  readonly #drawing = new Drawing(
    this,
    () => {
      const { frame } = this;
      return frame ? { ...this.#photoSize(), rect: () => frame.getBoundingClientRect() } : undefined;
    },
    (text) => (this.said = text),
  );
  #session: Session | undefined;
  #visible: IntersectionObserver | undefined;
  #follow = true;

  override connectedCallback(): void {
    super.connectedCallback();
    this.addEventListener("dragover", this.#dragOver);
    this.addEventListener("dragleave", this.#dragLeave);
    this.addEventListener("drop", this.#drop);
  }

  override disconnectedCallback(): void {
    super.disconnectedCallback();
    this.removeEventListener("dragover", this.#dragOver);
    this.removeEventListener("dragleave", this.#dragLeave);
    this.removeEventListener("drop", this.#drop);
    this.#visible?.disconnect();
    // Moving an element disconnects and connects it in one go: only who stays out gives back.
    queueMicrotask(() => {
      if (this.isConnected) return;
      void this.#session?.destroy();
      this.#session = undefined;
    });
  }

  /** Shows a photo, looks at it when there is a model, and begins a new conversation. */
  async open(photo: Blob, name = "photo"): Promise<void> {
    this.#drawing.clear();
    this.#highlight.clear();
    this.shownTurn = 0;
    this.showAll = false;
    this.size = { width: 0, height: 0 };
    await this.#ready().choose(photo, name);
  }

  /** Asks a question; boxes are what it speaks of as [1], [2] … */
  ask(question: string, refer: readonly Box[] = []): Promise<AnswerResult | undefined> {
    return this.#run({ kind: "ask", question, grounded: true, refer });
  }

  /** Finds everything of a kind. */
  detect(label: string): Promise<AnswerResult | undefined> {
    return this.#run({ kind: "detect", label });
  }

  /** Finds the one that a phrase describes. */
  locate(phrase: string): Promise<AnswerResult | undefined> {
    return this.#run({ kind: "locate", phrase });
  }

  /** Describes what is in a box. */
  caption(box: Box): Promise<AnswerResult | undefined> {
    return this.#run({ kind: "caption", box, long: false });
  }

  /** Stops the answer that is going on; what was said stays. */
  stop(): void {
    this.#session?.stop();
  }

  protected override willUpdate(changed: PropertyValues<this>): void {
    if (changed.has("question")) this.words = this.question;
  }

  protected override updated(changed: PropertyValues<this>): void {
    if (changed.has("model") || changed.has("device") || changed.has("load")) {
      // A session reports its state by an update of its own, which may not begin within this one.
      queueMicrotask(() => void this.#offer());
    }
    if (changed.has("src") && this.src) queueMicrotask(() => void this.#openSource());
    const { log } = this;
    if (log && this.#follow) log.scrollTop = log.scrollHeight;
    if (this.#drawing.keyed) this.renderRoot.querySelector<HTMLElement>("#draft")?.focus();
  }

  protected override render(): TemplateResult {
    const session = this.#session;
    const chosen = session?.chosen;
    return html`
      <div class=${`shell${chosen ? " has-photo" : ""}`}>
        <div class="bar"><slot name="toolbar"></slot></div>
        <section class="stage" aria-label="Photo">
          ${chosen ? this.#renderPhoto() : this.#renderInvitation()}
        </section>
        <section class="talk" aria-label="Conversation">
          <div
            class="log"
            role="log"
            aria-live="off"
            aria-label="Questions and answers"
            tabindex="0"
            @scroll=${(event: Event) => {
              const log = event.target as HTMLElement;
              this.#follow = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
            }}
          >
            ${
              session
                ? renderTranscript({
                    turns: session.turns,
                    highlight: this.#highlight,
                    onShow: (turn) => (this.shownTurn = turn),
                  })
                : nothing
            }
            ${session?.turns.length === 0 ? this.#renderHint() : nothing}
            ${
              session && session.turns.length > 0 && !session.busy && !this.readonly
                ? html`<button type="button" class="quiet anew" @click=${() => void session.reset()}>
                    New conversation
                  </button>`
                : nothing
            }
          </div>
          ${this.#renderFoot()}
        </section>
        <input type="file" accept="image/*" hidden @change=${this.#picked} />
        <div class="unseen" aria-live="polite">${this.said}</div>
        ${this.dropping ? html`<div class="drop" aria-hidden="true">Drop the photo here</div>` : nothing}
      </div>
    `;
  }

  #renderInvitation(): TemplateResult {
    return html`<slot name="poster">
        <div class="invitation">
          <svg class="mark" viewBox="0 0 48 48" aria-hidden="true">
            <path
              d="M6 14V8a2 2 0 0 1 2-2h6M34 6h6a2 2 0 0 1 2 2v6M42 34v6a2 2 0 0 1-2 2h-6M14 42H8a2 2 0 0 1-2-2v-6"
            />
            <circle cx="24" cy="24" r="4" />
            <path d="M24 13v5M24 30v5M13 24h5M30 24h5" />
          </svg>
          <h2>Choose a photo to ask about</h2>
          <p class="muted">Drop one here, paste it, or pick a file.</p>
          <button type="button" class="primary" part="button" @click=${() => this.picker?.click()}>
            Choose a photo
          </button>
        </div>
      </slot>
      <slot name="samples"></slot>`;
  }

  #renderPhoto(): TemplateResult {
    const session = this.#session;
    const chosen = session?.chosen;
    if (!session || !chosen) return html``;
    const turn = session.turns.find((t) => t.id === this.shownTurn) ?? session.turns.at(-1);
    const tied = turn?.segments.some((s) => s.regions.length > 0) ?? false;
    const regions = chosen.photo?.regions.length ?? 0;
    return html`
      <div class="pane" @keydown=${this.#drawing.keyDown}>
        ${renderPhoto({
          chosen,
          alt: this.alt,
          turn,
          showAll: this.showAll,
          drawing: this.#drawing,
          highlight: this.#highlight,
          focusable: this.focusable || firstKey({ chosen, turn }),
          onFocus: (key) => (this.focusable = key),
          onSize: (width, height) => (this.size = { width, height }),
          size: this.#photoSize(),
        })}
      </div>
      <div class="tools">
        <span class="status muted small">${this.#status(regions)}</span>
        ${
          tied && regions > 0
            ? html`<button
                type="button"
                class="quiet"
                aria-pressed=${this.showAll ? "true" : "false"}
                @click=${() => (this.showAll = !this.showAll)}
              >
                All boxes
              </button>`
            : nothing
        }
        <button
          type="button"
          class="quiet"
          aria-pressed=${this.#drawing.armed ? "true" : "false"}
          ?disabled=${this.readonly}
          @click=${(event: MouseEvent) => {
            // A press of Enter or Space has no clicks to count.
            if (event.detail === 0 && !this.#drawing.armed) this.#drawing.beginWithKeys();
            else this.#drawing.toggle();
          }}
        >
          Draw a box
        </button>
        ${
          this.readonly
            ? nothing
            : html`<button type="button" class="quiet" @click=${() => this.picker?.click()}>
                New photo
              </button>`
        }
      </div>
    `;
  }

  /** As the engine sees it, else as the browser shows it. */
  #photoSize(): { readonly width: number; readonly height: number } {
    return this.#session?.chosen?.photo ?? this.size;
  }

  #status(regions: number): string {
    const chosen = this.#session?.chosen;
    if (this.#drawing.keyed) return "Arrows move, Shift resizes, Enter takes it";
    if (this.#drawing.armed) return "Drag over the photo, or click two corners";
    if (chosen?.error) return "";
    if (chosen?.looking) {
      const { done, total } = chosen.looking;
      return total > 0
        ? `Looking at the photo … ${Math.round((done / total) * 100)} %`
        : "Looking at the photo …";
    }
    if (chosen?.photo) return regions === 1 ? "1 region" : `${regions} regions`;
    return "";
  }

  #renderHint(): TemplateResult | typeof nothing {
    const session = this.#session;
    const error = session?.chosen?.error;
    if (error) return html`<p class="problem" role="alert">${error.message}</p>`;
    if (session?.chosen?.photo) {
      return html`<div class="welcome">
        <p class="muted">
          Ask anything about the photo. Phrases of the answer are tied to numbered boxes: point at one to see
          the other. To ask about a place, draw a box on the photo.
        </p>
        <div class="ideas">
          ${IDEAS.filter((idea) => this.tasks.includes(idea.task.kind)).map(
            (idea) =>
              html`<button type="button" class="idea" @click=${() => void this.#run(idea.task)}>
                ${idea.words}
              </button>`,
          )}
        </div>
      </div>`;
    }
    return html`<p class="welcome muted">
      Groma looks at a photo and answers questions about it. What it speaks of, it shows: each phrase is tied
      to boxes on the photo.
    </p>`;
  }

  #renderFoot(): TemplateResult | typeof nothing {
    const session = this.#session;
    if (!session) return nothing;
    if (session.model.state !== "ready") {
      return renderGate({
        model: session.model,
        device: session.device,
        onLoad: () => void session.load(),
        onCancel: () => session.cancelLoading(),
        onRetry: () => void session.load(),
      });
    }
    const offered = this.tasks.split(/\s+/);
    return renderComposer({
      tasks: TASKS.filter((task) => offered.includes(task)),
      task: this.task,
      words: this.words,
      boxes: this.#drawing.boxes,
      busy: session.busy,
      ready: session.chosen?.photo !== undefined,
      hint: session.chosen ? "" : "Choose a photo first.",
      onTask: (task) => (this.task = task),
      onWords: (words) => (this.words = words),
      onRemoveBox: (at) => this.#drawing.remove(at),
      onSend: () => this.#send(),
      onStop: () => session.stop(),
    });
  }

  #send(): void {
    const task = taskOf(this.task, this.words, this.#drawing.boxes);
    if (!task) return;
    this.words = "";
    this.#drawing.clear();
    void this.#run(task);
  }

  async #run(task: Task): Promise<AnswerResult | undefined> {
    this.#highlight.clear();
    this.shownTurn = 0;
    this.focusable = "";
    this.#follow = true;
    return this.#ready().ask(task);
  }

  /** The session; made late, so that properties set before the first update count. */
  #ready(): Session {
    this.#session ??= new Session(
      {
        changed: () => this.requestUpdate(),
        progress: (progress) => emit(this, "groma-progress", progress),
        ready: (groma) => {
          this.said = "The model is ready.";
          emit(this, "groma-ready", groma.info);
        },
        regions: (regions) => {
          this.said = `${regions.length} regions found on the photo.`;
          emit(this, "groma-regions", { regions });
        },
        segment: (turn, segment) => emit(this, "groma-segment", { turn: turn.id, segment }),
        answered: (turn) => {
          this.said = spoken(turn);
          if (turn.result)
            emit(this, "groma-answer", { turn: turn.id, task: turn.task, result: turn.result });
        },
        failed: (error) => emit(this, "groma-error", { error }),
      },
      this.#settings(),
      this.maker,
    );
    return this.#session;
  }

  #settings(): Settings {
    const { model, device, maxTokens, numerics } = this;
    return { model: model || "model.json", device, maxTokens, numerics };
  }

  async #offer(): Promise<void> {
    if (!this.model || !this.isConnected) return;
    const session = this.#ready();
    await session.offer(this.#settings());
    if (session.model.state !== "offered") return;
    if (this.load === "eager") await session.load();
    if (this.load === "visible") {
      this.#visible?.disconnect();
      this.#visible = new IntersectionObserver((entries) => {
        if (!entries.some((entry) => entry.isIntersecting)) return;
        this.#visible?.disconnect();
        void session.load();
      });
      this.#visible.observe(this);
    }
  }

  async #openSource(): Promise<void> {
    const { src } = this;
    try {
      const response = await fetch(src);
      if (!response.ok) throw new Error(`its host answered ${response.status}`);
      const blob = await response.blob();
      if (src === this.src)
        await this.open(blob, this.alt || decodeURIComponent(src.split("/").pop() ?? "photo"));
    } catch (cause) {
      const error = new GromaError("image-unreadable", `The photo could not be fetched: ${String(cause)}`, {
        src,
      });
      emit(this, "groma-error", { error });
      this.said = error.message;
    }
  }

  readonly #picked = (): void => {
    const file = this.picker?.files?.[0];
    if (file) void this.open(file, file.name);
    if (this.picker) this.picker.value = "";
  };

  readonly #dragOver = (event: DragEvent): void => {
    if (this.readonly || !event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    this.dropping = true;
  };

  readonly #dragLeave = (event: DragEvent): void => {
    if (!event.relatedTarget) this.dropping = false;
  };

  readonly #drop = (event: DragEvent): void => {
    this.dropping = false;
    const file = event.dataTransfer?.files[0];
    if (this.readonly || !file) return;
    event.preventDefault();
    void this.open(file, file.name);
  };
}

declare global {
  interface HTMLElementTagNameMap {
    "groma-chat": GromaChat;
  }
}
