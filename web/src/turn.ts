/** One turn from the question to its end, across lost connections. Owns: the order of POST and
 *  reattach, backoff, when to give up. Not here: what is shown (conversation.ts). */

import { type Api, ApiError, ConnectionLost } from "./api";
import { EventParser, type ServerEvent } from "./sse";

export interface Ask {
  turnId: string;
  sessionId: string | null;
  prompt: string;
  system: string;
  temperature: number | null;
  maxTokens: number | null;
}

export interface TurnStarted {
  turn_id: string;
  session_id: string;
  trimmed_turns?: number;
}

export interface TurnDone {
  session_id: string;
  finish_reason: string | null;
  usage?: { prompt_tokens?: number; completion_tokens?: number } | null;
  failovers?: number;
  /** false: the store was away, the conversation does not remember this turn. */
  saved?: boolean;
  engine?: string;
}

export interface Listener {
  started(data: TurnStarted): void;
  text(piece: string): void;
  /** `false`: the connection is lost and being made again. */
  connected(yes: boolean): void;
}

export interface Surroundings {
  api: Api;
  online: () => boolean;
  /** Ends after that time, or at once when the network comes back or the turn is given up. */
  pause: (ms: number, signal: AbortSignal) => Promise<void>;
  /** Settles when the browser loses its network. */
  offline: (signal: AbortSignal) => Promise<void>;
  now: () => number;
}

/** Without contact for so long (not counting time offline) a turn is given up. */
export const GIVE_UP_MS = 60_000;
const SILENCE_MS = 45_000;
const OFFLINE_LOOK_MS = 30_000;

/** The turn's log is gone; a finished answer may still be in its session. */
export class TurnForgotten extends Error {}

/** The turn ended, and not well: there is nothing to follow any more. */
export class TurnFailed extends ApiError {}

export class Turn {
  private lastEventId = "";
  private started = false;
  private patience = GIVE_UP_MS;
  private mark: number;
  private tries = 0;

  constructor(
    private readonly ask: Ask,
    private readonly around: Surroundings,
    private readonly listener: Listener,
    private readonly signal: AbortSignal,
  ) {
    this.mark = around.now();
  }

  /** Asks, and follows the answer to its end. */
  run(): Promise<TurnDone> {
    return this.follow("ask");
  }

  /** Follows a turn that was asked for before (the page was loaded again). */
  reattach(): Promise<TurnDone> {
    return this.follow("attach");
  }

  private async follow(first: "ask" | "attach"): Promise<TurnDone> {
    let step = first;
    for (;;) {
      try {
        const response = await (step === "ask" ? this.post() : this.events());
        const done = await this.read(response);
        if (done) return done;
        step = "attach";
      } catch (error) {
        step = this.after(error, step, first);
      }
      await this.beforeNextTry();
    }
  }

  /** What to do after a failed try; throws when there is nothing more to do. */
  private after(error: unknown, step: "ask" | "attach", first: "ask" | "attach"): "ask" | "attach" {
    this.signal.throwIfAborted();
    if (error instanceof TurnFailed) throw error;
    if (error instanceof ApiError) {
      if (error.status === 404 && step === "attach") {
        if (first === "ask" && !this.started) return "ask";
        throw new TurnForgotten();
      }
      if (step === "ask" || !isPassing(error)) throw error;
    } else if (!(error instanceof ConnectionLost)) throw error;
    return "attach";
  }

  private async beforeNextTry(): Promise<void> {
    this.listener.connected(false);
    this.spend();
    if (this.around.online()) {
      await this.around.pause(Math.min(8_000, 400 * 2 ** this.tries++), this.signal);
      this.spend();
    } else {
      while (!this.around.online()) await this.around.pause(OFFLINE_LOOK_MS, this.signal);
      this.mark = this.around.now();
      this.tries = 0;
    }
    this.signal.throwIfAborted();
    if (this.patience <= 0) throw new ConnectionLost("no contact");
  }

  private spend(): void {
    const now = this.around.now();
    this.patience -= now - this.mark;
    this.mark = now;
  }

  private contact(): void {
    this.patience = GIVE_UP_MS;
    this.mark = this.around.now();
    this.listener.connected(true);
  }

  private post(): Promise<Response> {
    const { ask } = this;
    const body = {
      prompt: ask.prompt,
      turn_id: ask.turnId,
      stream: true,
      ...(ask.sessionId ? { session_id: ask.sessionId } : {}),
      ...(ask.system ? { system: ask.system } : {}),
      ...(ask.temperature === null ? {} : { temperature: ask.temperature }),
      ...(ask.maxTokens === null ? {} : { max_tokens: ask.maxTokens }),
    };
    return this.around.api.open("/v1/chat", {
      method: "POST",
      body: JSON.stringify(body),
      headers: { accept: "text/event-stream", "x-tandem-resume": "on" },
      signal: this.signal,
    });
  }

  private events(): Promise<Response> {
    const headers: Record<string, string> = { accept: "text/event-stream" };
    if (this.lastEventId) headers["last-event-id"] = this.lastEventId;
    const path = `/v1/chat/${encodeURIComponent(this.ask.turnId)}/events`;
    return this.around.api.open(path, { headers, signal: this.signal });
  }

  /** null: the stream ended before the answer did. */
  private async read(response: Response): Promise<TurnDone | null> {
    if (!response.body) return null;
    this.contact();
    const reader = response.body.getReader();
    const parser = new EventParser();
    const decoder = new TextDecoder();
    const over = new AbortController();
    const offline = this.around.offline(over.signal);
    try {
      for (;;) {
        const part = await Promise.race([withDeadline(reader.read(), SILENCE_MS), offline]);
        if (!part || part.done) return null;
        this.contact();
        this.tries = 0;
        for (const event of parser.feed(decoder.decode(part.value, { stream: true }))) {
          const end = this.take(event);
          if (end) return end;
        }
      }
    } catch (error) {
      if (error instanceof TurnFailed) throw error;
      this.signal.throwIfAborted();
      return null;
    } finally {
      over.abort();
      reader.cancel().catch(() => undefined);
    }
  }

  private take(event: ServerEvent): TurnDone | null {
    if (event.id) this.lastEventId = event.id;
    const data = dataOf(event);
    if (event.event === "turn") {
      this.started = true;
      this.ask.turnId = (data as unknown as TurnStarted).turn_id;
      this.listener.started(data as unknown as TurnStarted);
    } else if (event.event === "delta") this.listener.text(String(data.text ?? ""));
    else if (event.event === "error") throw failure(data);
    else if (event.event === "done") return data as unknown as TurnDone;
    return null;
  }
}

function dataOf(event: ServerEvent): Record<string, unknown> {
  try {
    return JSON.parse(event.data) as Record<string, unknown>;
  } catch {
    throw new TurnFailed(502, "unreadable_event", "");
  }
}

function isPassing(error: ApiError): boolean {
  return error.status >= 500 || error.status === 429 || error.status === 408;
}

/** An event has no status of its own: its code says which one it would have been. */
const STATUS_OF: Record<string, number> = {
  context_length_exceeded: 400,
  no_engine_available: 503,
  overloaded: 503,
};

function failure(data: Record<string, unknown>): TurnFailed {
  const error = (data.error ?? {}) as { message?: string; code?: string | null };
  const code = error.code ?? null;
  return new TurnFailed(STATUS_OF[code ?? ""] ?? 502, code, error.message ?? "");
}

function withDeadline<T>(promise: Promise<T>, ms: number): Promise<T> {
  let timer: ReturnType<typeof setTimeout>;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new ConnectionLost("silence")), ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}
