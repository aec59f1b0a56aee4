/** Asks for the API key and tries it before it is kept. */

import { useSignal } from "@preact/signals";
import { Api, ApiError } from "../api";
import { language, t } from "../i18n";
import { keepKey, keyIsRemembered, setPrefs } from "../prefs";
import { Mark } from "./icons";

interface Props {
  rejected: boolean;
  onDone: () => void;
  onClose?: () => void;
}

type State = "idle" | "testing" | "rejected" | "unreachable";

export function KeyCard({ rejected, onDone, onClose }: Props) {
  const key = useSignal("");
  const shown = useSignal(false);
  const remember = useSignal(keyIsRemembered());
  const state = useSignal<State>(rejected ? "rejected" : "idle");

  const submit = async (event: Event): Promise<void> => {
    event.preventDefault();
    const value = key.value.trim();
    if (!value || state.value === "testing") return;
    state.value = "testing";
    state.value = await verdict(value);
    if (state.value !== "idle") return;
    keepKey(value, remember.value);
    onDone();
  };

  return (
    <form class="key-card" onSubmit={(event) => void submit(event)}>
      <div class="brand"><Mark /><span>Tandem</span><LanguageSwitch /></div>
      <h1>{t("keyTitle")}</h1>
      <p class="quiet">{t("keyWhy")}</p>
      {(state.value === "rejected" || state.value === "unreachable") && (
        <div class="card danger" role="alert">
          <strong>{t(state.value === "rejected" ? "keyRejected" : "keyUnreachable")}</strong>
          {state.value === "rejected" && <p>{t("keyRejectedDo")}</p>}
        </div>
      )}
      <label class="field">
        <span>{t("keyLabel")}</span>
        <span class="with-button">
          <input
            {...(shown.value ? { type: "text" } : { type: "password" })}
            name="key" autocomplete="current-password" spellcheck={false} autofocus required
            value={key.value}
            onInput={(event) => (key.value = event.currentTarget.value)}
          />
          <button type="button" class="plain" onClick={() => (shown.value = !shown.value)}>
            {t(shown.value ? "keyHide" : "keyShow")}
          </button>
        </span>
      </label>
      <label class="check">
        <input
          type="checkbox" checked={remember.value}
          onChange={(event) => (remember.value = event.currentTarget.checked)}
        />
        <span>{t("keyRemember")}<small>{t("keyRememberWhy")}</small></span>
      </label>
      <div class="buttons">
        <button type="submit" class="primary" disabled={state.value === "testing"}>
          {t(state.value === "testing" ? "keyTesting" : "keyContinue")}
        </button>
        {onClose && <button type="button" onClick={onClose}>{t("keyClose")}</button>}
      </div>
    </form>
  );
}

/** Only a clear no rejects: while the model loads or the store is away, a key may still be good. */
async function verdict(key: string): Promise<State> {
  const api = new Api({ fetch: (...args) => fetch(...args), key: () => key });
  try {
    await api.sessions("", null);
    return "idle";
  } catch (error) {
    if (!(error instanceof ApiError)) return "unreachable";
    return error.status === 401 || error.status === 403 ? "rejected" : "idle";
  }
}

function LanguageSwitch() {
  const other = language.value === "zh" ? "en" : "zh";
  return (
    <button
      type="button" class="plain language" lang={other === "zh" ? "zh-CN" : "en"}
      onClick={() => setPrefs({ language: other })}
    >
      {other === "zh" ? "中文" : "English"}
    </button>
  );
}
