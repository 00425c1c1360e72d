import type { IncomingMessage, ServerResponse } from "node:http";

/** Answers instead of the server by returning true. */
export type Hook = (
  request: IncomingMessage,
  response: ServerResponse,
  path: string,
) => boolean | Promise<boolean>;

export function serve(options?: {
  dir?: string;
  port?: number;
  base?: string;
  hook?: Hook;
}): Promise<{ url: string; close: () => void }>;
