/** The JavaScript heaps of a page and of its engine's worker, by the browser's debugger: what is alive after a collection. */

import type { CDPSession, Page } from "@playwright/test";

/** What is alive. */
export interface Alive {
  /** Bytes of JavaScript's own heap: objects, and code and its types, of which there is more as functions warm up. */
  readonly bytes: number;
  /** Objects of any kind: warming up makes few. */
  readonly objects: number;
}

type Send = (method: string, params?: object) => Promise<unknown>;

/** Looks into the heaps; made before the page starts its worker. */
export class Heaps {
  readonly #page: CDPSession;
  #worker: string | undefined;
  #next = 1;

  private constructor(page: CDPSession) {
    this.#page = page;
    page.on("Target.attachedToTarget", ({ sessionId, targetInfo }) => {
      if (targetInfo.type === "worker") this.#worker = sessionId;
    });
  }

  /** Attaches to a page and to the worker that it will start. */
  static async of(page: Page): Promise<Heaps> {
    const session = await page.context().newCDPSession(page);
    const heaps = new Heaps(session);
    const how = { autoAttach: true, waitForDebuggerOnStart: false, flatten: false };
    await session.send("Target.setAutoAttach", how);
    return heaps;
  }

  /** What of the page is alive, and how many nodes its documents have. */
  async page(): Promise<Alive & { nodes: number }> {
    const found = await alive((method, params) => this.#page.send(method as "Runtime.enable", params));
    const { nodes } = await this.#page.send("Memory.getDOMCounters");
    return { ...found, nodes };
  }

  /** What of the worker is alive. */
  worker(): Promise<Alive> {
    return alive((method, params) => this.#toWorker(method, params));
  }

  /** Playwright gives no session of a worker: messages go through the page's. */
  #toWorker(method: string, params: object = {}): Promise<unknown> {
    const session = this.#page;
    const sessionId = this.#worker;
    if (!sessionId) throw new Error("no worker was started");
    const id = this.#next++;
    return new Promise((done, fail) => {
      const hear = (event: { sessionId: string; message: string }) => {
        const answer = JSON.parse(event.message) as { id?: number; result?: unknown; error?: unknown };
        if (event.sessionId !== sessionId || answer.id !== id) return;
        session.off("Target.receivedMessageFromTarget", hear);
        if (answer.error) fail(new Error(JSON.stringify(answer.error)));
        else done(answer.result);
      };
      session.on("Target.receivedMessageFromTarget", hear);
      const message = JSON.stringify({ id, method, params });
      session.send("Target.sendMessageToTarget", { sessionId, message }).catch(fail);
    });
  }
}

async function alive(send: Send): Promise<Alive> {
  await send("HeapProfiler.collectGarbage");
  const root = (await send("Runtime.evaluate", { expression: "Object.prototype" })) as Remote;
  const { objects } = (await send("Runtime.queryObjects", { prototypeObjectId: root.result.objectId })) as {
    objects: { objectId: string };
  };
  const length = (await send("Runtime.callFunctionOn", {
    objectId: objects.objectId,
    functionDeclaration: "function () { return this.length }",
  })) as Remote;
  await send("Runtime.releaseObject", { objectId: objects.objectId });
  await send("Runtime.releaseObject", { objectId: root.result.objectId });
  await send("HeapProfiler.collectGarbage");
  const { usedSize } = (await send("Runtime.getHeapUsage")) as { usedSize: number };
  return { bytes: usedSize, objects: length.result.value ?? 0 };
}

interface Remote {
  readonly result: { readonly objectId?: string; readonly value?: number };
}
