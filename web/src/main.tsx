import "./style/base.css";
import "./style/frame.css";
import "./style/transcript.css";
import "./style/controls.css";
import { render } from "preact";
import { current, finishRemoving, loadList, openFromAddress } from "./desk";
import { watchHealth } from "./health";
import { applyLanguage } from "./i18n";
import { apiKey, applyTheme } from "./prefs";
import { App } from "./view/app";

applyTheme();
applyLanguage();
watchHealth();
addEventListener("pagehide", finishRemoving);

addEventListener("hashchange", () => void openFromAddress());
apiKey.subscribe((key) => {
  if (!key) return;
  void loadList();
  if (!current.value.entries.value.length) void openFromAddress();
});

const root = document.getElementById("app");
if (root) render(<App />, root);
