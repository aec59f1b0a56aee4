/** Growing Markdown on the screen: at most one rendering per frame, and a finished block is never
 *  made again, so that a selection in it survives. */

import type { Signal } from "@preact/signals";
import type { Token } from "marked";
import { useEffect, useRef } from "preact/hooks";
import { copyText } from "../clipboard";
import { toast } from "../desk";
import { language, t } from "../i18n";
import type { Markdown } from "../markdown";

/** Parser and sanitiser are half of the page's weight: they come after the first paint. If they
 *  cannot be had, the text is shown as it is. */
const parts = import("../markdown").catch(() => null);

interface Shown {
  raw: string;
  node: HTMLElement;
}

export function MarkdownText({ text }: { text: Signal<string> }) {
  const place = useRef<HTMLDivElement>(null);
  const words = language.value;
  useEffect(() => {
    let markdown: Markdown | null = null;
    let shown: Shown[] = [];
    let frame = 0;
    let plain = false;
    const draw = (): void => {
      frame = 0;
      if (!place.current) return;
      if (markdown) shown = update(place.current, shown, markdown, text.peek());
      else if (plain) place.current.textContent = text.peek();
    };
    void parts.then((found) => {
      place.current?.replaceChildren();
      plain = found === null;
      markdown = found && new found.Markdown({ image: t("imageNotLoaded") });
      draw();
    });
    const end = text.subscribe(() => (frame ||= requestAnimationFrame(draw)));
    return () => (end(), cancelAnimationFrame(frame));
  }, [text, words]);
  return <div ref={place} />;
}

function update(place: HTMLElement, shown: Shown[], markdown: Markdown, text: string): Shown[] {
  const blocks = markdown.blocks(text).filter((block) => block.type !== "space");
  let same = 0;
  while (same < blocks.length && shown[same]?.raw === blocks[same]?.raw) same++;
  for (const old of shown.slice(same)) old.node.remove();
  const fresh = blocks.slice(same).map((block) => ({ raw: block.raw, node: make(markdown, block) }));
  place.append(...fresh.map((block) => block.node));
  return [...shown.slice(0, same), ...fresh];
}

function make(markdown: Markdown, block: Token): HTMLElement {
  const node = document.createElement("div");
  node.className = "block";
  node.append(markdown.render(block));
  node.querySelectorAll("table").forEach((table) => frameTable(table));
  node.querySelectorAll("pre").forEach((pre) => frameCode(pre, markdown.languageOf(block)));
  if (markdown.isClosedFence(block)) void colour(node, markdown.languageOf(block));
  return node;
}

/** A wide table scrolls in a box of its own. */
function frameTable(table: HTMLElement): void {
  const box = document.createElement("div");
  box.className = "table-box";
  scrollable(box, t("table"));
  table.replaceWith(box);
  box.append(table);
}

function frameCode(pre: HTMLElement, named: string): void {
  const box = document.createElement("div");
  box.className = "code-box";
  const name = document.createElement("span");
  name.textContent = named;
  const head = document.createElement("div");
  head.className = "code-head";
  head.append(name, copyButton(pre));
  pre.replaceWith(box);
  box.append(head, pre);
  scrollable(pre, named || t("code"));
}

/** An open fence is not coloured: it changes with every word. */
async function colour(node: HTMLElement, language: string): Promise<void> {
  const code = node.querySelector("pre code");
  if (!code || !language) return;
  // Without it (the server is away, or has a newer page by now) the code is as readable.
  const colours = await import("../highlight").catch(() => null);
  const fragment = colours?.coloured(code.textContent ?? "", language.toLowerCase());
  if (fragment) code.replaceChildren(fragment);
}

function scrollable(node: HTMLElement, label: string): void {
  node.tabIndex = 0;
  node.setAttribute("role", "region");
  node.setAttribute("aria-label", label);
}

function copyButton(pre: HTMLElement): HTMLButtonElement {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "plain tiny";
  button.textContent = t("copy");
  button.addEventListener("click", () => void copyFrom(pre, button));
  return button;
}

async function copyFrom(pre: HTMLElement, button: HTMLButtonElement): Promise<void> {
  if (!(await copyText(pre.textContent ?? ""))) {
    getSelection()?.selectAllChildren(pre);
    toast.value = { text: t("copyFailed") };
    return;
  }
  button.textContent = t("copied");
  setTimeout(() => (button.textContent = t("copy")), 1_500);
}
