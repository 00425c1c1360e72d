/** Fetches one part: goes on where it was cut, tries again, and lets nothing unverified through. */

import { aborted, GromaError } from "../engine/error.js";
import type { Part } from "./manifest.js";
import type { PartWriter, Store } from "./store.js";

/** What a download needs from outside; tests put something else in its place. */
export interface Net {
  readonly fetch: typeof fetch;
  /** Waits, or rejects when the signal aborts. */
  readonly wait: (ms: number, signal: AbortSignal) => Promise<void>;
  /** The sha256 of bytes, as hex. */
  readonly sha256: (bytes: Uint8Array<ArrayBuffer>) => Promise<string>;
}

const RETRY_MS = [300, 1000, 3000];
// A connection that brings nothing for so long is given up and made anew: some never say that they are dead.
const SILENCE_MS = 30_000;

/** Where a part comes from and who wants to know. */
export interface PartJob {
  readonly part: Part;
  readonly url: string;
  readonly signal: AbortSignal;
  /** Told the bytes of this part that are here. */
  readonly onBytes: (bytes: number) => void;
}

/** Fetches a part into the store. */
export async function downloadPart(store: Store, net: Net, job: PartJob): Promise<void> {
  const writer = await store.write(job.part.sha256);
  try {
    for (let attempt = 0; ; attempt++) {
      // What an earlier visit left is not trusted further than the hash.
      if (writer.size > job.part.size) writer.clear();
      await fill(writer, net, job);
      const got = await net.sha256(writer.content());
      if (got === job.part.sha256) break;
      writer.clear();
      if (attempt > 0) {
        await writer.discard();
        throw new GromaError(
          "part-corrupt",
          `The model's part ${job.part.name} arrived damaged twice: its hash is not the one that the model names. Try again later, or tell whoever serves the model.`,
          { part: job.part.name, expected: job.part.sha256, got },
        );
      }
    }
    await writer.commit();
    job.onBytes(job.part.size);
  } finally {
    writer.release();
  }
}

async function fill(writer: PartWriter, net: Net, job: PartJob): Promise<void> {
  const { part, signal, onBytes } = job;
  onBytes(writer.size);
  for (let failures = 0; writer.size < part.size;) {
    stopIf(signal);
    const before = writer.size;
    let cause: string;
    try {
      cause = await fetchRest(writer, net, job);
    } catch (error) {
      stopIf(signal);
      const hopeless = error instanceof DOMException && error.name === "QuotaExceededError";
      if (hopeless || error instanceof GromaError) throw error;
      cause = error instanceof Error ? error.message : String(error);
    }
    if (writer.size >= part.size) return;
    // A connection that brings something each time may be cut as often as it likes.
    failures = writer.size > before ? 0 : failures + 1;
    const pause = RETRY_MS[failures === 0 ? 0 : failures - 1];
    if (pause === undefined) throw missing(part, cause);
    await net.wait(pause, signal);
  }
}

function stopIf(signal: AbortSignal): void {
  if (signal.aborted) throw aborted();
}

/** One request for what is not here yet, given up where it falls silent; gives the reason why it ended. */
async function fetchRest(writer: PartWriter, net: Net, job: PartJob): Promise<string> {
  const silence = new AbortController();
  let timer: ReturnType<typeof setTimeout> | undefined;
  const heard = () => {
    clearTimeout(timer);
    timer = setTimeout(() => silence.abort(), SILENCE_MS);
  };
  heard();
  try {
    const signal = AbortSignal.any([job.signal, silence.signal]);
    return await request(writer, net, { ...job, signal }, heard);
  } catch (error) {
    if (silence.signal.aborted) return `nothing came for ${SILENCE_MS / 1000} seconds`;
    throw error;
  } finally {
    clearTimeout(timer);
  }
}

async function request(writer: PartWriter, net: Net, job: PartJob, heard: () => void): Promise<string> {
  const { part, url, signal, onBytes } = job;
  const headers: Record<string, string> = writer.size > 0 ? { Range: `bytes=${writer.size}-` } : {};
  const response = await net.fetch(url, { headers, signal, cache: "no-store" });
  if (response.status === 416) {
    writer.clear();
    return "the host refused the rest";
  }
  if (response.status >= 400 && response.status < 500 && response.status !== 408 && response.status !== 429) {
    throw missing(part, `the host answered ${response.status}`);
  }
  if (!response.ok) return `the host answered ${response.status}`;
  // A host that knows no ranges sends everything again.
  if (response.status !== 206 && writer.size > 0) writer.clear();
  const from = /^bytes (\d+)-/.exec(response.headers.get("content-range") ?? "")?.[1];
  if (response.status === 206 && from !== undefined && Number(from) !== writer.size) {
    writer.clear();
    return "the host sent another range";
  }
  const reader = response.body?.getReader();
  if (!reader) return "the host sent nothing";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return "the connection was cut";
      heard();
      if (writer.size + value.length > part.size) {
        // More than the part: leave the verdict to the hash.
        writer.append(value.subarray(0, part.size - writer.size));
        return "";
      }
      writer.append(value);
      onBytes(writer.size);
    }
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}

function missing(part: Part, cause: string): GromaError {
  return new GromaError(
    "part-missing",
    `The model's part ${part.name} could not be fetched: ${cause}. Check the connection and try again; what has arrived is kept.`,
    { part: part.name, cause },
  );
}
