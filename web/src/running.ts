/** Turns that were running when the page went away, kept for this tab so that a reload finds
 *  them again. */

import { forget, store, stored } from "./prefs";
import type { Ask } from "./turn";

const NAME = "tandem.running";

export function runningTurns(): Ask[] {
  try {
    const found: unknown = JSON.parse(stored(sessionStorage, NAME) || "[]");
    return Array.isArray(found) ? (found as Ask[]) : [];
  } catch {
    return [];
  }
}

export function rememberTurn(ask: Ask): void {
  const others = runningTurns().filter((other) => other.turnId !== ask.turnId);
  store(sessionStorage, NAME, JSON.stringify([...others, ask]));
}

export function forgetTurn(turnId: string): void {
  const others = runningTurns().filter((other) => other.turnId !== turnId);
  if (others.length) store(sessionStorage, NAME, JSON.stringify(others));
  else forget(sessionStorage, NAME);
}
