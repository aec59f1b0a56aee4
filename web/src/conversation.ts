/** One conversation on the screen: its messages and the turn that runs in it. */

import { type Signal, signal } from "@preact/signals";
import type { Session, SessionMessage } from "./api";
import { modelIsLoading } from "./health";
import { api, pause, surroundings } from "./network";
import { type Problem, problemOf } from "./problems";
import { prefs } from "./prefs";
import { forgetTurn, rememberTurn } from "./running";
import { type Ask, Turn, type TurnDone, TurnForgotten } from "./turn";

export type Phase = "waiting" | "streaming" | "done" | "failed";

export interface Entry {
  key: string;
  role: "user" | "assistant";
  text: Signal<string>;
  phase: Signal<Phase>;
  /** The connection is lost and being made again. */
  lost: Signal<boolean>;
  problem: Signal<Problem | null>;
  /** How often it was sent again by itself. */
  resent: number;
  at: number;
  facts: Signal<Facts>;
}

export interface Facts {
  finish?: string | null;
  stopped?: boolean;
  incomplete?: boolean;
  unsaved?: boolean;
  engine?: string;
  failovers?: number;
  trimmed?: number;
  tokens?: number;
  firstMs?: number;
  totalMs?: number;
}

export type Announce = (what: "generating" | "finished" | "stopped") => void;
export interface Watcher {
  named(conversation: Conversation): void;
  ended(conversation: Conversation): void;
  rejected(): void;
  announce: Announce;
}

const STOP_WITHIN_MS = 3_000;
const STOP_AGAIN_MS = 300;
/** A service that stays full is not asked for ever; a model that loads is waited for. */
const RESENT_AT_MOST = 5;
let keys = 0;

export function entry(role: Entry["role"], text: string, at: number, facts: Facts = {}): Entry {
  return {
    key: `m${++keys}`,
    role,
    text: signal(text),
    phase: signal<Phase>("done"),
    lost: signal(false),
    problem: signal<Problem | null>(null),
    resent: 0,
    at,
    facts: signal(facts),
  };
}

export class Conversation {
  readonly id = signal<string | null>(null);
  readonly title = signal("");
  readonly entries = signal<Entry[]>([]);
  readonly draft = signal("");
  readonly running = signal<Ask | null>(null);
  private abort = new AbortController();

  constructor(private readonly watcher: Watcher) {}

  fill(session: Session): void {
    this.id.value = session.id;
    this.title.value = session.title;
    this.entries.value = session.messages.map(savedEntry);
  }

  /** A question stands here that has no answer yet. */
  get unfinished(): boolean {
    return this.entries.value.at(-1)?.problem.value != null || this.draft.value.trim() !== "";
  }

  send(prompt: string, resent = 0): Promise<void> {
    const ask: Ask = {
      turnId: freshTurnId(),
      sessionId: this.id.value,
      prompt,
      system: this.id.value ? "" : prefs.value.system,
      temperature: prefs.value.temperature,
      maxTokens: prefs.value.maxTokens,
    };
    const answer = this.expectAnswer(ask);
    answer.resent = resent;
    return this.answer(ask, answer, (turn) => turn.run());
  }

  /** A failed question once more, in the place where it stands. */
  retry(answer: Entry, byItself: boolean): Promise<void> {
    return this.send(this.takeBack(answer), byItself ? answer.resent + 1 : 0);
  }

  /** Takes a failed question back out; gives its text. */
  takeBack(answer: Entry): string {
    const at = this.entries.value.indexOf(answer);
    const question = this.entries.value[at - 1];
    this.entries.value = this.entries.value.filter((one) => one !== answer && one !== question);
    return question?.text.value ?? "";
  }

  /** A turn that ran when the page was left: the whole answer comes again from its start. */
  async reattach(ask: Ask): Promise<void> {
    const known = this.entries.value.some((one) => one.role === "assistant" && one.key === ask.turnId);
    if (known) return forgetTurn(ask.turnId);
    const last = this.entries.value.at(-1);
    if (last?.role === "user") this.entries.value = this.entries.value.slice(0, -1);
    const answer = this.expectAnswer(ask);
    await this.answer(ask, answer, (turn) => turn.reattach());
  }

  async stop(): Promise<void> {
    const ask = this.running.value;
    const answer = this.entries.value.at(-1);
    if (!ask || !answer) return;
    answer.facts.value = { ...answer.facts.value, stopped: true };
    const { abort } = this;
    setTimeout(() => abort.abort(), STOP_WITHIN_MS);
    // The question may still be on its way: asked again until it is there to be stopped. Where the
    // stop cannot be delivered, letting go of the stream is all that is left.
    while (this.running.value === ask && !(await this.stopped(ask)))
      await pause(STOP_AGAIN_MS, abort.signal);
  }

  private stopped(ask: Ask): Promise<boolean> {
    if (this.abort.signal.aborted) return Promise.resolve(true);
    return api.stop(ask.turnId).then(() => true, () => false);
  }

  private expectAnswer(ask: Ask): Entry {
    const question = entry("user", ask.prompt, Date.now());
    const answer = entry("assistant", "", Date.now());
    answer.phase.value = "waiting";
    this.entries.value = [...this.entries.value, question, answer];
    this.running.value = ask;
    if (!this.title.value) this.title.value = ask.prompt.trim().split("\n")[0]?.slice(0, 60) ?? "";
    return answer;
  }

  private async answer(
    ask: Ask, answer: Entry, go: (turn: Turn) => Promise<TurnDone>,
  ): Promise<void> {
    this.abort = new AbortController();
    const begun = performance.now();
    const first = ask.turnId;
    rememberTurn(ask);
    this.watcher.announce("generating");
    const turn = new Turn(ask, surroundings, this.listener(ask, answer, begun), this.abort.signal);
    try {
      const done = await go(turn);
      const facts = { totalMs: performance.now() - begun, ...factsOf(done) };
      answer.facts.value = { ...answer.facts.value, ...facts };
      answer.phase.value = "done";
      this.watcher.announce(answer.facts.value.stopped ? "stopped" : "finished");
    } catch (error) {
      await this.fail(ask, answer, error);
    } finally {
      answer.lost.value = false;
      this.running.value = null;
      forgetTurn(first);
      forgetTurn(ask.turnId);
      this.watcher.ended(this);
    }
  }

  private listener(ask: Ask, answer: Entry, begun: number) {
    return {
      started: (data: { turn_id: string; session_id: string; trimmed_turns?: number }) => {
        this.id.value = data.session_id;
        ask.sessionId = data.session_id;
        answer.facts.value = { ...answer.facts.value, trimmed: data.trimmed_turns ?? 0 };
        rememberTurn(ask);
        this.watcher.named(this);
      },
      text: (piece: string) => {
        if (answer.phase.value === "waiting") {
          answer.phase.value = "streaming";
          answer.facts.value = { ...answer.facts.value, firstMs: performance.now() - begun };
        }
        answer.text.value += piece;
      },
      connected: (yes: boolean) => (answer.lost.value = !yes),
    };
  }

  private async fail(ask: Ask, answer: Entry, error: unknown): Promise<void> {
    if (this.abort.signal.aborted) {
      answer.phase.value = "done";
      this.watcher.announce("stopped");
      return;
    }
    if (error instanceof TurnForgotten && (await this.savedAnswer(ask, answer))) return;
    const found = problemOf(error, modelIsLoading.value);
    const tried = answer.resent >= RESENT_AT_MOST && found.what !== "errLoading";
    const enough = tried || answer.text.value !== "";
    const problem = enough ? { ...found, again: null } : found;
    answer.problem.value = problem;
    answer.phase.value = "failed";
    if (problem.what === "err401") this.watcher.rejected();
  }

  /** The log of a turn is kept for minutes, its answer in the session for longer. */
  private async savedAnswer(ask: Ask, answer: Entry): Promise<boolean> {
    if (!ask.sessionId) return false;
    try {
      const session = await api.session(ask.sessionId);
      const saved = session.messages.find(
        (one) => one.role === "assistant" && one.turn_id === ask.turnId,
      );
      if (!saved) return false;
      answer.text.value = saved.content;
      answer.facts.value = savedFacts(saved);
      answer.phase.value = "done";
      return true;
    } catch {
      return false;
    }
  }
}

function savedEntry(message: SessionMessage): Entry {
  const made = entry(message.role, message.content, timeOf(message.created_at), savedFacts(message));
  return message.role === "assistant" && message.turn_id ? { ...made, key: message.turn_id } : made;
}

function savedFacts(message: SessionMessage): Facts {
  return {
    ...(message.finish_reason ? { finish: message.finish_reason } : {}),
    ...(message.engine ? { engine: message.engine } : {}),
    ...(message.truncated ? { incomplete: true } : {}),
  };
}

function factsOf(done: TurnDone): Facts {
  return {
    finish: done.finish_reason,
    failovers: done.failovers ?? 0,
    unsaved: done.saved === false,
    ...(done.engine ? { engine: done.engine } : {}),
    ...(done.usage?.completion_tokens ? { tokens: done.usage.completion_tokens } : {}),
  };
}

/** Seconds, milliseconds or ISO: all three are met; 0 where nothing is known. */
export function timeOf(value: number | string | undefined): number {
  if (value === undefined) return 0;
  if (typeof value === "string") return Date.parse(value) || 0;
  return value < 1e12 ? value * 1000 : value;
}

/** Not randomUUID: that one is missing where the page came over plain HTTP. */
function freshTurnId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
