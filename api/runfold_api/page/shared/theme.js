// The colour scheme: system, light or dark, remembered in the browser.

const CHOICES = ["system", "light", "dark"];

export function initTheme(button) {
  apply(read());
  button.addEventListener("click", () => {
    const next = CHOICES[(CHOICES.indexOf(read()) + 1) % CHOICES.length];
    localStorage.setItem("runfold-theme", next);
    apply(next);
  });

  function apply(choice) {
    if (choice === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = choice;
    button.title = `Colours: ${choice}`;
  }
}

function read() {
  const stored = localStorage.getItem("runfold-theme");
  return CHOICES.includes(stored) ? stored : "system";
}
