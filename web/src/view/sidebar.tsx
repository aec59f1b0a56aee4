/** The list of conversations: search, open, rename, export, delete. */

import { type Signal, useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import type { SessionHead } from "../api";
import { timeOf } from "../conversation";
import {
  current, exportConversation, listFailed, loadList, newConversation, nextCursor,
  openConversation, query, remove, rename, visibleHeads,
} from "../desk"; // prettier-ignore
import { type Word, t } from "../i18n";
import { compositionEnded, isForInputMethod } from "../ime";
import { Icon, Mark } from "./icons";

interface Props {
  drawer: Signal<boolean>;
  onSettings: () => void;
}

export function Sidebar({ drawer, onSettings }: Props) {
  const close = (): void => void (drawer.value = false);
  return (
    <>
      {drawer.value && <div class="veil" onClick={close} />}
      <nav
        class={`side ${drawer.value ? "open" : ""}`} aria-label={t("menu")}
        onKeyDown={(event) => event.key === "Escape" && close()}
      >
        <div class="brand">
          <Mark /><span>Tandem</span>
          <button class="square only-narrow" aria-label={t("close")} onClick={close}>
            <Icon name="close" />
          </button>
        </div>
        <button class="new" onClick={() => (newConversation(), close())}>
          <Icon name="plus" />{t("newChat")}
        </button>
        <Search />
        <Groups onOpen={close} />
        <button class="foot" onClick={onSettings}><Icon name="gear" />{t("settings")}</button>
      </nav>
    </>
  );
}

function Search() {
  const timer = useRef<ReturnType<typeof setTimeout> | undefined>(undefined);
  const search = (value: string): void => {
    query.value = value;
    clearTimeout(timer.current);
    timer.current = setTimeout(() => void loadList(), 200);
  };
  return (
    <label class="search">
      <Icon name="search" />
      <input
        type="search" aria-label={t("search")} placeholder={t("search")} value={query.value}
        onInput={(event) => search(event.currentTarget.value)}
      />
    </label>
  );
}

function Groups({ onOpen }: { onOpen: () => void }) {
  const shown = visibleHeads();
  const groups = (["today", "yesterday", "earlier"] as const).map(
    (word) => [word, shown.filter((head) => dayOf(head) === word)] as const,
  );
  return (
    <div class="list">
      {listFailed.value && (
        <div class="list-note">
          {t("errList")} <button class="plain" onClick={() => void loadList()}>{t("retry")}</button>
        </div>
      )}
      {!shown.length && !listFailed.value && (
        <p class="list-note">{t(query.value ? "noMatches" : "noChats")}</p>
      )}
      {groups.filter(([, some]) => some.length).map(([word, some]) => (
        <section key={word}>
          <h2>{t(word)}</h2>
          <ul>{some.map((head) => <Item key={head.id} head={head} onOpen={onOpen} />)}</ul>
        </section>
      ))}
      {nextCursor.value && (
        <button class="plain more" onClick={() => void loadList(true)}>{t("more")}</button>
      )}
    </div>
  );
}

function dayOf(head: SessionHead): "today" | "yesterday" | "earlier" {
  const midnight = new Date().setHours(0, 0, 0, 0);
  const at = timeOf(head.updated_at);
  if (at >= midnight) return "today";
  return at >= midnight - 86_400_000 ? "yesterday" : "earlier";
}

function Item({ head, onOpen }: { head: SessionHead; onOpen: () => void }) {
  const renaming = useSignal(false);
  const here = current.value.id.value === head.id;
  const open = (): void => {
    onOpen();
    void openConversation(head.id);
  };
  if (renaming.value) return <li><Rename head={head} onEnd={() => (renaming.value = false)} /></li>;
  return (
    <li class={here ? "here" : ""}>
      <button class="open" aria-current={here ? "page" : undefined} onClick={open}>
        {head.title || t("untitled")}
      </button>
      <ItemMenu head={head} onRename={() => (renaming.value = true)} />
    </li>
  );
}

function Rename({ head, onEnd }: { head: SessionHead; onEnd: () => void }) {
  const field = useRef<HTMLInputElement>(null);
  const ended = useRef(false);
  useEffect(() => field.current?.select(), []);
  const end = (keep: boolean): void => {
    if (ended.current) return;
    ended.current = true;
    const title = field.current?.value.trim() ?? "";
    onEnd();
    if (keep && title && title !== head.title) void rename(head.id, title);
  };
  const onKey = (event: KeyboardEvent): void => {
    if (isForInputMethod(event)) return;
    if (event.key === "Enter") end(true);
    if (event.key === "Escape") end(false);
  };
  return (
    <input
      ref={field} class="rename" aria-label={t("renameLabel")} defaultValue={head.title}
      maxLength={120} autofocus onKeyDown={onKey} onBlur={() => end(true)}
      onCompositionEnd={() => compositionEnded()}
    />
  );
}

function ItemMenu({ head, onRename }: { head: SessionHead; onRename: () => void }) {
  const open = useSignal(false);
  const place = useRef<HTMLDivElement>(null);
  useEffect(() => {
    if (!open.value) return;
    place.current?.querySelector<HTMLElement>("[role=menuitem]")?.focus();
    const away = (event: Event): void => {
      if (!place.current?.contains(event.target as Node)) open.value = false;
    };
    addEventListener("pointerdown", away);
    return () => removeEventListener("pointerdown", away);
  }, [open.value]);
  const entries: [Word, Parameters<typeof Icon>[0]["name"], () => void][] = [
    ["rename", "pen", onRename],
    ["exportMd", "out", () => void exportConversation(head, "md")],
    ["exportJson", "out", () => void exportConversation(head, "json")],
    ["remove", "bin", () => remove(head)],
  ];
  return (
    <div class="menu-place" ref={place} onKeyDown={(event) => walk(event, () => (open.value = false))}>
      <button
        class="square more-button" aria-haspopup="menu" aria-expanded={open.value}
        aria-label={t("actions", { title: head.title || t("untitled") })}
        onClick={() => (open.value = !open.value)}
      >
        <Icon name="more" />
      </button>
      {open.value && (
        <div class="menu" role="menu">
          {entries.map(([word, icon, act]) => (
            <button
              key={word} role="menuitem" class={word === "remove" ? "danger-text" : ""}
              onClick={() => ((open.value = false), act())}
            >
              <Icon name={icon} />{t(word)}
            </button>
          ))}
        </div>
      )}
    </div>
  );
}

/** Arrow keys go through the menu, Escape closes it and gives the focus back. */
function walk(event: KeyboardEvent, close: () => void): void {
  const place = event.currentTarget as HTMLElement;
  const items = [...place.querySelectorAll<HTMLElement>("[role=menuitem]")];
  const at = items.indexOf(document.activeElement as HTMLElement);
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (event.key === "Escape" && items.length) {
    event.stopPropagation();
    close();
    place.querySelector("button")?.focus();
  } else if (step && items.length) {
    event.preventDefault();
    items[(at + step + items.length) % items.length]?.focus();
  }
}
