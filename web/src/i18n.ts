/** The page's words in both languages. English names the keys; a test keeps both complete. */

import { computed, effect } from "@preact/signals";
import { en } from "./words.en";
import { zh } from "./words.zh";
import { prefs } from "./prefs";

export type Word = keyof typeof en;
type Values = Record<string, string | number>;

export const language = computed<"zh" | "en">(
  () => prefs.value.language ?? (navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en"),
);

export function t(word: Word, values: Values = {}): string {
  const text: string = (language.value === "zh" ? zh : en)[word];
  return text.replace(/\{(\w+)\}/g, (_, name: string) => String(values[name] ?? ""));
}

export function applyLanguage(): void {
  effect(() => {
    document.documentElement.lang = language.value === "zh" ? "zh-CN" : "en";
  });
}
