/** Where a message is written. Enter sends, unless the input method wants it. */

import { useSignalEffect } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import type { Conversation } from "../conversation";
import { health } from "../health";
import { t } from "../i18n";
import { compositionEnded, isForInputMethod } from "../ime";
import { Icon } from "./icons";

export function Composer({ conversation }: { conversation: Conversation }) {
  const field = useRef<HTMLTextAreaElement>(null);
  const running = conversation.running.value !== null;
  useEffect(() => void (matchMedia("(pointer: fine)").matches && field.current?.focus()), [conversation]);
  useSignalEffect(() => {
    void conversation.draft.value;
    if (field.current) fit(field.current, conversation.draft.value);
  });

  const send = (): void => {
    const text = conversation.draft.value.trim();
    if (!text || conversation.running.value) return;
    conversation.draft.value = "";
    void conversation.send(text);
    field.current?.focus();
  };
  const onKey = (event: KeyboardEvent): void => {
    if (isForInputMethod(event)) return;
    if (event.key === "Enter" && !event.shiftKey && !event.altKey) {
      event.preventDefault();
      send();
    }
    if (event.key === "Escape") void conversation.stop();
  };

  return (
    <form
      class="composer"
      onSubmit={(event) => (event.preventDefault(), send())}
    >
      <Banner conversation={conversation} />
      <div class="composer-box">
        <textarea
          ref={field} rows={1} aria-label={t("composer")} placeholder={t("composer")}
          enterkeyhint="send" value={conversation.draft.value}
          onInput={(event) => (conversation.draft.value = event.currentTarget.value)}
          onKeyDown={onKey} onCompositionEnd={() => compositionEnded()}
        />
        {running ? (
          <button
            type="button" class="round stop" aria-label={t("stop")} title={`${t("stop")} (Esc)`}
            onClick={() => void conversation.stop()}
          >
            <Icon name="stop" />
          </button>
        ) : (
          <button
            type="submit" class="round primary" aria-label={t("send")} title={t("send")}
            disabled={!conversation.draft.value.trim()}
          >
            <Icon name="send" />
          </button>
        )}
      </div>
      <p class="composer-hint">{t("composerHint")}</p>
    </form>
  );
}

/** One banner at a time, above the field and never over the text. */
function Banner({ conversation }: { conversation: Conversation }) {
  const answer = conversation.entries.value.at(-1);
  const reattaching = answer?.lost.value ?? false;
  if (reattaching)
    return <p class="banner warn" role="status">{t(navigator.onLine ? "reconnecting" : "offline")}</p>;
  if (health.value === "lost") return <p class="banner warn" role="status">{t("unreachable")}</p>;
  if (health.value === "loading")
    return <p class="banner calm" role="status">{t("loadingBanner")}</p>;
  return null;
}

/** As tall as its text. Through the object model, which a strict style policy allows. */
function fit(field: HTMLTextAreaElement, text: string): void {
  if (field.value !== text) field.value = text;
  field.style.height = "auto";
  field.style.height = `${Math.min(field.scrollHeight, Math.round(innerHeight * 0.4))}px`;
}
