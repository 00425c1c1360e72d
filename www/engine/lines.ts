/** The page's workers: one for each engine in use, and at most one more that only looks into the store. */

import { Connection } from "./connection.js";
import type { GromaError } from "./error.js";

const taken = new Set<Connection>();
// It answered a question about the store and holds no model yet; the next engine moves in.
let spare: Connection | undefined;

function connect(): Connection {
  const worker = new Worker(new URL("../worker/worker.ts", import.meta.url), {
    type: "module",
    name: "groma",
  });
  return new Connection(worker);
}

/** A line for an engine. */
export function takeConnection(): Connection {
  const line = spare && !spare.broken ? spare : connect();
  spare = undefined;
  taken.add(line);
  return line;
}

/** A line for questions about the store: whichever worker is there. */
export function storeConnection(): Connection {
  for (const line of taken) {
    if (!line.broken) return line;
    taken.delete(line);
  }
  if (!spare || spare.broken) spare = connect();
  return spare;
}

/** Ends an engine's worker. */
export function discard(line: Connection, reason: GromaError): void {
  taken.delete(line);
  line.close(reason);
}
