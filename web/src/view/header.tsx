/** The health line: is the service well, and how well. Opens a small sheet with the engines. */

import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { current } from "../desk";
import { type Health, enginesUp, health, status } from "../health";
import { type Word, t } from "../i18n";
import { Icon } from "./icons";

const WORDS: Record<Health, Word> = {
  ok: "healthOk",
  partly: "healthPartly",
  loading: "healthLoading",
  down: "healthDown",
  lost: "healthLost",
  unknown: "healthUnknown",
};

export function Header({ onMenu }: { onMenu: () => void }) {
  return (
    <header class="top">
      <button class="square only-narrow" aria-label={t("menu")} onClick={onMenu}>
        <Icon name="menu" />
      </button>
      <h1 class="title">{current.value.title.value || t("newChat")}</h1>
      <HealthLine />
    </header>
  );
}

function HealthLine() {
  const open = useSignal(false);
  const place = useRef<HTMLDivElement>(null);
  useEffect(() => {
    const away = (event: Event): void => {
      if (!place.current?.contains(event.target as Node)) open.value = false;
    };
    addEventListener("pointerdown", away);
    return () => removeEventListener("pointerdown", away);
  }, []);
  return (
    <div
      class="health-place" ref={place}
      onKeyDown={(event) => event.key === "Escape" && (open.value = false)}
    >
      <button
        class={`health ${health.value}`} aria-expanded={open.value} aria-controls="health-sheet"
        onClick={() => (open.value = !open.value)}
      >
        <span class="dot" aria-hidden="true" />
        <span>{t(WORDS[health.value])}</span>
        <Figures />
      </button>
      <div id="health-sheet" class="sheet" hidden={!open.value}>{open.value && <Sheet />}</div>
    </div>
  );
}

function Figures() {
  const now = status.value;
  if (!now || health.value === "lost") return null;
  const parts = [
    now.model,
    t("enginesUp", { up: enginesUp(now), all: now.engines.length }),
    ...(now.queue_depth > 0 ? [t("queue", { n: now.queue_depth })] : []),
    ...(now.ready && now.ttft_p50_seconds ? [t("ttft", { n: now.ttft_p50_seconds.toFixed(1) })] : []),
  ];
  return <span class="figures">{parts.map((part) => <span key={part}>{part}</span>)}</span>;
}

function Sheet() {
  const now = status.value;
  if (!now) return <p class="quiet">{t(WORDS[health.value])}</p>;
  const ttft = now.ttft_p50_seconds;
  return (
    <>
      <dl>
        <dt>{t("model")}</dt><dd>{now.model}</dd>
        <dt>{t("context")}</dt>
        <dd>{now.context_length ? t("tokens", { n: now.context_length.toLocaleString() }) : "–"}</dd>
        <dt>{t("queueLabel")}</dt><dd>{now.queue_depth}</dd>
        <dt>{t("ttftLabel")}</dt><dd>{ttft ? `${ttft.toFixed(2)} s` : "–"}</dd>
      </dl>
      <ul aria-label={t("engines")}>
        {now.engines.map((engine) => (
          <li key={engine.name} class={engine.state}>
            <span class="dot" aria-hidden="true" />
            <span class="mono">{engine.name}</span>
            <span class="quiet">{t(stateWord(engine.state))}</span>
          </li>
        ))}
      </ul>
    </>
  );
}

function stateWord(state: string): Word {
  const words: Record<string, Word> = {
    starting: "stateStarting",
    healthy: "stateHealthy",
    suspect: "stateSuspect",
    draining: "stateDraining",
  };
  return words[state] ?? "stateDown";
}
