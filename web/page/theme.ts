// Runs before the first paint, so that a chosen theme does not flash in the other one.

try {
  const theme = localStorage.getItem("zebra-theme");
  if (theme === "light" || theme === "dark") {
    document.documentElement.dataset["theme"] = theme;
  }
} catch {
  // A browser that refuses storage follows the system.
}
