"use strict";
// Tells what was thought of a token: under the pointer, under a finger, or reached with the arrow keys.
const tip = document.getElementById("tip");
let shown = null;

function show(token) {
  if (shown) shown.classList.remove("at");
  shown = token;
  tip.hidden = !token;
  if (!token) return;
  token.classList.add("at");
  tip.textContent = token.dataset.tip;
  const place = token.getClientRects()[0] || token.getBoundingClientRect();
  const room = document.documentElement.clientWidth - tip.offsetWidth - 8;
  tip.style.left = `${scrollX + Math.max(8, Math.min(place.left, room))}px`;
  const above = place.top - tip.offsetHeight - 6;
  tip.style.top = `${scrollY + (above > 0 ? above : place.bottom + 6)}px`;
}

document.addEventListener("pointerover", (event) => show(event.target.closest(".text .t")));
document.addEventListener("click", (event) => show(event.target.closest(".text .t")));
document.addEventListener("focusout", () => show(null));
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") return show(null);
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  const story = event.target.closest(".text");
  if (!step || !story) return;
  const tokens = [...story.querySelectorAll(".t")];
  const at = tokens.indexOf(shown);
  show(tokens[Math.max(0, Math.min(tokens.length - 1, at < 0 ? 0 : at + step))]);
  event.preventDefault();
});
