/** What went wrong, in words that say what to do. Pure: from an error to what a card shows. */

import { ApiError, ConnectionLost } from "./api";
import type { Word } from "./i18n";
import { TurnForgotten } from "./turn";

export type Remedy = "retry" | "key" | "new";

export interface Problem {
  what: Word;
  todo: Word;
  remedy: Remedy;
  /** The server's own words, where they help (sizes, names of fields). */
  detail: string;
  reference: string;
  /** Seconds after which it is sent again by itself; null: only when asked. */
  again: number | null;
}

const NO_ENGINE_AGAIN_S = 5;

export function problemOf(error: unknown, modelIsLoading: boolean): Problem {
  if (error instanceof TurnForgotten) return problem("errForgotten", "errForgottenDo");
  if (error instanceof ConnectionLost) return problem("errLost", "errLostDo");
  if (!(error instanceof ApiError)) return problem("err5xx", "err5xxDo");
  return { ...ofStatus(error, modelIsLoading), reference: (error.requestId ?? "").slice(0, 8) };
}

function ofStatus(error: ApiError, modelIsLoading: boolean): Problem {
  const { status, code, message: detail } = error;
  if (code === "turn_lost" || code === "answer_tail_lost")
    return problem("errForgotten", "errForgottenDo");
  if (code === "context_length_exceeded" || status === 413)
    return { ...problem("err413", "err413Do", "new"), detail };
  if (status === 400 || status === 422) return { ...problem("err400", "err400Do"), detail };
  if (status === 401) return problem("err401", "err401Do", "key");
  if (status === 403) return problem("err403", "err403Do", "key");
  if (status === 404) return problem("err404", "err404Do", "new");
  if (status === 409) return problem("err409", "err409Do");
  if (status === 429) return { ...problem("err429", "err429Do"), again: error.retryAfter };
  if (status === 503) return unavailable(error, modelIsLoading);
  return problem("err5xx", "err5xxDo");
}

function unavailable(error: ApiError, modelIsLoading: boolean): Problem {
  if (error.code !== "no_engine_available")
    return { ...problem("err503", "err503Do"), again: error.retryAfter };
  const words = modelIsLoading
    ? problem("errLoading", "errLoadingDo")
    : problem("errNoEngine", "errNoEngineDo");
  return { ...words, again: error.retryAfter ?? NO_ENGINE_AGAIN_S };
}

function problem(what: Word, todo: Word, remedy: Remedy = "retry"): Problem {
  return { what, todo, remedy, detail: "", reference: "", again: null };
}
