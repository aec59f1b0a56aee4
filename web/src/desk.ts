/** What is on the desk: the list of conversations, the open one, and what may be done to them. */

import { signal } from "@preact/signals";
import { ApiError, type SessionHead } from "./api";
import { Conversation, type Watcher } from "./conversation";
import { look } from "./health";
import { type Word, t } from "./i18n";
import { api } from "./network";
import { apiKey, dropKey } from "./prefs";
import { problemOf } from "./problems";
import { runningTurns } from "./running";

export const heads = signal<SessionHead[]>([]);
export const nextCursor = signal<string | null>(null);
export const query = signal("");
export const listFailed = signal(false);
export const keyDialog = signal<"none" | "rejected">("none");
export const announcement = signal("");
export const opening = signal(false);
/** A short line at the bottom, with an undo where there is one. */
export const toast = signal<{ text: string; undo?: () => void } | null>(null);

const UNDO_MS = 8_000;
const live = new Map<string, Conversation>();
const removing = new Map<string, () => void>();
const RETRY_OPEN_MS = 3_000;
/** Begun, never named, and left with something in it. */
let unnamed: Conversation | null = null;

const watcher: Watcher = {
  named(conversation) {
    live.set(conversation.id.value ?? "", conversation);
    if (current.value === conversation) showInAddress(conversation.id.value);
    void loadList();
  },
  ended(conversation) {
    const id = conversation.id.value;
    if (id && current.value !== conversation) live.delete(id);
    void loadList();
    void look();
  },
  rejected: () => (keyDialog.value = "rejected"),
  announce: (what) => (announcement.value = t(what)),
};

export const current = signal<Conversation>(new Conversation(watcher));

export async function loadList(more = false): Promise<void> {
  if (!apiKey.value) return;
  const asked = query.value;
  try {
    const page = await api.sessions(asked, more ? nextCursor.value : null);
    if (asked !== query.value) return;
    heads.value = more ? [...heads.value, ...page.data] : page.data;
    nextCursor.value = page.has_more ? (page.next_cursor ?? page.data.at(-1)?.id ?? null) : null;
    listFailed.value = false;
  } catch (error) {
    listFailed.value = true;
    checkKey(error);
  }
}

export const visibleHeads = (): SessionHead[] =>
  heads.value.filter((head) => !removing.has(head.id));

/** With nothing given, what was begun before without a name comes back. */
export function newConversation(draft = ""): void {
  const before = current.value;
  leaveCurrent();
  const kept = before === unnamed ? null : unnamed;
  const again = before === unnamed ? textIn(before) : "";
  unnamed = null;
  current.value = (draft ? null : kept) ?? new Conversation(watcher);
  if (draft || again) current.value.draft.value = draft || again;
  showInAddress(null);
}

function textIn(conversation: Conversation): string {
  const last = conversation.entries.value.at(-1);
  const question = last?.problem.value ? conversation.entries.value.at(-2)?.text.value : "";
  return question || conversation.draft.value;
}

export async function openConversation(id: string): Promise<void> {
  if (current.value.id.value === id) return;
  const known = live.get(id);
  leaveCurrent();
  if (known) {
    current.value = known;
    return showInAddress(id);
  }
  opening.value = true;
  try {
    const conversation = new Conversation(watcher);
    conversation.fill(await api.session(id));
    live.set(id, conversation);
    current.value = conversation;
    showInAddress(id);
    const running = runningTurns().find((ask) => ask.sessionId === id);
    if (running) void conversation.reattach(running);
  } catch (error) {
    checkKey(error);
    toast.value = { text: t(problemOf(error, false).what) };
    if (error instanceof ApiError && error.status < 500) newConversation();
    else setTimeout(() => void openAgain(id), RETRY_OPEN_MS);
    void loadList();
  } finally {
    opening.value = false;
  }
}

/** While the server was away; unless something else is on the desk by now. */
async function openAgain(id: string): Promise<void> {
  const { entries, draft } = current.value;
  if (addressed() === id && !entries.value.length && !draft.value) await openConversation(id);
}

function addressed(): string | null {
  const id = /^#\/c\/(.+)$/.exec(location.hash)?.[1];
  return id ? decodeURIComponent(id) : null;
}

/** After a load of the page: the conversation in the address, or one that had no name yet. */
export async function openFromAddress(): Promise<void> {
  const id = addressed();
  if (id) return openConversation(id);
  const nameless = runningTurns().find((ask) => !ask.sessionId);
  if (nameless) await current.value.reattach(nameless);
}

export async function rename(id: string, title: string): Promise<void> {
  await attempt(async () => {
    await api.rename(id, title);
    const open = live.get(id);
    if (open) open.title.value = title;
    heads.value = heads.value.map((head) => (head.id === id ? { ...head, title } : head));
  });
}

export function remove(head: SessionHead): void {
  const finish = (): void => {
    clearTimeout(timer);
    if (!removing.delete(head.id)) return;
    void attempt(() => api.remove(head.id)).then(() => loadList());
    if (toast.value?.undo === undo) toast.value = null;
  };
  const undo = (): void => {
    clearTimeout(timer);
    removing.delete(head.id);
    heads.value = [...heads.value];
    toast.value = null;
  };
  const timer = setTimeout(finish, UNDO_MS);
  removing.set(head.id, finish);
  heads.value = [...heads.value];
  live.delete(head.id);
  if (current.value.id.value === head.id) newConversation();
  toast.value = { text: t("removed", { title: head.title || t("untitled") }), undo };
}

/** Leaving the page ends the time for an undo. */
export function finishRemoving(): void {
  for (const finish of [...removing.values()]) finish();
}

export async function exportConversation(head: SessionHead, format: "md" | "json"): Promise<void> {
  await attempt(async () => {
    const blob = await api.export(head.id, format);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    const name = (head.title || "tandem").replace(/[\\/:*?"<>|\s]+/g, "-").slice(0, 60);
    link.download = `${name}.${format}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  });
}

export function signOut(): void {
  dropKey();
  live.clear();
  unnamed = null;
  current.value = new Conversation(watcher);
  heads.value = [];
  newConversation();
  keyDialog.value = "none";
}

async function attempt(action: () => Promise<void>): Promise<void> {
  try {
    await action();
  } catch (error) {
    checkKey(error);
    const word: Word = error instanceof ApiError ? problemOf(error, false).what : "errAction";
    toast.value = { text: t(word) };
  }
}

function checkKey(error: unknown): void {
  if (error instanceof ApiError && error.status === 401) keyDialog.value = "rejected";
}

function leaveCurrent(): void {
  const { id, running, unfinished } = current.value;
  if (!id.value && unfinished) unnamed = current.value;
  if (id.value && !running.value && !unfinished) live.delete(id.value);
}

function showInAddress(id: string | null): void {
  const hash = id ? `#/c/${encodeURIComponent(id)}` : "";
  history.replaceState(null, "", `${location.pathname}${location.search}${hash}`);
}
