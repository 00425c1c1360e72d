/** The page's end of the line to the worker: calls with events on the way, each of which can be aborted. */

import { abortReason, GromaError } from "./error.js";
import type { Method, Methods, ToPage, ToWorker } from "./protocol.js";

/** The part of `Worker` that is used; tests put something else in its place. */
export interface Port {
  postMessage(message: ToWorker, transfer?: Transferable[]): void;
  onmessage: ((event: MessageEvent<ToPage>) => void) | null;
  onerror: ((event: ErrorEvent) => void) | null;
  terminate(): void;
}

interface Pending {
  event(event: unknown): void;
  resolve(result: unknown): void;
  reject(error: unknown): void;
}

/** What a call may be given besides its arguments. */
export interface CallOptions<M extends Method> {
  readonly signal?: AbortSignal | undefined;
  readonly onEvent?: (event: Methods[M]["event"]) => void;
  readonly transfer?: Transferable[];
}

/** A line to one worker. */
export class Connection {
  readonly #port: Port;
  readonly #pending = new Map<number, Pending>();
  #next = 1;
  #broken: GromaError | undefined;

  constructor(port: Port) {
    this.#port = port;
    port.onmessage = (message) => this.#receive(message.data);
    port.onerror = (event) => {
      event.preventDefault();
      this.close(
        new GromaError(
          "internal",
          `The engine's worker failed: ${event.message || "it could not be started"}`,
        ),
      );
    };
  }

  /** Calls a method. An aborted signal rejects once the worker has stopped what it did. */
  call<M extends Method>(
    method: M,
    args: Methods[M]["args"],
    options: CallOptions<M> = {},
  ): Promise<Methods[M]["result"]> {
    const { signal, onEvent, transfer = [] } = options;
    return new Promise((resolve, reject: (error: unknown) => void) => {
      if (this.#broken) {
        reject(this.#broken);
        return;
      }
      if (signal?.aborted) {
        reject(abortReason(signal));
        return;
      }
      const id = this.#next++;
      const abort = () => this.#port.postMessage({ type: "abort", id });
      signal?.addEventListener("abort", abort, { once: true });
      const settle = () => {
        this.#pending.delete(id);
        signal?.removeEventListener("abort", abort);
      };
      this.#pending.set(id, {
        event: (event) => onEvent?.(event as Methods[M]["event"]),
        resolve: (result) => {
          settle();
          resolve(result as Methods[M]["result"]);
        },
        reject: (error) => {
          settle();
          const ours = error instanceof GromaError && error.reason === "aborted";
          reject(ours && signal?.aborted ? abortReason(signal) : error);
        },
      });
      try {
        // The pairing of method and arguments is checked by this method's own signature.
        this.#port.postMessage({ type: "call", id, method, args } as ToWorker, transfer);
      } catch (error) {
        this.#pending.get(id)?.reject(uncopied(error));
      }
    });
  }

  /** Ends the line: whatever is pending fails with the reason. */
  close(reason: GromaError): void {
    if (this.#broken) return;
    this.#broken = reason;
    this.#port.terminate();
    for (const pending of [...this.#pending.values()]) pending.reject(reason);
  }

  /** Why the line ended, if it did. */
  get broken(): GromaError | undefined {
    return this.#broken;
  }

  #receive(message: ToPage): void {
    const pending = this.#pending.get(message.id);
    if (!pending) return;
    switch (message.type) {
      case "event":
        pending.event(message.event);
        return;
      case "result":
        pending.resolve(message.result);
        return;
      case "error": {
        const error = GromaError.from(message.error);
        pending.reject(error);
        // Nothing behind this line can be used any more: whatever waits fails now, and the worker gives its memory back.
        if (message.fatal) this.close(error);
      }
    }
  }
}

/** What a program passed in can't be copied to the worker: a proxy of a framework, a function, an object of the page. */
function uncopied(error: unknown): GromaError {
  const cause = error instanceof Error ? error.message : String(error);
  return new GromaError("usage", `This can't be given to the engine: ${cause} Give plain values.`, { cause });
}
