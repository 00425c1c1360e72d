/** The files of a pack as if they were not cut: what the engine reads weights from, outside its own memory. */

import { GromaError } from "../engine/error.js";
import type { Manifest, PackFile } from "./manifest.js";
import type { Store, StoredPart } from "./store.js";

interface OpenFile {
  readonly size: number;
  /** Parts with the offset at which each begins. */
  readonly parts: readonly { readonly at: number; readonly part: StoredPart }[];
}

/** Reads any range of any file of a pack, at once. The bytes lie in JavaScript's memory, from where they may go to a GPU buffer as they are. */
export class PackReader {
  readonly #files: ReadonlyMap<string, OpenFile>;

  private constructor(files: ReadonlyMap<string, OpenFile>) {
    this.#files = files;
  }

  /** Opens all parts, which are in the store. */
  static async open(manifest: Manifest, store: Store): Promise<PackReader> {
    const files = new Map<string, OpenFile>();
    for (const file of manifest.files) files.set(file.name, await openFile(file, store));
    return new PackReader(files);
  }

  /** A range of a file; without a copy where one part has all of it. */
  read(file: string, offset: number, length: number): Uint8Array<ArrayBuffer> {
    const found = this.#files.get(file);
    if (!found || offset < 0 || length < 0 || offset + length > found.size) {
      throw new GromaError(
        "pack-invalid",
        `The model's file ${file} has no bytes ${offset} to ${offset + length}.`,
        { file },
      );
    }
    const pieces: Uint8Array<ArrayBuffer>[] = [];
    for (const { at, part } of found.parts) {
      const from = Math.max(offset, at);
      const to = Math.min(offset + length, at + part.size);
      if (from < to) pieces.push(part.read(from - at, to - from));
    }
    const [only] = pieces;
    if (pieces.length === 1 && only) return only;
    const all = new Uint8Array(length);
    let to = 0;
    for (const piece of pieces) {
      all.set(piece, to);
      to += piece.length;
    }
    return all;
  }
}

async function openFile(file: PackFile, store: Store): Promise<OpenFile> {
  const parts = [];
  let at = 0;
  for (const { sha256, size } of file.parts) {
    parts.push({ at, part: await store.open(sha256) });
    at += size;
  }
  return { size: file.size, parts };
}
