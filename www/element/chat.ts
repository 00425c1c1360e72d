/** The element's class. `groma-chat.ts` defines it. */

import { html, LitElement, nothing, type PropertyValues, type TemplateResult } from "lit";
import { property, query, state } from "lit/decorators.js";
import type { AnswerResult, Box, DeviceWish, GromaError, Task } from "../engine/index.js";
import { Announcer } from "./announce.js";
import type { Size } from "./boxes.js";
import { renderComposer, taskOf } from "./composer.js";
import { Drawing } from "./draw.js";
import { emit } from "./events.js";
import { keepFocus } from "./focus.js";
import { renderGate } from "./gate.js";
import { Highlight } from "./highlight.js";
import { Intake } from "./intake.js";
import { keepKey } from "./keys.js";
import { Life, type Wishes } from "./life.js";
import type { Chosen, Listener, Maker, Session, Turn } from "./session.js";
import { renderInvitation, renderStage } from "./stage.js";
import { styles } from "./styles/index.js";
import { renderTranscript, spokenEnd, spokenSegment } from "./transcript.js";
import { waysOn, type Way } from "./ways.js";
import { renderWelcome } from "./welcome.js";
import { TASKS, type TaskName } from "./words.js";
import { Zoom } from "./zoom.js";

/** The longest answer in tokens, unless told. */
const MAX_TOKENS = 256;

/** What counts where an attribute is taken away, or a program sets nothing. */
const DEFAULTS = {
  model: "",
  smaller: "",
  src: "",
  alt: "",
  question: "",
  task: "ask",
  device: "auto",
  load: "interaction",
  tasks: TASKS.join(" "),
  numerics: "fast",
  lang: "",
} as const satisfies Partial<GromaChat>;

/**
 * A photo that can be asked about, in the reader's own browser.
 *
 * @tag groma-chat
 * @summary Ask about a photo; the answer's phrases are tied to boxes on it.
 * @slot poster - Shown in place of the invitation while no photo is chosen.
 * @slot fallback - Shown where the browser can't run the model on the wanted device, and before the element is defined.
 * @slot toolbar - Above the conversation.
 * @slot samples - Below the invitation to choose a photo.
 * @csspart photo - The photo.
 * @csspart box - A region's box on the photo.
 * @csspart label - A box's number.
 * @csspart answer - An answer.
 * @csspart phrase - A phrase that is tied to boxes.
 * @csspart question - A question, and where it is typed.
 * @csspart progress - The loading panel.
 * @csspart button - The main buttons.
 * @cssproperty --groma-accent - The colour of what can be pressed.
 * @cssproperty --groma-on-accent - The colour of words on the accent.
 * @cssproperty --groma-paper - The ground behind the photo.
 * @cssproperty --groma-surface - The ground behind the conversation.
 * @cssproperty --groma-ink - The colour of words.
 * @cssproperty --groma-soft - The colour of lesser words.
 * @cssproperty --groma-line - The colour of lines.
 * @cssproperty --groma-font - The typeface.
 * @cssproperty --groma-font-size - The size of words, to which all else is in proportion; what the reader set in the browser unless told.
 * @cssproperty --groma-radius - How round corners are.
 * @cssproperty --groma-min-height - The least height; 30 times the size of words unless told.
 * @fires {CustomEvent<LoadProgress>} groma-progress - How far loading is.
 * @fires {CustomEvent<Info>} groma-ready - The model is ready.
 * @fires {CustomEvent<{ regions: Region[] }>} groma-regions - The photo was looked at.
 * @fires {CustomEvent<{ turn: number, segment: Segment }>} groma-segment - A piece of an answer.
 * @fires {CustomEvent<{ turn: number, task: Task, result: AnswerResult }>} groma-answer - A whole answer.
 * @fires {CustomEvent<{ error: GromaError }>} groma-error - A failure; the element shows it as well.
 */
export class GromaChat extends LitElement {
  /** @internal */
  static override styles = styles;

  /** A pack's folder or its model.json. */
  @property() model = "";
  /** A smaller pack's address, offered where there is no memory or no storage for the model. */
  @property() smaller = "";
  /** The photo's address. Without it the reader chooses one. */
  @property() src = "";
  /** What is on the photo, for those who don't see it. */
  @property() alt = "";
  /** The question that stands ready; as a property, what stands in the field now. */
  @property() question = "";
  /** The task that stands ready: "ask", "detect", "locate", "caption" or "describe". */
  @property() task: TaskName = "ask";
  /** "auto", "gpu" or "cpu". */
  @property() device: DeviceWish = "auto";
  /** When to begin: "interaction" (a press of the button), "visible" or "eager". Only "eager" downloads unasked. */
  @property() load: "interaction" | "visible" | "eager" = "interaction";
  /** Which tasks to offer, separated by spaces. @default "ask detect locate caption describe" */
  @property() tasks: string = TASKS.join(" ");
  /** The longest answer in tokens. @default 256 */
  @property({ attribute: "max-tokens", type: Number }) maxTokens = MAX_TOKENS;
  /** Whether only the given question can be asked of the given photo. */
  @property({ type: Boolean }) readonly = false;
  /** How the cpu device computes; "exact" is what equality with the command line is claimed for. */
  @property() numerics: "exact" | "fast" = "fast";

  /** The language of the photo's description, the questions and the answers: English unless told. The element's own words are English. */
  @property({ reflect: true, useDefault: true }) override lang = "";

  /** Makes engines; only tests set it. @internal */
  @property({ attribute: false }) maker: Maker | undefined;

  @state() private shownTurn = 0;
  @state() private showAll = false;
  @state() private focusable = "";
  @state() private size: Size = { width: 0, height: 0 };
  @state() private inviting = false;

  @query(".frame") private frame!: HTMLElement | null;
  @query(".log") private log!: HTMLElement | null;
  @query("input[type=file]") private picker!: HTMLInputElement | null;

  readonly #announcer = new Announcer(this);
  readonly #highlight = new Highlight(this);
  readonly #drawing = new Drawing(this, {
    size: () => this.#photoSize(),
    rect: () => this.frame?.getBoundingClientRect(),
    // What is to be focused may only be drawn by the next update.
    focus: (target) => {
      this.#focus = target;
      this.requestUpdate();
    },
    announce: this.#announcer.say,
    closed: () => this.readonly,
  });
  readonly #zoom = new Zoom(
    this,
    () => this.frame,
    () => this.#drawing.release(),
    this.#announcer.say,
  );
  readonly #intake = new Intake(
    this,
    () => this.readonly,
    (photo) => void this.open(photo, photo.name),
  );
  readonly #life = new Life(
    this,
    () => this.#wishes(),
    this.#listener(),
    () => this.#forget(),
  );
  #focus: number | "button" | "question" | undefined;
  #follow = true;
  /** What is asked as soon as the photo was looked at. */
  #next: Task | undefined;

  constructor() {
    super();
    keepFocus(this);
  }

  /** The boxes that the next question speaks of as [1], [2] …, in pixels of the photo. */
  @property({ attribute: false })
  get boxes(): readonly Box[] {
    return this.#drawing.boxes;
  }

  set boxes(boxes: readonly Box[] | null | undefined) {
    this.#drawing.boxes = boxes ?? [];
    if (this.#photoSize().width > 0) this.#drawing.fit();
  }

  /** The photo that is open, and what was found on it. */
  get photo(): Chosen | undefined {
    return this.#life.session?.chosen;
  }

  /** The conversation about the photo. */
  get turns(): readonly Turn[] {
    return this.#life.session?.turns ?? [];
  }

  /** Shows a photo and begins a new conversation. Looks at it when the model is on this device. */
  open(photo: Blob, name = "photo"): Promise<void> {
    return this.#life.open(photo, name);
  }

  /** Asks a question; boxes are what it speaks of as [1], [2] … Nothing is asked before a photo was looked at. */
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
    this.#life.session?.stop();
  }

  protected override willUpdate(changed: PropertyValues<this>): void {
    for (const name of Object.keys(DEFAULTS) as (keyof typeof DEFAULTS)[]) {
      // Whatever its type says: attributes that are taken away give null, frameworks set undefined.
      if ((this[name] as string | null | undefined) == null) Object.assign(this, { [name]: DEFAULTS[name] });
      if (changed.get(name) === this[name]) changed.delete(name);
    }
  }

  protected override updated(changed: PropertyValues<this>): void {
    const first = changed.has("model") && changed.get("model") === undefined;
    const another = changed.has("model") || changed.has("device") || changed.has("numerics");
    if (another || changed.has("load")) {
      const other = !first && another;
      if (other) queueMicrotask(() => this.#unmark());
      // A session reports its state by an update of its own, which may not begin within this one.
      queueMicrotask(() => void this.#life.offer(other));
    }
    // None at first is no wish to close what `open` has shown already.
    if (changed.has("src") && (this.src || changed.get("src"))) {
      queueMicrotask(() => void this.#life.openSource());
    }
    const { log } = this;
    if (log && this.#follow) log.scrollTop = log.scrollHeight;
    this.#moveFocus();
  }

  protected override render(): TemplateResult {
    const chosen = this.photo;
    const { session } = this.#life;
    const open = session && chosen && !this.inviting;
    return html`
      <div
        class=${`shell${open ? " has-photo" : ""}`}
        lang="en"
        @keydown=${keepKey}
        @keypress=${keepKey}
        @keyup=${keepKey}
      >
        <div class="bar"><slot name="toolbar"></slot></div>
        <div class="stage" role="group" aria-label="Photo">
          ${
            open
              ? this.#renderStage(session, chosen)
              : renderInvitation({
                  readonly: this.readonly,
                  onPick: () => this.picker?.click(),
                  onBack: chosen ? () => (this.inviting = false) : undefined,
                })
          }
        </div>
        <div class="talk" role="group" aria-label="Conversation">
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
            ${this.#renderLog(session)}
          </div>
          ${this.#renderFoot(session)}
        </div>
        <input type="file" accept="image/*" hidden @change=${this.#intake.picked} />
        ${this.#announcer.render()}
        ${this.#intake.hovering ? html`<div class="drop" aria-hidden="true">Drop the photo here</div>` : nothing}
      </div>
    `;
  }

  #renderStage(session: Session, chosen: Chosen): TemplateResult {
    const turn = session.turns.find((t) => t.id === this.shownTurn) ?? session.turns.at(-1);
    return renderStage({
      chosen,
      alt: this.#life.fromSource ? this.alt : "",
      lang: this.lang,
      turn,
      tied: turn?.segments.some((s) => s.regions.length > 0) ?? false,
      showAll: this.showAll,
      readonly: this.readonly,
      drawing: this.#drawing,
      highlight: this.#highlight,
      zoom: this.#zoom,
      focusable: this.focusable,
      size: this.#photoSize(),
      onFocus: (key) => (this.focusable = key),
      onSize: (width, height) => {
        this.size = { width, height };
        this.#drawing.fit();
      },
      onShowAll: () => (this.showAll = !this.showAll),
      onLookAgain: () => void session.lookAgain(),
      onNewPhoto: () => (this.inviting = true),
    });
  }

  #renderLog(session: Session | undefined): TemplateResult {
    const turns = session?.turns ?? [];
    const may = !this.readonly && !session?.busy;
    const error = this.#life.error ?? session?.chosen?.error;
    return html`${renderTranscript({
      turns,
      lang: this.lang,
      highlight: this.#highlight,
      onShow: (turn) => (this.shownTurn = turn),
      onAgain: session?.chosen?.photo && may ? (task) => void this.#run(task) : undefined,
      ways: (task, why) => this.#ways(why, task),
    })}${
      turns.length === 0
        ? renderWelcome({
            error,
            ways: this.#ways(error),
            looked: session?.chosen?.photo !== undefined,
            tasks: this.#offered(),
            readonly: this.readonly,
            onIdea: (task) => void this.#run(task),
          })
        : nothing
    }${
      session && turns.length > 0 && !session.busy
        ? html`<button
            type="button"
            class="quiet anew"
            @click=${() => {
              this.#unmark();
              void session.reset();
            }}
          >
            New conversation
          </button>`
        : nothing
    }`;
  }

  #renderFoot(session: Session | undefined): TemplateResult | typeof nothing {
    if (session?.model.state !== "ready") {
      const model = session?.model ?? { state: "unknown" };
      return renderGate({
        model,
        address: this.model,
        device: session?.device,
        onLoad: () => void session?.load(),
        onCancel: () => session?.cancelLoading(),
        onRetry: () => void session?.retry(),
        ways: this.#ways(model.state === "failed" ? model.error : undefined),
      });
    }
    return renderComposer({
      tasks: this.#offered(),
      task: this.#task(),
      words: this.question,
      lang: this.lang,
      boxes: this.boxes,
      readonly: this.readonly,
      busy: session.busy,
      ready: session.chosen?.photo !== undefined,
      hint: session.chosen ? "" : "Choose a photo first.",
      onTask: (task) => (this.task = task),
      onWords: (words) => (this.question = words),
      onRemoveBox: (at) => this.#drawing.remove(at),
      onSend: () => this.#send(),
      onStop: () => session.stop(),
    });
  }

  /** As the engine sees it, else as the browser shows it. */
  #photoSize(): Size {
    return this.photo?.photo ?? this.size;
  }

  #offered(): readonly TaskName[] {
    const wanted = this.tasks.split(/\s+/);
    return TASKS.filter((task) => wanted.includes(task));
  }

  /** The chosen task, where it is offered. */
  #task(): TaskName {
    const offered = this.#offered();
    return offered.includes(this.task) ? this.task : (offered[0] ?? "ask");
  }

  #send(): void {
    const task = taskOf(this.#task(), this.question, this.boxes);
    if (!task) return;
    if (!this.readonly) {
      this.question = "";
      this.#drawing.clear();
    }
    void this.#run(task);
  }

  async #run(task: Task): Promise<AnswerResult | undefined> {
    this.#unmark();
    this.#follow = true;
    return this.#life.ready().ask(task);
  }

  /** Ways on where the model could not; a task is then put once more. */
  #ways(error: GromaError | undefined, task?: Task): readonly Way[] {
    const { session } = this.#life;
    if (!error || !session) return [];
    return waysOn(error, session, this, (change) => {
      this.#next = task;
      this.#life.allow();
      Object.assign(this, change);
    });
  }

  /** No box stands out any more, and Tab reaches the first one: the conversation is another. */
  #unmark(): void {
    this.#highlight.clear();
    this.shownTurn = 0;
    this.focusable = "";
  }

  /** Before another photo: what belonged to the old one goes. Boxes that were set before there was any are the new one's. */
  #forget(): void {
    if (this.photo) this.#drawing.clear();
    else this.#drawing.cancel();
    this.#unmark();
    this.#zoom.reset();
    this.#next = undefined;
    this.showAll = false;
    this.inviting = false;
    this.size = { width: 0, height: 0 };
  }

  /** Moves the focus to what has just been drawn. */
  #moveFocus(): void {
    const target = this.#focus;
    if (target === undefined) return;
    this.#focus = undefined;
    const places = { button: ".draw", question: ".line input, .line button" };
    const place = typeof target === "number" ? `#drawn-${target}` : places[target];
    this.renderRoot.querySelector<HTMLElement>(place)?.focus();
  }

  #listener(): Listener {
    const { say } = this.#announcer;
    return {
      changed: () => this.requestUpdate(),
      progress: (progress) => emit(this, "groma-progress", progress),
      ready: ({ info }) => {
        say("The model is ready.");
        emit(this, "groma-ready", info);
      },
      regions: (regions) => {
        say(`${regions.length} regions found on the photo.`);
        emit(this, "groma-regions", { regions });
        const task = this.#next;
        this.#next = undefined;
        if (task) void this.#run(task);
      },
      segment: (turn, segment) => {
        // Tokens would make a screen reader stutter: it gets whole pieces.
        if (segment.closed) say(spokenSegment(segment), this.lang);
        emit(this, "groma-segment", { turn: turn.id, segment });
      },
      answered: (turn) => {
        say(spokenEnd(turn));
        const { id, task, result } = turn;
        if (result) emit(this, "groma-answer", { turn: id, task, result });
      },
      failed: (error) => emit(this, "groma-error", { error }),
    };
  }

  #wishes(): Wishes {
    const { model, src, alt, load, maker, maxTokens, numerics } = this;
    const device = this.device === "gpu" || this.device === "cpu" ? this.device : "auto";
    const longest = maxTokens >= 1 ? Math.floor(maxTokens) : MAX_TOKENS;
    return { model, src, alt, load, maker, settings: { model, device, numerics, maxTokens: longest } };
  }
}

declare global {
  interface HTMLElementTagNameMap {
    "groma-chat": GromaChat;
  }
}
