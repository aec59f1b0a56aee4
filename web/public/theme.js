// Before the first paint: the chosen theme and language, so that nothing flashes.
(function () {
  var root = document.documentElement;
  try {
    var prefs = JSON.parse(localStorage.getItem("tandem.prefs") || "{}");
    if (prefs.theme === "light" || prefs.theme === "dark") root.dataset.theme = prefs.theme;
    var zh = (prefs.language || navigator.language || "").toLowerCase().indexOf("zh") === 0;
    root.lang = zh ? "zh-CN" : "en";
  } catch (_) {
    root.lang = "zh-CN";
  }
})();
