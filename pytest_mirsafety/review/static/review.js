// Keys for what the page has buttons and links for, and pictures that show when they are clicked.
"use strict";

let leaving = false;

const press = (selector) => {
  const target = document.querySelector(selector);
  if (target !== null && !target.disabled && !leaving) {
    target.click();
  }
};

const keys = {
  s: 'button[name="label"][value="safe"]',
  u: 'button[name="label"][value="unsafe"]',
  "?": 'button[name="label"][value="unsure"]',
  z: "#undo",
  ArrowLeft: 'a[rel="prev"]',
  ArrowRight: 'a[rel="next"]',
};

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input:not([type=hidden]), textarea") !== null;
  // A key that is held down must not label one answer after the other.
  if (typing || event.repeat || event.ctrlKey || event.metaKey || event.altKey) {
    return;
  }
  const selector = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (selector !== undefined) {
    event.preventDefault();
    press(selector);
  }
});

document.addEventListener("submit", (event) => {
  if (leaving) {
    event.preventDefault();
  }
  leaving = true;
});

// A page that comes back from the browser's memory may be used again, with its pictures blurred.
window.addEventListener("pageshow", (event) => {
  leaving = false;
  if (event.persisted) {
    window.location.reload();
  }
});

for (const picture of document.querySelectorAll("button.picture")) {
  picture.addEventListener("click", () => {
    const shown = picture.getAttribute("aria-pressed") === "true";
    picture.setAttribute("aria-pressed", String(!shown));
  });
  picture.querySelector("img").addEventListener("error", () => {
    picture.classList.add("broken");
  });
}
