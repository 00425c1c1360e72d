/** Keeps the page usable without a network, and tells when a newer version of it is here. Only our page does: the element registers nothing. */

/** What a `groma-update` event brings. */
export interface UpdateReady {
  /** Changes over to the new version and loads this tab again; other tabs keep theirs until they are loaded again. */
  readonly apply: () => void;
}

declare global {
  interface WindowEventMap {
    /** A newer version of the page is here and waits. Without `apply` it is used once all tabs are closed. */
    "groma-update": CustomEvent<UpdateReady>;
  }
}

/** Registers the service worker beside the page, whatever its path. */
async function keepOffline(): Promise<void> {
  // Absent on insecure addresses.
  const container = (navigator as Partial<Navigator>).serviceWorker;
  if (!container || import.meta.env.DEV) return;
  const address = new URL("service-worker.js", document.baseURI);
  const registration = await container.register(address, { updateViaCache: "none" }).catch(() => undefined);
  if (!registration) return;
  const tell = (waiting: ServiceWorker) => {
    const apply = () => {
      container.addEventListener("controllerchange", () => location.reload(), { once: true });
      waiting.postMessage("take over");
    };
    window.dispatchEvent(new CustomEvent<UpdateReady>("groma-update", { detail: { apply } }));
  };
  const follow = (worker: ServiceWorker | null) => {
    worker?.addEventListener("statechange", () => {
      // Without a controller it is the first one and no update.
      if (worker.state === "installed" && container.controller) tell(worker);
    });
  };
  container.controller?.postMessage("tidy");
  registration.addEventListener("updatefound", () => follow(registration.installing));
  follow(registration.installing);
  if (registration.waiting && container.controller) tell(registration.waiting);
}

void keepOffline();
