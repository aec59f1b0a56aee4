/** Language, appearance, and the few sampling settings that matter. */

import { useSignal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { signOut } from "../desk";
import { type Word, language, t } from "../i18n";
import { type Theme, prefs, setPrefs } from "../prefs";
import { Icon } from "./icons";
import { Modal } from "./modal";

export function Settings({ onClose }: { onClose: () => void }) {
  const system = useSignal(prefs.value.system);
  const temperature = useSignal(asText(prefs.value.temperature));
  const maxTokens = useSignal(asText(prefs.value.maxTokens));
  const save = (event: Event): void => {
    event.preventDefault();
    setPrefs({
      system: system.value.trim(),
      temperature: asNumber(temperature.value),
      maxTokens: asNumber(maxTokens.value),
    });
    onClose();
  };
  return (
    <Modal label={t("settings")} onClose={onClose}>
      <form class="settings" onSubmit={save}>
        <div class="settings-head">
          <h2>{t("settings")}</h2>
          <button type="button" class="square" aria-label={t("close")} onClick={onClose}>
            <Icon name="close" />
          </button>
        </div>
        <Choice
          word="language" value={language.value} choices={{ zh: "中文", en: "English" }}
          onChoose={(value) => setPrefs({ language: value as "zh" | "en" })}
        />
        <Choice
          word="theme" value={prefs.value.theme}
          choices={{ auto: t("themeAuto"), light: t("themeLight"), dark: t("themeDark") }}
          onChoose={(value) => setPrefs({ theme: value as Theme })}
        />
        <Field word="system" why="systemWhy">
          <textarea
            rows={3} value={system.value} aria-describedby="why-system"
            onInput={(event) => (system.value = event.currentTarget.value)}
          />
        </Field>
        <div class="pair">
          <Field word="temperature" why="temperatureWhy">
            <input
              type="number" min="0" max="2" step="0.1" placeholder={t("serverDefault")}
              value={temperature.value} aria-describedby="why-temperature"
              onInput={(event) => (temperature.value = event.currentTarget.value)}
            />
          </Field>
          <Field word="maxTokens" why="maxTokensWhy">
            <input
              type="number" min="1" max="131072" step="1" placeholder={t("serverDefault")}
              value={maxTokens.value} aria-describedby="why-maxTokens"
              onInput={(event) => (maxTokens.value = event.currentTarget.value)}
            />
          </Field>
        </div>
        <div class="buttons">
          <button type="submit" class="primary">{t("save")}</button>
          <button type="button" onClick={onClose}>{t("cancel")}</button>
          <button
            type="button" class="plain sign-out" title={t("signOutWhy")}
            onClick={() => (onClose(), signOut())}
          >
            <Icon name="leave" />{t("signOut")}
          </button>
        </div>
      </form>
    </Modal>
  );
}

interface ChoiceProps {
  word: Word;
  value: string;
  choices: Record<string, string>;
  onChoose: (value: string) => void;
}

function Choice({ word, value, choices, onChoose }: ChoiceProps) {
  return (
    <fieldset class="choice">
      <legend>{t(word)}</legend>
      <div>
        {Object.entries(choices).map(([name, label]) => (
          <label key={name}>
            <input
              type="radio" name={word} checked={value === name} onChange={() => onChoose(name)}
            />
            <span>{label}</span>
          </label>
        ))}
      </div>
    </fieldset>
  );
}

function Field({ word, why, children }: { word: Word; why: Word; children: ComponentChildren }) {
  return (
    <div class="field">
      <label>
        <span>{t(word)}</span>
        {children}
      </label>
      <small id={`why-${word}`}>{t(why)}</small>
    </div>
  );
}

const asText = (value: number | null): string => (value === null ? "" : String(value));
const asNumber = (value: string): number | null => (value.trim() === "" ? null : Number(value));
