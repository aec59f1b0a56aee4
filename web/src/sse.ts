/** Server-Sent Events out of text that arrives in any pieces. Pure; knows no event by name. */

export interface ServerEvent {
  event: string;
  data: string;
  /** Empty when the event carried none. */
  id: string;
}

export class EventParser {
  private rest = "";
  private event = "";
  private data: string[] = [];
  private id = "";

  feed(text: string): ServerEvent[] {
    this.rest += text;
    const found: ServerEvent[] = [];
    for (let line = this.takeLine(); line !== null; line = this.takeLine()) {
      const event = this.takeIn(line);
      if (event) found.push(event);
    }
    return found;
  }

  /** A "\r" at the very end may be half of "\r\n": it waits for the next piece. */
  private takeLine(): string | null {
    const end = this.rest.search(/\r\n|\n|\r(?!$)/);
    if (end < 0) return null;
    const line = this.rest.slice(0, end);
    const width = this.rest.startsWith("\r\n", end) ? 2 : 1;
    this.rest = this.rest.slice(end + width);
    return line.startsWith("\uFEFF") ? line.slice(1) : line;
  }

  private takeIn(line: string): ServerEvent | null {
    if (line === "") return this.dispatch();
    if (line.startsWith(":")) return null;
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "data") this.data.push(value);
    else if (field === "event") this.event = value;
    else if (field === "id") this.id = value;
    return null;
  }

  private dispatch(): ServerEvent | null {
    const found = this.data.length
      ? { event: this.event || "message", data: this.data.join("\n"), id: this.id }
      : null;
    this.event = "";
    this.data = [];
    this.id = "";
    return found;
  }
}
