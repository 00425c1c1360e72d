/** Where parts are kept. A part's name is its sha256; what is not yet verified has a name of its own. */

import { GromaError } from "../engine/error.js";

/** A verified part, readable at once: the engine asks while it computes. */
export interface StoredPart {
  readonly size: number;
  read(offset: number, length: number): Uint8Array<ArrayBuffer>;
}

/** A part that is being fetched. Held by one worker at a time. */
export interface PartWriter {
  /** Bytes that are here, also from an earlier visit. */
  readonly size: number;
  append(bytes: Uint8Array<ArrayBuffer>): void;
  /** Begins anew. */
  clear(): void;
  /** Everything so far. */
  content(): Uint8Array<ArrayBuffer>;
  /** Gives the part its name; only after its content was verified. */
  commit(): Promise<void>;
  /** Lets go and keeps what is here for a later visit. */
  release(): void;
  /** Lets go and keeps nothing. */
  discard(): Promise<void>;
}

/** A place for parts and for small records about models. */
export interface Store {
  has(sha256: string, size: number): Promise<boolean>;
  /** Bytes of a part that is being fetched, here or in another tab; 0 where none is. */
  arrived(sha256: string): Promise<number>;
  open(sha256: string): Promise<StoredPart>;
  write(sha256: string): Promise<PartWriter>;
  remove(sha256: string): Promise<void>;
  records(): Promise<string[]>;
  record(key: string): Promise<string | undefined>;
  setRecord(key: string, text: string | undefined): Promise<void>;
  /** Bytes that may still be written, where the browser says. */
  room(): Promise<number | undefined>;
}

/** In memory, for browsers or modes without storage: gone when the worker ends. */
export class MemoryStore implements Store {
  readonly #parts = new Map<string, Uint8Array<ArrayBuffer>>();
  readonly #records = new Map<string, string>();

  has(sha256: string, size: number): Promise<boolean> {
    return Promise.resolve(this.#parts.get(sha256)?.length === size);
  }

  arrived(): Promise<number> {
    return Promise.resolve(0);
  }

  open(sha256: string): Promise<StoredPart> {
    const bytes = this.#parts.get(sha256);
    if (!bytes) throw gone(sha256);
    return Promise.resolve({
      size: bytes.length,
      read: (offset, length) => bytes.subarray(offset, offset + length),
    });
  }

  write(sha256: string): Promise<PartWriter> {
    let pieces: Uint8Array<ArrayBuffer>[] = [];
    let size = 0;
    const clear = () => {
      pieces = [];
      size = 0;
    };
    const content = () => {
      const all = new Uint8Array(size);
      let at = 0;
      for (const piece of pieces) {
        all.set(piece, at);
        at += piece.length;
      }
      pieces = [all];
      return all;
    };
    return Promise.resolve({
      get size() {
        return size;
      },
      append: (bytes) => {
        pieces.push(bytes.slice());
        size += bytes.length;
      },
      clear,
      content,
      commit: () => {
        this.#parts.set(sha256, content());
        return Promise.resolve();
      },
      release: () => undefined,
      discard: () => {
        clear();
        return Promise.resolve();
      },
    });
  }

  remove(sha256: string): Promise<void> {
    this.#parts.delete(sha256);
    return Promise.resolve();
  }

  records(): Promise<string[]> {
    return Promise.resolve([...this.#records.keys()]);
  }

  record(key: string): Promise<string | undefined> {
    return Promise.resolve(this.#records.get(key));
  }

  setRecord(key: string, text: string | undefined): Promise<void> {
    if (text === undefined) this.#records.delete(key);
    else this.#records.set(key, text);
    return Promise.resolve();
  }

  room(): Promise<undefined> {
    return Promise.resolve(undefined);
  }
}

/** A part that should be there and is not. */
export function gone(sha256: string): GromaError {
  return new GromaError(
    "part-missing",
    "A part of the model has vanished from this browser's storage. Load the model again.",
    { sha256 },
  );
}
