/** The service as the header shows it: polled while the page is looked at. */

import { computed, signal } from "@preact/signals";
import { ApiError, type Status } from "./api";
import { api, online } from "./network";
import { apiKey } from "./prefs";

export type Health = "unknown" | "ok" | "partly" | "loading" | "down" | "lost";

export const status = signal<Status | null>(null);
export const reachable = signal<boolean>(true);

const STEADY_MS = 15_000;
const ANXIOUS_MS = 3_000;

export const health = computed<Health>(() => {
  if (!reachable.value || !online.value) return "lost";
  const now = status.value;
  if (!now) return "unknown";
  const up = enginesUp(now);
  if (up === now.engines.length && now.ready) return "ok";
  if (up > 0 && now.ready) return "partly";
  return now.engines.some((engine) => engine.state === "starting") ? "loading" : "down";
});

export const modelIsLoading = computed<boolean>(() => health.value === "loading");

export function enginesUp(now: Status): number {
  return now.engines.filter((engine) => ["healthy", "suspect"].includes(engine.state)).length;
}

export async function look(): Promise<void> {
  if (!apiKey.value) return;
  try {
    status.value = await api.status();
    reachable.value = true;
  } catch (error) {
    // An answer, even a bad one, came from somewhere: the engines' state is only not known.
    reachable.value = error instanceof ApiError && error.status < 502;
    if (reachable.value) status.value = null;
  }
}

export function watchHealth(): void {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const round = async (): Promise<void> => {
    clearTimeout(timer);
    if (document.visibilityState === "visible") await look();
    clearTimeout(timer);
    timer = setTimeout(() => void round(), health.value === "ok" ? STEADY_MS : ANXIOUS_MS);
  };
  document.addEventListener("visibilitychange", () => void round());
  addEventListener("online", () => void round());
  addEventListener("offline", () => void round());
  apiKey.subscribe(() => void round());
}
