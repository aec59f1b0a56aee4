import "./style/base.css";
import "./style/frame.css";
import "./style/transcript.css";
import "./style/controls.css";
import { render } from "preact";
import { finishRemoving, loadList, openFromAddress } from "./desk";
import { watchHealth } from "./health";
import { applyLanguage } from "./i18n";
import { apiKey, applyTheme } from "./prefs";
import { App } from "./view/app";

applyTheme();
applyLanguage();
watchHealth();
addEventListener("pagehide", finishRemoving);

let opened = false;
apiKey.subscribe((key) => {
  if (!key) return;
  void loadList();
  if (!opened) void openFromAddress();
  opened = true;
});

const root = document.getElementById("app");
if (root) render(<App />, root);
