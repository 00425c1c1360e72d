/** What the element knows: the model, the photo, the conversation. No DOM; whoever shows it is told of every change. */

import {
  chooseDevice,
  DownloadProgressEvent,
  Groma,
  GromaError,
  type Answer,
  type AnswerResult,
  type CreateOptions,
  type DeviceChoice,
  type DeviceWish,
  type Info,
  type LoadProgress,
  type ModelSize,
  type OpenOptions,
  type Photo,
  type Region,
  type Segment,
  type Task,
} from "../engine/index.js";

/** The part of a photo that the element uses. */
export type OpenPhoto = Pick<Photo, "width" | "height" | "regions" | "run" | "reset" | "close">;

/** The part of the engine that the element uses. */
export interface OpenModel extends Pick<Groma, "info" | "destroy"> {
  open(photo: Blob, options: OpenOptions): Promise<OpenPhoto>;
}

/** The model as the page shows it. */
export type ModelState =
  | { readonly state: "unknown" }
  | ({ readonly state: "offered" } & ModelSize)
  | { readonly state: "loading"; readonly progress?: LoadProgress }
  | { readonly state: "ready"; readonly groma: OpenModel }
  /** `agreed`: whether the reader had agreed to the download already. */
  | { readonly state: "failed"; readonly error: GromaError; readonly agreed: boolean };

/** A photo that was chosen; `photo` is there once it was looked at. */
export interface Chosen {
  readonly blob: Blob;
  readonly url: string;
  readonly name: string;
  readonly looking?: { readonly done: number; readonly total: number };
  readonly photo?: OpenPhoto;
  /** Looking was stopped; it can begin again. */
  readonly halted?: boolean;
  readonly error?: GromaError;
}

/** A question and its answer. */
export interface Turn {
  readonly id: number;
  readonly task: Task;
  readonly state: "waiting" | "answering" | "done" | "stopped" | "failed";
  readonly segments: readonly Segment[];
  readonly result?: AnswerResult;
  readonly error?: GromaError;
  /** Milliseconds from question to end. */
  readonly took?: number;
}

/** Told what happened, after the state has changed. */
export interface Listener {
  changed(): void;
  progress?(progress: LoadProgress): void;
  ready?(groma: OpenModel): void;
  regions?(regions: readonly Region[]): void;
  segment?(turn: Turn, segment: Segment): void;
  answered?(turn: Turn): void;
  failed?(error: GromaError): void;
}

/** Where the model is and how it is to run. */
export interface Settings {
  readonly model: string;
  readonly device: DeviceWish;
  readonly maxTokens: number;
  readonly numerics?: "exact" | "fast";
}

/** Makes engines; tests put something else in its place. */
export interface Maker {
  create(options: CreateOptions): Promise<OpenModel>;
  size(options: { model: string }): Promise<ModelSize>;
  choose(wish: DeviceWish): Promise<DeviceChoice>;
}

// A wasm module's memory has 4 GiB at most, of which browsers don't give all, and reading takes some.
const PROCESSOR_MAX = 3e9;

/** Whether a model that takes these bytes can run on the processor. */
export function fitsProcessor(memory: number): boolean {
  return memory <= PROCESSOR_MAX;
}

const maker: Maker = {
  create: (options) => Groma.create(options),
  size: (options) => Groma.size(options),
  choose: chooseDevice,
};

/** One model, one photo, one conversation. */
export class Session {
  model: ModelState = { state: "unknown" };
  device: DeviceChoice | undefined;
  chosen: Chosen | undefined;
  turns: readonly Turn[] = [];
  readonly #listener: Listener;
  readonly #maker: Maker;
  #settings: Settings;
  /** Bytes that the model takes while it works, once they are known. */
  #memory = 0;
  /** What was said to run. */
  #info: Info | undefined;
  #loading: AbortController | undefined;
  #opening: AbortController | undefined;
  #answering: AbortController | undefined;
  #nextTurn = 1;
  #destroyed = false;

  constructor(listener: Listener, settings: Settings, make: Maker = maker) {
    this.#listener = listener;
    this.#settings = settings;
    this.#maker = make;
  }

  /** Takes what changed for the next question and the next load. */
  configure(settings: Settings): void {
    this.#settings = settings;
  }

  /** Finds out which device would be used, and whether and how large the model is. Downloads nothing. */
  async offer(): Promise<void> {
    if (this.model.state !== "unknown" && this.model.state !== "failed") return;
    const settings = this.#settings;
    const { device: wish, model } = settings;
    try {
      // Both, whatever becomes of one: a model that is too large for the processor is no way on where there is no GPU.
      const [device, size] = await Promise.allSettled([
        this.#maker.choose(wish),
        this.#maker.size({ model }),
      ]);
      if (this.#moved(settings)) return;
      if (size.status === "fulfilled") this.#memory = size.value.memory;
      if (device.status === "rejected") throw device.reason;
      if (size.status === "rejected") throw size.reason;
      this.device = device.value;
      this.#setModel({ state: "offered", ...size.value });
    } catch (error) {
      if (!this.#moved(settings)) this.#fail(error, false);
    }
  }

  /** Tries again what failed. */
  async retry(): Promise<void> {
    if (this.model.state !== "failed") return;
    if (this.model.agreed) {
      await this.load();
      return;
    }
    this.#setModel({ state: "unknown" });
    await this.offer();
  }

  /** Starts a model that is on this device already: no download, so nobody needs to be asked. */
  async startCached(): Promise<void> {
    if (this.model.state === "offered" && this.model.missing === 0) await this.load();
  }

  /** Gives the model back, because another one or another device is wanted. The photo stays, the conversation ends. */
  async leaveModel(): Promise<void> {
    this.#loading?.abort();
    this.stop();
    // Looking ends with its model; it was not stopped by anyone.
    this.#opening = undefined;
    this.turns = [];
    const old = this.model;
    if (this.chosen) this.chosen = bare(this.chosen);
    this.device = undefined;
    this.#setModel({ state: "unknown" });
    if (old.state === "ready") await old.groma.destroy();
  }

  /** Downloads what is missing and makes the model ready; then looks at the photo. */
  async load(): Promise<void> {
    if (this.model.state === "loading" || this.model.state === "ready") return;
    const loading = new AbortController();
    this.#loading = loading;
    this.#setModel({ state: "loading" });
    const settings = this.#settings;
    const { model, device, numerics } = settings;
    try {
      const groma = await this.#maker.create({
        model,
        device,
        signal: loading.signal,
        debug: numerics ? { numerics } : {},
        monitor: (target) =>
          target.addEventListener("downloadprogress", (event) => {
            if (!(event instanceof DownloadProgressEvent) || loading.signal.aborted) return;
            const progress = event.detail;
            this.#setModel({ state: "loading", progress });
            this.#listener.progress?.(progress);
          }),
      });
      if (loading.signal.aborted) await groma.destroy();
      loading.signal.throwIfAborted();
      this.#setModel({ state: "ready", groma });
      this.#tellDevice(groma);
      await this.#look();
    } catch (error) {
      if (!loading.signal.aborted) {
        this.#fail(error, true);
        return;
      }
      if (this.#moved(settings)) return;
      this.#setModel({ state: "unknown" });
      void this.offer();
    }
  }

  /** Gives up loading; what has arrived is kept. */
  cancelLoading(): void {
    this.#loading?.abort();
  }

  /** Shows a photo and looks at it as soon as there is a model. The conversation begins anew. */
  async choose(blob: Blob, name: string): Promise<void> {
    this.#drop();
    this.chosen = { blob, name, url: URL.createObjectURL(blob) };
    this.#listener.changed();
    if (this.model.state === "ready") await this.#look();
  }

  /** Takes the photo away. */
  close(): void {
    this.#drop();
    this.#listener.changed();
  }

  /** Asks. One answer at a time: an answer that is still going on is stopped first. */
  async ask(task: Task): Promise<AnswerResult | undefined> {
    const photo = this.chosen?.photo;
    if (!photo) return undefined;
    this.stop();
    const answering = new AbortController();
    this.#answering = answering;
    const started = performance.now();
    const turn: Turn = { id: this.#nextTurn++, task, state: "waiting", segments: [] };
    this.turns = [...this.turns, turn];
    this.#listener.changed();
    const answer = photo.run(task, { maxTokens: this.#settings.maxTokens, signal: answering.signal });
    try {
      await this.#follow(turn.id, answer);
      const result = await answer.done;
      const state = result.stopped === "aborted" ? "stopped" : "done";
      this.#answered(turn.id, {
        state,
        result,
        segments: result.segments,
        took: performance.now() - started,
      });
      return result;
    } catch (error) {
      const wrapped = GromaError.wrap(error);
      this.#answered(turn.id, { state: "failed", error: wrapped });
      this.#listener.failed?.(wrapped);
      return undefined;
    }
  }

  /** Stops what is going on: looking at the photo, or the answer, of which is kept what was said. */
  stop(): void {
    this.#opening?.abort();
    this.#answering?.abort();
    this.#answering = undefined;
  }

  /** Looks at the photo after all. */
  async lookAgain(): Promise<void> {
    await this.#look();
  }

  /** Begins a new conversation about the same photo. */
  async reset(): Promise<void> {
    this.stop();
    this.turns = [];
    this.#listener.changed();
    await this.chosen?.photo?.reset();
  }

  /** Whether the processor may do what failed: it was the GPU that could not. */
  processorMay(error: GromaError): boolean {
    if (this.#settings.device === "cpu" || this.device?.kind === "cpu" || !fitsProcessor(this.#memory))
      return false;
    // A trap is the engine's own memory, of which the processor needs more.
    const full = error.reason === "out-of-memory" && !("trap" in error.details);
    return full || error.reason === "no-webgpu" || error.reason === "device-lost";
  }

  /** Whether there is something to stop. */
  get busy(): boolean {
    if (this.chosen?.looking) return true;
    const last = this.turns.at(-1);
    return last?.state === "waiting" || last?.state === "answering";
  }

  /** Gives everything back. */
  async destroy(): Promise<void> {
    this.#destroyed = true;
    this.#loading?.abort();
    this.#drop();
    if (this.model.state === "ready") await this.model.groma.destroy();
    this.model = { state: "unknown" };
  }

  async #look(): Promise<void> {
    const chosen = this.chosen;
    if (!chosen || chosen.photo || chosen.looking || this.model.state !== "ready") return;
    const opening = new AbortController();
    this.#opening = opening;
    const { groma } = this.model;
    // Whether it is still this photo and this model.
    const current = () => this.#opening === opening && this.chosen?.url === chosen.url;
    const show = (found: Partial<Chosen>) => {
      if (!current()) return;
      this.chosen = { ...bare(chosen), ...found };
      this.#listener.changed();
    };
    show({ looking: { done: 0, total: 0 } });
    try {
      const photo = await groma.open(chosen.blob, {
        signal: opening.signal,
        onProgress: (looking) => show({ looking }),
      });
      if (!current()) {
        await photo.close();
        return;
      }
      show({ photo });
      this.#tellDevice(groma);
      this.#listener.regions?.(photo.regions);
    } catch (error) {
      const stopped = opening.signal.aborted;
      const wrapped = GromaError.wrap(error);
      show(stopped ? { halted: true } : { error: wrapped });
      if (!stopped) this.#listener.failed?.(wrapped);
    }
  }

  /** Says what runs, where that is not what was said before: the engine may have started again on another device. */
  #tellDevice(groma: OpenModel): void {
    const { info } = groma;
    if (info === this.#info) return;
    this.#info = info;
    const { device, adapter, note } = info;
    this.device = { kind: device, adapter, ...(note ? { note } : {}) };
    this.#listener.changed();
    this.#listener.ready?.(groma);
  }

  async #follow(id: number, answer: Answer): Promise<void> {
    for await (const segment of answer) {
      const turn = this.#change(id, (old) => {
        const segments = [...old.segments];
        segments[segment.index] = segment;
        return { state: "answering", segments };
      });
      if (this.model.state === "ready") this.#tellDevice(this.model.groma);
      if (turn) this.#listener.segment?.(turn, segment);
    }
  }

  #answered(id: number, change: Partial<Turn>): void {
    const turn = this.#change(id, () => change);
    if (turn && turn.state !== "failed") this.#listener.answered?.(turn);
  }

  #change(id: number, change: (old: Turn) => Partial<Turn>): Turn | undefined {
    let changed: Turn | undefined;
    this.turns = this.turns.map((turn) => (turn.id === id ? (changed = { ...turn, ...change(turn) }) : turn));
    this.#listener.changed();
    return changed;
  }

  /** Whether another model or device was asked for since, or none any more. */
  #moved({ model, device, numerics }: Settings): boolean {
    const now = this.#settings;
    return this.#destroyed || now.model !== model || now.device !== device || now.numerics !== numerics;
  }

  #drop(): void {
    this.stop();
    const old = this.chosen;
    this.chosen = undefined;
    this.turns = [];
    if (!old) return;
    URL.revokeObjectURL(old.url);
    void old.photo?.close();
  }

  #setModel(model: ModelState): void {
    this.model = model;
    this.#listener.changed();
  }

  #fail(error: unknown, agreed: boolean): void {
    const wrapped = GromaError.wrap(error);
    this.#setModel({ state: "failed", error: wrapped, agreed });
    this.#listener.failed?.(wrapped);
  }
}

/** The photo without what was found out about it. */
function bare({ blob, url, name }: Chosen): Chosen {
  return { blob, url, name };
}
