/** The one error of the package: the platform's `name` where one fits, and always a stable `reason`. */

/** What went wrong, in a word that programs may branch on. */
export type Reason =
  | "no-webgpu"
  | "device-lost"
  | "out-of-memory"
  | "out-of-storage"
  | "part-missing"
  | "part-corrupt"
  | "pack-invalid"
  | "no-model"
  | "image-unreadable"
  | "image-too-large"
  | "box-outside"
  | "question-empty"
  | "prompt-too-long"
  | "aborted"
  | "closed"
  | "io"
  | "usage"
  | "internal";

/** An error as it crosses from the worker. */
export interface PlainError {
  readonly name: string;
  readonly reason: Reason;
  readonly message: string;
  readonly details: Readonly<Record<string, unknown>>;
}

const NAMES: Record<Reason, string> = {
  "no-webgpu": "NotSupportedError",
  "device-lost": "OperationError",
  "out-of-memory": "OperationError",
  "out-of-storage": "QuotaExceededError",
  "part-missing": "NetworkError",
  "part-corrupt": "DataError",
  "pack-invalid": "DataError",
  "no-model": "NetworkError",
  "image-unreadable": "EncodingError",
  "image-too-large": "NotSupportedError",
  "box-outside": "DataError",
  "question-empty": "DataError",
  "prompt-too-long": "QuotaExceededError",
  aborted: "AbortError",
  closed: "InvalidStateError",
  io: "OperationError",
  usage: "NotSupportedError",
  internal: "OperationError",
};

/** A failure: `name` as the platform's, `reason` ours, and a sentence that tells what to do. */
export class GromaError extends DOMException {
  readonly reason: Reason;
  readonly details: Readonly<Record<string, unknown>>;

  constructor(reason: Reason, message: string, details: Readonly<Record<string, unknown>> = {}) {
    super(message, NAMES[reason]);
    this.reason = reason;
    this.details = details;
  }

  /** The form that crosses between worker and page. @internal */
  toPlain(): PlainError {
    return { name: this.name, reason: this.reason, message: this.message, details: this.details };
  }

  /** Rebuilds what came from the worker. @internal */
  static from(plain: PlainError): GromaError {
    return new GromaError(plain.reason, plain.message, plain.details);
  }

  /** Any failure as one of ours. */
  static wrap(error: unknown): GromaError {
    if (error instanceof GromaError) return error;
    if (isPlainError(error)) return GromaError.from(error);
    if (error instanceof DOMException && error.name === "AbortError") return aborted();
    if (error instanceof DOMException && error.name === "QuotaExceededError") {
      return new GromaError(
        "out-of-storage",
        "The browser has no room left to keep the model. Free some storage and try again.",
      );
    }
    const message = error instanceof Error ? error.message : String(error);
    return new GromaError("internal", `Something went wrong inside Groma: ${message}`);
  }
}

/** Stopped on request. */
export function aborted(): GromaError {
  return new GromaError("aborted", "Stopped on request.");
}

const CLOSED = {
  engine: "This engine was destroyed. Create a new one.",
  photo: "This photo was closed. Open it again.",
} as const;

/** Nothing is to be had of it any more. */
export function closed(what: keyof typeof CLOSED): GromaError {
  return new GromaError("closed", CLOSED[what]);
}

/** What an aborted signal rejects with: the caller's own reason where it gave one. */
export function abortReason(signal: AbortSignal): unknown {
  const reason: unknown = signal.reason;
  return reason instanceof DOMException && reason.name === "AbortError" ? aborted() : reason;
}

/** Whether a value has the form in which errors cross from wasm and worker. */
export function isPlainError(value: unknown): value is PlainError {
  return (
    typeof value === "object" &&
    value !== null &&
    typeof (value as Record<string, unknown>).reason === "string" &&
    (value as { reason: string }).reason in NAMES &&
    typeof (value as Record<string, unknown>).message === "string"
  );
}
