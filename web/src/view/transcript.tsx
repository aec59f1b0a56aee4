/** The conversation. Follows the answer while the reader is at the bottom, lets go at once when
 *  they scroll up. */

import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import type { Conversation } from "../conversation";
import { type Word, t } from "../i18n";
import { Message } from "./message";
import { Icon } from "./icons";

const NEAR_PX = 24;

export function Transcript({ conversation }: { conversation: Conversation }) {
  return conversation.entries.value.length ? (
    <Messages conversation={conversation} />
  ) : (
    <Empty conversation={conversation} />
  );
}

function Messages({ conversation }: { conversation: Conversation }) {
  const scroller = useRef<HTMLDivElement>(null);
  const inside = useRef<HTMLDivElement>(null);
  const follows = useSignal(true);
  const entries = conversation.entries.value;
  const asked = entries.length;

  useEffect(() => follow(scroller.current, inside.current, follows), []);
  useEffect(() => {
    follows.value = true;
    toBottom(scroller.current);
  }, [asked]);

  return (
    <div class="scroller-place">
      <div
        class="scroller" ref={scroller} tabIndex={0} role="log" aria-live="off"
        aria-label={t("transcript")}
      >
        <div class="column" ref={inside}>
          {entries.map((one, index) => (
            <Message key={one.key} entry={one} number={index + 1} conversation={conversation} />
          ))}
        </div>
      </div>
      {!follows.value && (
        <button
          class="to-bottom"
          onClick={() => ((follows.value = true), toBottom(scroller.current))}
        >
          <Icon name="down" />{t("toBottom")}
        </button>
      )}
    </div>
  );
}

function toBottom(scroller: HTMLElement | null): void {
  if (scroller) scroller.scrollTop = scroller.scrollHeight;
}

/** Letting go happens in the reader's own event: a later scroll event would race the answer. */
function follow(
  scroller: HTMLElement | null, inside: HTMLElement | null, follows: { value: boolean },
): () => void {
  if (!scroller || !inside) return () => undefined;
  const over = new AbortController();
  const { signal } = over;
  let touchY = 0;
  const letGo = (): void => {
    if (scroller.scrollHeight > scroller.clientHeight + NEAR_PX) follows.value = false;
  };
  const atBottom = (): boolean =>
    scroller.scrollHeight - scroller.clientHeight - scroller.scrollTop < NEAR_PX;
  const passive = { passive: true, signal };
  scroller.addEventListener("wheel", (event) => event.deltaY < 0 && letGo(), passive);
  scroller.addEventListener("touchstart", (event) => (touchY = event.touches[0]?.clientY ?? 0), passive);
  scroller.addEventListener(
    "touchmove", (event) => (event.touches[0]?.clientY ?? 0) > touchY + 4 && letGo(), passive,
  );
  scroller.addEventListener(
    "keydown", (event) => ["PageUp", "Home", "ArrowUp"].includes(event.key) && letGo(), { signal },
  );
  let top = scroller.scrollTop;
  scroller.addEventListener("scroll", () => {
    const up = scroller.scrollTop < top - 2;
    top = scroller.scrollTop;
    if (!up && atBottom()) follows.value = true;
  }, passive);
  const observer = new ResizeObserver(() => follows.value && toBottom(scroller));
  observer.observe(inside);
  observer.observe(scroller);
  return () => (over.abort(), observer.disconnect());
}

const IDEAS: [Word, Word][] = [
  ["idea1", "idea1Text"],
  ["idea2", "idea2Text"],
  ["idea3", "idea3Text"],
  ["idea4", "idea4Text"],
];

function Empty({ conversation }: { conversation: Conversation }) {
  const take = (text: string): void => {
    conversation.draft.value = text;
    document.querySelector<HTMLTextAreaElement>(".composer textarea")?.focus();
  };
  return (
    <div class="empty">
      <h2>{t("emptyTitle")}</h2>
      <p class="quiet">{t("emptyText")}</p>
      <ul class="ideas">
        {IDEAS.map(([name, text]) => (
          <li key={name}>
            <button onClick={() => take(t(text))}>
              <strong>{t(name)}</strong>
              <span>{t(text).trim()}</span>
            </button>
          </li>
        ))}
      </ul>
    </div>
  );
}
