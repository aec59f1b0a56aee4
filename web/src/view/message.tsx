/** One message: who and when in the margin, the text, and what is to be said about it below. */

import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { copyText } from "../clipboard";
import type { Conversation, Entry, Facts } from "../conversation";
import { toast } from "../desk";
import { language, t } from "../i18n";
import { FailureCard } from "./failure_card";
import { Icon } from "./icons";
import { MarkdownText } from "./markdown_text";

interface Props {
  entry: Entry;
  number: number;
  conversation: Conversation;
}

export function Message({ entry, number, conversation }: Props) {
  const who = t(entry.role === "user" ? "you" : "assistant");
  return (
    <article
      class={`message ${entry.role}`} tabIndex={-1} aria-label={t("answerNumber", { who, n: number })}
      onKeyDown={step}
    >
      <div class="rail">
        <span class="who">{who}</span>
        {entry.at > 0 && <time>{clock(entry.at)}</time>}
        {entry.facts.value.engine && (
          <span class="engine" title={t("engineName", { name: entry.facts.value.engine })}>
            {entry.facts.value.engine}
          </span>
        )}
      </div>
      <div class="body">
        {entry.role === "user" ? (
          <div class="question">{entry.text.value}</div>
        ) : (
          <Answer entry={entry} conversation={conversation} />
        )}
      </div>
    </article>
  );
}

function Answer({ entry, conversation }: { entry: Entry; conversation: Conversation }) {
  const facts = entry.facts.value;
  const phase = entry.phase.value;
  return (
    <>
      {facts.trimmed ? <p class="note">{t("trimmed", { n: facts.trimmed })}</p> : null}
      {phase === "waiting" && <p class="waiting"><i /><i /><i /><span>{t("waiting")}</span></p>}
      <div class={phase === "streaming" ? "prose growing" : "prose"}>
        <MarkdownText text={entry.text} />
      </div>
      {entry.problem.value && (
        <FailureCard entry={entry} problem={entry.problem.value} conversation={conversation} />
      )}
      {phase === "done" && <Endnote entry={entry} facts={facts} conversation={conversation} />}
    </>
  );
}

function Endnote({ entry, facts, conversation }: { entry: Entry; facts: Facts; conversation: Conversation }) {
  const last = conversation.entries.value.at(-1) === entry && !conversation.running.value;
  const cut = facts.finish === "length" && !facts.stopped;
  const note = noteOf(entry, facts);
  return (
    <>
      {note && <p class="note">{note}</p>}
      {last && cut && (
        <button class="small" onClick={() => void conversation.send(t("goOnText"))}>{t("goOn")}</button>
      )}
      <footer class="endnote">
        <CopyAnswer entry={entry} />
        {figures(facts).map((figure) => <span key={figure}>{figure}</span>)}
        {facts.failovers ? <span class="failover">{t("failedOver")}</span> : null}
      </footer>
    </>
  );
}

/** What the service may call an answer that somebody stopped. */
const STOPPED = new Set(["stopped", "cancelled"]);

function noteOf(entry: Entry, facts: Facts): string {
  if (facts.stopped || STOPPED.has(facts.finish ?? "")) return t("stopped");
  if (facts.finish === "length") return t("cutByLength");
  if (facts.unsaved) return t("unsaved");
  if (facts.incomplete) return t("incomplete");
  return entry.text.value.trim() ? "" : t("emptyAnswer");
}

function figures({ tokens, firstMs, totalMs }: Facts): string[] {
  if (!tokens) return [];
  const found = [t("tokens", { n: tokens })];
  if (firstMs !== undefined && totalMs !== undefined && totalMs - firstMs > 200)
    found.push(t("speed", { n: Math.round((tokens * 1000) / (totalMs - firstMs)) }));
  if (firstMs !== undefined) found.push(t("firstWords", { n: (firstMs / 1000).toFixed(1) }));
  return found;
}

function CopyAnswer({ entry }: { entry: Entry }) {
  const copied = useSignal(false);
  useEffect(() => {
    if (!copied.value) return;
    const timer = setTimeout(() => (copied.value = false), 1_500);
    return () => clearTimeout(timer);
  }, [copied.value]);
  const copy = async (): Promise<void> => {
    copied.value = await copyText(entry.text.value);
    if (!copied.value) toast.value = { text: t("copyFailed") };
  };
  if (!entry.text.value) return null;
  return (
    <button class="plain tiny" aria-label={t(copied.value ? "copied" : "copyAnswer")} onClick={() => void copy()}>
      <Icon name={copied.value ? "check" : "copy"} />
      <span>{t(copied.value ? "copied" : "copy")}</span>
    </button>
  );
}

function clock(at: number): string {
  const day = new Date(at).toDateString() === new Date().toDateString();
  const form: Intl.DateTimeFormatOptions = day
    ? { hour: "2-digit", minute: "2-digit", hourCycle: "h23" }
    : { month: "numeric", day: "numeric" };
  return new Intl.DateTimeFormat(language.value === "zh" ? "zh-CN" : "en-GB", form).format(at);
}

/** Alt and an arrow key go from message to message. */
function step(event: KeyboardEvent): void {
  const here = event.currentTarget as HTMLElement;
  const way = { ArrowDown: here.nextElementSibling, ArrowUp: here.previousElementSibling }[event.key];
  if (!event.altKey || !way) return;
  event.preventDefault();
  (way as HTMLElement).focus();
}
