/** What this browser remembers: theme, language, sampling settings, and the key where asked. */

import { effect, signal } from "@preact/signals";

export type Theme = "auto" | "light" | "dark";

export interface Prefs {
  theme: Theme;
  language: "zh" | "en" | null;
  system: string;
  temperature: number | null;
  maxTokens: number | null;
}

const PREFS = "tandem.prefs";
const KEY = "tandem.key";
const START: Prefs = { theme: "auto", language: null, system: "", temperature: null, maxTokens: null };

export const prefs = signal<Prefs>({ ...START, ...readPrefs() });
export const apiKey = signal<string>(stored(sessionStorage, KEY) || stored(localStorage, KEY));

export function setPrefs(change: Partial<Prefs>): void {
  prefs.value = { ...prefs.value, ...change };
  store(localStorage, PREFS, JSON.stringify(prefs.value));
}

export function keepKey(key: string, remember: boolean): void {
  forget(localStorage, KEY);
  forget(sessionStorage, KEY);
  store(remember ? localStorage : sessionStorage, KEY, key);
  apiKey.value = key;
}

export function dropKey(): void {
  forget(localStorage, KEY);
  forget(sessionStorage, KEY);
  apiKey.value = "";
}

export function keyIsRemembered(): boolean {
  return stored(localStorage, KEY) !== "";
}

export function applyTheme(): void {
  effect(() => {
    const { theme } = prefs.value;
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
  });
}

function readPrefs(): Partial<Prefs> {
  try {
    return JSON.parse(stored(localStorage, PREFS) || "{}") as Partial<Prefs>;
  } catch {
    return {};
  }
}

// A browser may forbid storage altogether: the page then works, and forgets.
export function stored(storage: Storage, name: string): string {
  try {
    return storage.getItem(name) ?? "";
  } catch {
    return "";
  }
}

export function store(storage: Storage, name: string, value: string): void {
  try {
    storage.setItem(name, value);
  } catch {
    return;
  }
}

export function forget(storage: Storage, name: string): void {
  try {
    storage.removeItem(name);
  } catch {
    return;
  }
}
