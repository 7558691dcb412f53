/* Copies the text of the rule beside each button. Without this script the text can be selected. */
"use strict";
document.querySelectorAll("button[data-copies]").forEach((button) => {
  const text = document.getElementById(button.dataset.copies);
  const words = button.firstElementChild;
  button.hidden = false;
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text.textContent);
      words.textContent = "Copied";
    } catch {
      const folded = text.closest("details");
      if (folded) folded.open = true;
      getSelection().selectAllChildren(text);
      words.textContent = "Selected: copy it now";
    }
  });
});
