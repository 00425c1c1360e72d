/** Waiting that a signal may end. */

import { abortReason } from "./error.js";

/** What a promise gives, or the signal's reason as soon as it aborts; the work itself goes on for whoever else waits. */
export function abortable<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return promise;
  return new Promise<T>((resolve, reject: (error: unknown) => void) => {
    const abort = () => reject(abortReason(signal));
    if (signal.aborted) {
      promise.catch(() => undefined);
      abort();
      return;
    }
    signal.addEventListener("abort", abort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", abort));
  });
}
