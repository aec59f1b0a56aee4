/** Markdown to safe DOM, block by block. Model output is hostile: raw HTML is shown as text,
 *  images are named and never fetched, and DOMPurify has the last word. */

import DOMPurify from "dompurify";
import { Marked, type Token, type Tokens, type TokensList } from "marked";

export interface Labels {
  image: string;
}

const ALLOWED_TAGS = [
  "p", "br", "strong", "em", "del", "code", "pre", "blockquote", "hr", "a",
  "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "li",
  "table", "thead", "tbody", "tr", "th", "td",
]; // prettier-ignore
const ALLOWED_ATTR = ["href", "start", "class", "align", "title"];

export class Markdown {
  private readonly marked: Marked;

  constructor(labels: Labels) {
    this.marked = new Marked({ gfm: true, breaks: true });
    this.marked.use({
      renderer: {
        html: ({ text }) => (/^<br\s*\/?>$/i.test(text.trim()) ? "<br>" : escape(text)),
        image: ({ href, text }) => image(href, text, labels),
        checkbox: ({ checked }) => (checked ? "☑ " : "☐ "),
      },
    });
  }

  /** Top-level pieces with their source, so that unchanged ones need not be made again. */
  blocks(text: string): TokensList {
    return this.marked.lexer(text);
  }

  render(block: Token): DocumentFragment {
    const html = this.marked.parser([block]);
    const clean = DOMPurify.sanitize(html, {
      ALLOWED_TAGS,
      ALLOWED_ATTR,
      ALLOWED_URI_REGEXP: /^https?:/i,
      ADD_URI_SAFE_ATTR: ["align", "start"],
      ALLOW_DATA_ATTR: false,
      ALLOW_ARIA_ATTR: false,
      RETURN_DOM_FRAGMENT: true,
    });
    clean.querySelectorAll("a").forEach(harden);
    return clean;
  }

  isClosedFence(block: Token): boolean {
    return block.type === "code" && /\n {0,3}(`{3,}|~{3,})\s*$/.test(block.raw);
  }

  languageOf(block: Token): string {
    if (block.type !== "code") return "";
    return (block as Tokens.Code).lang?.split(/\s/)[0] ?? "";
  }
}

function harden(link: HTMLAnchorElement): void {
  const href = link.getAttribute("href") ?? "";
  if (!/^https?:\/\//i.test(href)) {
    link.replaceWith(...link.childNodes);
    return;
  }
  link.target = "_blank";
  link.rel = "noopener noreferrer nofollow";
  link.title = href;
}

function image(href: string, text: string, labels: Labels): string {
  const name = escape(`${text || href} (${labels.image})`);
  return /^https?:\/\//i.test(href) ? `<a href="${escape(href)}">${name}</a>` : name;
}

function escape(text: string): string {
  const codes: Record<string, string> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" };
  return text.replace(/[&<>"]/g, (sign) => codes[sign] ?? sign);
}
