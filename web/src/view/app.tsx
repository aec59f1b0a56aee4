/** The frame: key card, or list beside conversation. */

import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { announcement, current, keyDialog, newConversation, opening, toast } from "../desk";
import { t } from "../i18n";
import { apiKey } from "../prefs";
import { Composer } from "./composer";
import { Header } from "./header";
import { KeyCard } from "./key_card";
import { Modal } from "./modal";
import { Settings } from "./settings";
import { Sidebar } from "./sidebar";
import { Transcript } from "./transcript";

export function App() {
  const drawer = useSignal(false);
  const settings = useSignal(false);
  useTitle();
  if (!apiKey.value) return <Welcome />;
  return (
    <div class="frame">
      <Sidebar drawer={drawer} onSettings={() => (settings.value = true)} />
      <main class="desk">
        <Header onMenu={() => (drawer.value = true)} />
        {opening.value ? (
          <div class="opening" role="status">{t("loadingChat")}</div>
        ) : (
          <Transcript key={current.value} conversation={current.value} />
        )}
        <Composer conversation={current.value} />
      </main>
      {settings.value && <Settings onClose={() => (settings.value = false)} />}
      {keyDialog.value === "rejected" && <RejectedKey />}
      <Toast />
      <div class="unseen" role="status">{announcement.value}</div>
    </div>
  );
}

function Welcome() {
  return (
    <main class="welcome">
      <KeyCard rejected={false} onDone={() => (keyDialog.value = "none")} />
    </main>
  );
}

function RejectedKey() {
  const close = (): void => void (keyDialog.value = "none");
  return (
    <Modal label={t("keyTitle")} onClose={close}>
      <KeyCard rejected onDone={close} onClose={close} />
    </Modal>
  );
}

const TOAST_MS = 8_000;

function Toast() {
  const shown = toast.value;
  useEffect(() => {
    if (!shown) return;
    const timer = setTimeout(() => toast.value === shown && (toast.value = null), TOAST_MS);
    return () => clearTimeout(timer);
  }, [shown]);
  if (!shown) return null;
  return (
    <div class="toast" role="alert">
      <span>{shown.text}</span>
      {shown.undo && <button class="plain" onClick={shown.undo}>{t("undo")}</button>}
    </div>
  );
}

function useTitle(): void {
  const title = current.value.title.value;
  useEffect(() => void (document.title = title ? `${title} · Tandem` : "Tandem"), [title]);
  useEffect(() => {
    const onKey = (event: KeyboardEvent): void => {
      if ((event.ctrlKey || event.metaKey) && event.shiftKey && event.code === "KeyO") {
        event.preventDefault();
        newConversation();
      }
    };
    addEventListener("keydown", onKey);
    return () => removeEventListener("keydown", onKey);
  }, []);
}
