// Keeps a part of the page up to date: an element with data-live names the address of its own contents.
// Unchanged contents answer 304. It stops at an end, rests in a hidden tab, and slows down on errors.
"use strict";
(() => {
  const region = document.getElementById("live-region");
  const announce = (text) => { if (region && text && region.textContent !== text) region.textContent = text; };

  const keys = (root) => [...root.querySelectorAll("tr[data-key]")].map((row) => row.dataset.key).join();
  const written = (part) => [...part.querySelectorAll("textarea[id], select[id]")].map((field) => [field.id, field.value]);
  const marked = (part) => [...part.querySelectorAll("input[type=checkbox]:checked")].map((box) => box.value);

  const folds = (part) => [...part.querySelectorAll("details[id]")].map((fold) => [fold.id, fold.open]);
  const stops = (row) => [...row.querySelectorAll("a, button, input, select, summary")];

  // Whether it was done: rows do not come, go or move under a pointer, nor under the keys of somebody who writes.
  function swap(part, html) {
    const fresh = new DOMParser().parseFromString(html, "text/html");
    const focused = document.activeElement;
    const inside = part.contains(focused);
    if ((part.matches(":hover") || inside) && keys(part) !== keys(fresh)) {
      const told = part.querySelector("[data-changed]");
      if (told?.hidden) {
        told.hidden = false;
        announce(told.textContent);
      }
      return false;
    }
    if (inside && focused.matches("textarea, select")) return false;
    const folded = folds(part);
    const marks = marked(part);
    const texts = written(part);
    const mark = inside && focused.matches("[type=checkbox]") ? focused.value : null;
    const around = inside && mark === null ? focused.closest("tr[data-key]") ?? focused.closest("[id]") : null;
    const holder = around && part.contains(around) && around !== part ? around : null;
    const stop = holder ? stops(holder).indexOf(focused) : -1;
    part.replaceChildren(...fresh.body.childNodes);
    if (navigator.clipboard) offerCopies(part);
    for (const box of part.querySelectorAll("input[type=checkbox][value]")) {
      if (marks.includes(box.value)) box.checked = true;
      if (box.value === mark) box.focus({ preventScroll: true });
    }
    for (const [id, text] of texts) if (document.getElementById(id)) document.getElementById(id).value = text;
    for (const [id, isOpen] of folded) document.getElementById(id)?.toggleAttribute("open", isOpen);
    if (inside && mark === null) stand(part, holder, stop, focused);
    return true;
  }

  // Where somebody stood: on the same thing in the same place, or on what has taken its place in the same row or fold.
  function stand(part, holder, stop, focused) {
    const name = holder?.dataset.key ? `tr[data-key="${CSS.escape(holder.dataset.key)}"]` : `#${CSS.escape(holder?.id ?? "")}`;
    const again = holder ? part.querySelector(name) : part;
    if (!again) return;
    const all = stops(again);
    const isSame = (one) => ["tagName", "textContent", "href"].every((what) => one[what] === focused[what]);
    const next = all.find(isSame) ?? (holder ? all[stop] ?? all[0] ?? again : null);
    next?.focus({ preventScroll: true });
  }

  document.addEventListener("keydown", (event) => { if (event.key === "Escape") document.body.classList.add("quiet-tips"); });
  document.addEventListener("focusin", () => document.body.classList.remove("quiet-tips"));

  // What is shown stays, and says that it is old, why, and what to do about it.
  const SLOWLY = 30000;
  function stale(part, look, why, request) {
    let told = part.previousElementSibling?.matches(".stale") ? part.previousElementSibling : null;
    if (!told) {
      told = document.createElement("div");
      told.className = "stale";
      told.setAttribute("role", "alert");
      const words = document.createElement("span");
      const again = document.createElement("button");
      again.type = "button";
      again.className = "btn tiny";
      again.textContent = "Look now";
      again.addEventListener("click", look);
      told.append(words, again);
      part.before(told);
      told.dataset.since = new Date().toLocaleTimeString();
    }
    const words = `${why}${request ? `, request ${request}` : ""}. This is as of ${told.dataset.since}; the next look is in ${SLOWLY / 1000} s.`;
    if (told.firstChild.textContent !== words) told.firstChild.textContent = words;
  }
  function fresh(part) { if (part.previousElementSibling?.matches(".stale")) part.previousElementSibling.remove(); }

  // How many runs wait for a person, as each look tells it, also one that found nothing new.
  function attention(count) {
    const badge = document.querySelector("[data-attention]");
    if (!badge || count === null) return;
    if (badge.textContent !== count) badge.textContent = count;
    badge.hidden = count === "0";
  }

  function watch(part) {
    const every = Number(part.dataset.every || 2000);
    let tag = part.dataset.tag || "";
    let wait = every;
    const toggle = document.querySelector("[data-live-switch]");
    let timer = 0;
    async function look() {
      clearTimeout(timer);
      if (!document.hidden && !(toggle && !toggle.checked)) {
        part.setAttribute("aria-busy", "true");
        try {
          const answer = await fetch(part.dataset.live, {
            headers: { ...(tag ? { "If-None-Match": tag } : {}), "X-Live": "1" },
            credentials: "same-origin",
          });
          if (answer.redirected) { location.reload(); return; }
          attention(answer.headers.get("X-Needs-Attention"));
          if (answer.status === 200 && swap(part, await answer.text())) {
            tag = answer.headers.get("ETag") || "";
            const say = part.querySelector("[data-announce]")?.dataset.announce;
            announce(say);
            const title = part.querySelector("[data-title]")?.dataset.title;
            if (title) document.title = title;
          }
          const isWell = answer.ok || answer.status === 304;
          wait = isWell ? every : SLOWLY;
          if (isWell) fresh(part); else stale(part, look, `The site answered ${answer.status}`, answer.headers.get("X-Request-Id"));
          if (part.querySelector("[data-ended]")) return;
        } catch {
          wait = SLOWLY;
          stale(part, look, "The site could not be reached");
        } finally {
          part.removeAttribute("aria-busy");
        }
      }
      timer = setTimeout(look, wait);
    }
    if (!part.querySelector("[data-ended]")) timer = setTimeout(look, wait);
  }

  // The server's words: "12 s", "4 min", "2 h 10 min", "3 days".
  function ago(seconds) {
    const [whole, minutes, hours, days] = [1, 60, 3600, 86400].map((unit) => Math.floor(seconds / unit));
    if (whole < 60) return `${whole} s`;
    if (minutes < 60) return `${minutes} min`;
    if (hours < 24) return minutes % 60 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
    return days > 1 ? `${days} days` : "1 day";
  }
  function count() {
    for (const at of document.querySelectorAll("time[title]")) {
      const past = (Date.now() - new Date(at.dateTime)) / 1000;
      const words = past >= 0 ? `${ago(past)} ago` : `in ${ago(-past)}`;
      if (at.textContent !== words) at.textContent = words;
    }
    for (const at of document.querySelectorAll("time[data-countdown]")) {
      const left = Math.ceil((new Date(at.dateTime) - Date.now()) / 1000);
      at.textContent = left > 0 ? `in ${left} s` : "now";
    }
  }

  function lines(form) {
    const add = form.querySelector("[data-add-line]");
    const blank = form.querySelector("template[data-line]");
    if (!add || !blank) return;
    const offerDrop = (part) => { for (const drop of part.querySelectorAll("[data-drop-line]")) drop.hidden = false; };
    add.hidden = false;
    offerDrop(form);
    offerDrop(blank.content);
    add.addEventListener("click", () => {
      const at = form.querySelectorAll("[data-line-row]").length;
      const row = blank.content.cloneNode(true);
      for (const item of row.querySelectorAll("[name], [id], label")) {
        for (const name of ["name", "id", "for", "aria-label"]) {
          if (item.hasAttribute(name)) item.setAttribute(name, item.getAttribute(name).replace("__n__", at));
        }
      }
      add.before(row);
      [...form.querySelectorAll("[data-line-row]")].at(-1).querySelector("select, input")?.focus();
    });
    form.addEventListener("click", (event) => {
      const drop = event.target.closest("[data-drop-line]");
      if (!drop) return;
      // Kept, though empty and out of sight: the next line's number is counted from those there are.
      drop.closest("[data-line-row]").querySelector("select").value = "";
      drop.closest("[data-line-row]").hidden = true;
      total();
      add.focus();
    });
    const sum = form.querySelector("[data-total]");
    function total() {
      let all = 0;
      for (const row of form.querySelectorAll("[data-line-row]")) {
        const price = Number(row.querySelector("select")?.selectedOptions[0]?.dataset.price || 0);
        all += price * Number(row.querySelector("input[type=number]")?.value || 0);
      }
      if (sum) sum.textContent = all.toFixed(2);
      const shown = form.querySelector("[name=shown_total]");
      if (shown) shown.value = all.toFixed(2);
    }
    form.addEventListener("input", total);
    total();
  }

  // How many are marked, and all on this page at once.
  function marks(form) {
    const boxes = () => [...form.querySelectorAll("input[name=order]")];
    const told = form.querySelector("[data-marked]");
    const tell = () => {
      const number = boxes().filter((box) => box.checked).length;
      if (told) told.textContent = number ? `${number} marked` : "";
      const all = form.querySelector("[data-mark-all]");
      if (all) { all.hidden = false; all.checked = number > 0 && number === boxes().length; all.indeterminate = number > 0 && !all.checked; }
    };
    form.addEventListener("change", (event) => {
      if (event.target.matches("[data-mark-all]")) for (const box of boxes()) box.checked = event.target.checked;
      tell();
    });
    new MutationObserver(tell).observe(form.querySelector("[data-live]"), { childList: true });
    tell();
  }
  for (const form of document.querySelectorAll("form[data-marks]")) marks(form);

  // Before a login is over, while there is still something to save.
  const WARN = 300;
  function session() {
    const end = Number(document.body.dataset.sessionEnds || 0);
    const told = document.getElementById("session-end");
    if (!end || !told) return;
    const left = Math.round((end * 1000 - Date.now()) / 1000);
    if (left <= WARN && told.hidden) told.hidden = false;
    const words = left > 0 ? `You will be logged out in ${ago(left)}.` : "You have been logged out. What you typed is still here: log in in another tab, then send it.";
    const text = told.querySelector("span");
    if (!told.hidden && (left <= 0 || left % 60 === 0 || !text.textContent)) text.textContent = words;
  }
  // Without leaving the page: somebody may be in the middle of a form.
  document.getElementById("session-end")?.addEventListener("submit", async (event) => {
    const told = event.currentTarget, form = event.target;
    event.preventDefault();
    try {
      const answer = await fetch(form.action, { method: "POST", body: new FormData(form), headers: { "X-Live": "1" } });
      if (answer.redirected || !answer.ok) throw new Error(String(answer.status));
      document.body.dataset.sessionEnds = (await answer.json()).ends;
      told.hidden = true;
      announce("You stay logged in.");
    } catch {
      form.querySelector("span").textContent = "That did not work. Log in in another tab; what you typed stays here.";
    }
    form.querySelector("button").disabled = false;
  });
  setInterval(session, 1000);
  session();

  // Single keys, for whoever wants them; never while somebody writes, nor with Ctrl, Alt or Meta.
  function onKey(event) {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.target.closest("input:not([type=checkbox]), select, textarea")) return;
    const rows = [...document.querySelectorAll("tr[data-key]")];
    const at = rows.findIndex((one) => one.contains(document.activeElement));
    if (event.key === "j") rows[Math.min(at + 1, rows.length - 1)]?.querySelector("a.id").focus();
    else if (event.key === "k") rows[Math.max(at - 1, 0)]?.querySelector("a.id").focus();
    else if (event.key === "x") rows[at]?.querySelector("input[type=checkbox]")?.click();
    else if (event.key === "/") document.querySelector(".find input")?.focus();
    else if (event.key === "?") location.assign(`${document.body.dataset.keys}#keys`);
    else return;
    event.preventDefault();
  }
  if (document.body.dataset.keys) document.addEventListener("keydown", onKey);

  // For whoever wants times in the browser's own zone: the server cannot know it otherwise.
  if (document.querySelector("[data-tell-zone]")) {
    const secure = location.protocol === "https:" ? "; Secure" : "";
    document.cookie = `zone=${Intl.DateTimeFormat().resolvedOptions().timeZone}; path=/; max-age=31536000; SameSite=Lax${secure}`;
  }

  // One listener for all: parts of the page are exchanged, and their buttons with them.
  function offerCopies(part) { for (const b of part.querySelectorAll("[data-copy]")) b.hidden = false; }
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    try {
      await navigator.clipboard.writeText(button.dataset.copy);
      announce(`Copied ${button.dataset.copy}`);
    } catch {
      announce("This browser does not let the page copy.");
    }
  });
  if (navigator.clipboard) offerCopies(document);

  for (const part of document.querySelectorAll("[data-live]")) watch(part);
  for (const form of document.querySelectorAll("form[data-lines]")) lines(form);
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (form.method !== "post" || event.submitter?.matches("[data-again]") || form.closest("#session-end")) return; // a file: the page stays, and its buttons with it
    // After the form's data has been read, so that the pressed button is part of it.
    setTimeout(() => { for (const b of form.querySelectorAll("button")) b.disabled = true; }, 0);
  });
  // An address may lead into something folded: a try among many, the form for a note.
  function unfold() {
    const at = location.hash.length > 1 ? document.getElementById(decodeURIComponent(location.hash.slice(1))) : null;
    for (let up = at; up; up = up.parentElement) if (up.matches("details")) up.open = true;
    if (at?.matches("details")) (at.querySelector("textarea, input:not([type=hidden])") ?? at).focus();
    else at?.scrollIntoView({ block: "nearest" });
  }
  window.addEventListener("hashchange", unfold);
  unfold();

  document.querySelector(".summary")?.focus();
  setInterval(count, 1000);
  count();
})();
