/** Is this Enter meant for the input method, or for us? Used by every text field. */

interface KeyLike {
  key: string;
  isComposing: boolean;
  keyCode: number;
}

/** Safari ends the composition before its Enter arrives: no person confirms and sends this fast. */
const JUST_ENDED_MS = 50;
let endedAt = Number.NEGATIVE_INFINITY;

export function compositionEnded(now: number = performance.now()): void {
  endedAt = now;
}

export function isForInputMethod(event: KeyLike, now: number = performance.now()): boolean {
  if (event.isComposing || event.keyCode === 229) return true;
  return event.key === "Enter" && now - endedAt < JUST_ENDED_MS;
}
