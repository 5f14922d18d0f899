// Takes what has changed on the server into the page: sections are exchanged one by one, so that the place read,
// what is open and what has the focus stay.
const live = document.getElementById("live");
let tag = "";

function exchange(section, now) {
  const open = [...section.querySelectorAll("details[open]")].map((details) => details.id);
  const focus = section.contains(document.activeElement) && document.activeElement.id;
  show(null);
  section.replaceWith(now);
  for (const id of open) document.getElementById(id)?.setAttribute("open", "");
  if (focus) document.getElementById(focus)?.focus({ preventScroll: true });
}

async function refresh() {
  try {
    const answer = await fetch(location.pathname, { cache: "no-store", headers: tag ? { "If-None-Match": tag } : {} });
    if (answer.status === 200) {
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      tag = answer.headers.get("ETag") || "";
      document.getElementById("colours").textContent = page.getElementById("colours").textContent;
      for (const selector of ["header .subtitle", "nav ul"]) {
        const [old, now] = [document.querySelector(selector), page.querySelector(selector)];
        if (old && now && old.innerHTML !== now.innerHTML) old.replaceWith(now);
      }
      let before = null;
      for (const now of page.querySelectorAll("main > section")) {
        const old = document.getElementById(now.id);
        if (!old) before ? before.after(now) : document.querySelector("main").prepend(now);
        else if (old.dataset.digest !== now.dataset.digest) exchange(old, now);
        before = document.getElementById(now.id);
      }
    }
    live.textContent = "live";
  } catch {
    live.textContent = "not served any more: this is the last state";
  }
}

setInterval(refresh, 2000);
