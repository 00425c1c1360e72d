/** The page's workers: one for each engine in use, and at most one more that only looks into the store. */

import { Connection } from "./connection.js";
import { GromaError } from "./error.js";
import type { Methods, StoreMethod } from "./protocol.js";

const taken = new Set<Connection>();
// It answered a question about the store and holds no model yet; the next engine moves in.
let spare: Connection | undefined;

function connect(): Connection {
  try {
    const worker = new Worker(new URL("../worker/worker.ts", import.meta.url), {
      type: "module",
      name: "groma",
    });
    return new Connection(worker);
  } catch (error) {
    if (!(error instanceof DOMException && error.name === "SecurityError")) throw error;
    throw new GromaError(
      "usage",
      "The engine's files are on another site, and browsers start workers only from the page's own. Put the folder groma/ beside the page.",
      { cause: error.message },
    );
  }
}

/** A line for an engine. */
export function takeConnection(): Connection {
  const line = spare && !spare.broken ? spare : connect();
  spare = undefined;
  taken.add(line);
  return line;
}

/** A line for questions about the store: whichever worker is there. */
function storeConnection(): Connection {
  for (const line of taken) {
    if (!line.broken) return line;
    taken.delete(line);
  }
  if (!spare || spare.broken) spare = connect();
  return spare;
}

/** Nothing new is asked of a line that is about to end. */
export function retire(line: Connection): void {
  taken.delete(line);
}

/** Ends an engine's worker. */
export function discard(line: Connection, reason: GromaError): void {
  retire(line);
  line.close(reason);
}

/** Asks about the store; once more on another line where the first one ended underneath. */
export async function askStore<M extends StoreMethod>(
  method: M,
  args: Methods[M]["args"],
): Promise<Methods[M]["result"]> {
  const line = storeConnection();
  try {
    return await line.call(method, args);
  } catch (error) {
    if (line.broken?.reason !== "closed") throw error;
    return storeConnection().call(method, args);
  }
}
