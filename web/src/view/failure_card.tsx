/** What went wrong and what to do, in place of the answer. Counts down where time mends it. */

import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import type { Conversation, Entry } from "../conversation";
import { keyDialog, newConversation } from "../desk";
import { t } from "../i18n";
import type { Problem } from "../problems";

interface Props {
  entry: Entry;
  problem: Problem;
  conversation: Conversation;
}

export function FailureCard({ entry, problem, conversation }: Props) {
  const last = conversation.entries.value.at(-1) === entry;
  const waits = problem.again !== null && last;
  return (
    <div class={`card ${waits ? "warn" : "danger"}`} role="alert">
      <strong>{t(problem.what)}</strong>
      <p>{t(problem.todo)}</p>
      {problem.detail && <p class="detail" lang="en">{problem.detail}</p>}
      {last && <Remedies entry={entry} problem={problem} conversation={conversation} />}
      {problem.reference && <p class="reference">{t("reference", { id: problem.reference })}</p>}
    </div>
  );
}

function Remedies({ entry, problem, conversation }: Props) {
  const left = useSignal<number | null>(problem.again);
  const retry = (byItself = false): void => void conversation.retry(entry, byItself);
  useEffect(() => {
    if (left.value === null || conversation.running.value) return;
    if (left.value <= 0) return retry(true);
    const timer = setTimeout(() => left.value !== null && left.value--, 1_000);
    return () => clearTimeout(timer);
  }, [left.value]);
  const startNew = (): void => newConversation(conversation.takeBack(entry));
  return (
    <>
      {left.value !== null && (
        <p class="countdown" aria-live="off">{t("retryIn", { n: left.value })}</p>
      )}
      <div class="buttons">
        {problem.remedy === "key" && (
          <button class="primary" onClick={() => (keyDialog.value = "rejected")}>{t("changeKey")}</button>
        )}
        {problem.remedy === "new" && (
          <button class="primary" onClick={startNew}>{t("startNew")}</button>
        )}
        <button onClick={() => retry()}>{t(left.value === null ? "retry" : "retryNow")}</button>
        {left.value !== null && (
          <button class="plain" onClick={() => (left.value = null)}>{t("cancel")}</button>
        )}
      </div>
    </>
  );
}
