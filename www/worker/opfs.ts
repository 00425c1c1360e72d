/** Parts in the browser's origin-private file system: `groma/parts/SHA256`, `….part` while fetched, `groma/models/KEY.json`. */

import { gone, MemoryStore, type PartWriter, type Store, type StoredPart } from "./store.js";

// Not in TypeScript's library; every browser with OPFS has it.
type Movable = FileSystemFileHandle & { move(name: string): Promise<void> };
type Listable = FileSystemDirectoryHandle & { keys(): AsyncIterable<string> };

/** Opens the store; in memory where the browser has none (a private window, an insecure address). */
export async function openStore(): Promise<Store> {
  try {
    const root = await navigator.storage.getDirectory();
    const groma = await root.getDirectoryHandle("groma", { create: true });
    const parts = await groma.getDirectoryHandle("parts", { create: true });
    const models = await groma.getDirectoryHandle("models", { create: true });
    return new OpfsStore(parts, models);
  } catch {
    return new MemoryStore();
  }
}

class OpfsStore implements Store {
  readonly #parts: FileSystemDirectoryHandle;
  readonly #models: Listable;

  constructor(parts: FileSystemDirectoryHandle, models: Listable) {
    this.#parts = parts;
    this.#models = models;
  }

  async has(sha256: string, size: number): Promise<boolean> {
    const file = await fileOf(this.#parts, sha256);
    return file?.size === size;
  }

  async arrived(sha256: string): Promise<number> {
    return (await fileOf(this.#parts, `${sha256}.part`))?.size ?? 0;
  }

  async open(sha256: string): Promise<StoredPart> {
    const file = await fileOf(this.#parts, sha256);
    if (!file) throw gone(sha256);
    const reader = new FileReaderSync();
    return {
      size: file.size,
      read: (offset, length) => new Uint8Array(reader.readAsArrayBuffer(file.slice(offset, offset + length))),
    };
  }

  async write(sha256: string): Promise<PartWriter> {
    const name = `${sha256}.part`;
    const handle = (await this.#parts.getFileHandle(name, { create: true })) as Movable;
    const access = await handle.createSyncAccessHandle();
    let size = access.getSize();
    let open = true;
    const release = () => {
      if (!open) return;
      open = false;
      access.flush();
      access.close();
    };
    return {
      get size() {
        return size;
      },
      append: (bytes) => {
        writeWhole(access, bytes, size);
        size += bytes.length;
      },
      clear: () => {
        access.truncate(0);
        size = 0;
      },
      content: () => {
        const bytes = new Uint8Array(size);
        access.read(bytes, { at: 0 });
        return bytes;
      },
      commit: async () => {
        release();
        await handle.move(sha256);
      },
      release,
      discard: async () => {
        release();
        await this.#parts.removeEntry(name);
      },
    };
  }

  async remove(sha256: string): Promise<void> {
    for (const name of [sha256, `${sha256}.part`]) await this.#parts.removeEntry(name).catch(() => undefined);
  }

  async records(): Promise<string[]> {
    const keys: string[] = [];
    for await (const name of this.#models.keys()) if (name.endsWith(".json")) keys.push(name.slice(0, -5));
    return keys;
  }

  async record(key: string): Promise<string | undefined> {
    const file = await fileOf(this.#models, `${key}.json`);
    return file?.size ? file.text() : undefined;
  }

  async setRecord(key: string, text: string | undefined): Promise<void> {
    const name = `${key}.json`;
    if (text === undefined) {
      await this.#models.removeEntry(name).catch(() => undefined);
      return;
    }
    // Beside its place first, so that nothing half-written ever has the name.
    const handle = (await this.#models.getFileHandle(`${name}.part`, { create: true })) as Movable;
    const access = await handle.createSyncAccessHandle();
    try {
      access.truncate(0);
      writeWhole(access, new TextEncoder().encode(text), 0);
      access.flush();
    } finally {
      access.close();
    }
    await handle.move(name);
  }

  async room(): Promise<number | undefined> {
    const { quota, usage } = await navigator.storage.estimate();
    return quota === undefined ? undefined : quota - (usage ?? 0);
  }
}

/** Over the quota Chromium does not throw: it says that it wrote fewer bytes, or 2³² − 1. */
function writeWhole(access: FileSystemSyncAccessHandle, bytes: Uint8Array<ArrayBuffer>, at: number): void {
  if (access.write(bytes, { at }) !== bytes.length)
    throw new DOMException("The disk is full.", "QuotaExceededError");
}

async function fileOf(directory: FileSystemDirectoryHandle, name: string): Promise<File | undefined> {
  try {
    return await (await directory.getFileHandle(name)).getFile();
  } catch (error) {
    if (error instanceof DOMException && error.name === "NotFoundError") return undefined;
    throw error;
  }
}
