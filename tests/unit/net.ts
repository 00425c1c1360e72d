/** A network of byte strings that can be cut, damaged and refused. */

import { createHash } from "node:crypto";
import { aborted } from "../../www/engine/error.js";
import type { Net } from "../../www/worker/download.js";

export type Bytes = Uint8Array<ArrayBuffer>;

export const sha256 = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");

export const bytesOf = (length: number, seed = 1): Bytes =>
  Uint8Array.from({ length }, (_, at) => (at * 31 + seed * 17 + (at >> 5)) & 255);

/** What the host does with a request, in order; when the list ends it serves well. */
export type Fate = "cut" | "hang" | "damage" | "no-ranges" | "other-range" | "down" | "well" | number;

export class FakeNet implements Net {
  readonly files = new Map<string, Bytes>();
  readonly fates: Fate[] = [];
  readonly requests: { url: string; range: string | undefined }[] = [];
  readonly waits: number[] = [];

  readonly fetch: typeof fetch = (input, init) => {
    const url = input instanceof Request ? input.url : String(input);
    const range = new Headers(init?.headers).get("range") ?? undefined;
    this.requests.push({ url, range });
    if (init?.signal?.aborted) return Promise.reject(aborted());
    const file = this.files.get(url);
    const fate = url.endsWith(".json") ? undefined : this.fates.shift();
    if (fate === "down") return Promise.reject(new TypeError("Failed to fetch"));
    if (typeof fate === "number") return Promise.resolve(new Response("", { status: fate }));
    if (!file) return Promise.resolve(new Response("", { status: 404 }));
    const start = range && fate !== "no-ranges" ? Number(/bytes=(\d+)-/.exec(range)?.[1]) : 0;
    let body = file.slice(start);
    if (fate === "damage") body[body.length >> 1] = (body[body.length >> 1] ?? 0) ^ 1;
    if (fate === "cut" || fate === "hang") body = body.slice(0, body.length >> 1);
    const chunks = [body.slice(0, 3), body.slice(3)];
    const stream = new ReadableStream<Bytes>({
      start(controller) {
        init?.signal?.addEventListener("abort", () => controller.error(aborted()));
      },
      pull(controller) {
        const chunk = chunks.shift();
        if (chunk) controller.enqueue(chunk);
        else if (fate !== "hang") controller.close();
      },
    });
    const from = fate === "other-range" ? start - 1 : start;
    const headers = { "content-range": `bytes ${from}-${file.length - 1}/${file.length}` };
    return Promise.resolve(
      start > 0 ? new Response(stream, { status: 206, headers }) : new Response(stream, { status: 200 }),
    );
  };

  readonly wait = (ms: number, signal: AbortSignal): Promise<void> => {
    this.waits.push(ms);
    return signal.aborted ? Promise.reject(aborted()) : Promise.resolve();
  };

  readonly sha256 = (bytes: Bytes): Promise<string> => Promise.resolve(sha256(bytes));
}
