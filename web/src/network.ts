/** The browser's network as signals and waits, and the one Api of the page. */

import { signal } from "@preact/signals";
import { Api } from "./api";
import { apiKey } from "./prefs";
import type { Surroundings } from "./turn";

export const online = signal<boolean>(navigator.onLine);
addEventListener("online", () => (online.value = true));
addEventListener("offline", () => (online.value = false));

export const api = new Api({ fetch: (...args) => fetch(...args), key: () => apiKey.value });

/** Waits; the network's return or an abort cuts the wait short. */
export function pause(ms: number, abort: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(end, ms);
    addEventListener("online", end);
    abort.addEventListener("abort", end);
    function end(): void {
      clearTimeout(timer);
      removeEventListener("online", end);
      abort.removeEventListener("abort", end);
      resolve();
    }
  });
}

function offline(over: AbortSignal): Promise<void> {
  return new Promise((resolve) =>
    addEventListener("offline", () => resolve(), { once: true, signal: over }),
  );
}

export const surroundings: Surroundings = {
  api,
  online: () => navigator.onLine,
  pause,
  offline,
  now: () => performance.now(),
};
