// What HTMX has no word for: keys, the view that follows the end, drafts, copying, menus, and the
// list that is kept current. What keeps a conversation current is in connection.js.
(() => {
  "use strict";

  const byId = (id) => document.getElementById(id);
  const composer = byId("composer");
  const question = byId("question");
  const stream = byId("stream");
  const byTouch = matchMedia("(pointer: coarse)");
  const announce = (text) => {
    const line = byId("announcement");
    if (line) line.textContent = text;
  };

  // ---- What changes something shows that a page of ours sent it, where somebody is signed in.

  document.addEventListener("htmx:config:request", ({ detail: { ctx } }) => {
    const token = document.cookie.split("; ").find((one) => one.startsWith("csrftoken="));
    if (token) ctx.request.headers["X-CSRFToken"] = token.slice("csrftoken=".length);
  });

  // ---- The view follows the end only while the reader is there.

  const END_PIXELS = 48;
  const page = document.documentElement;
  const isAtEnd = () => page.scrollHeight - window.innerHeight - window.scrollY < END_PIXELS;
  let atEnd = true;
  const follow = () => {
    if (stream && atEnd) window.scrollTo(0, page.scrollHeight);
  };
  if (stream) {
    history.scrollRestoration = "manual";
    // A link to one message is not a wish for the end.
    if (location.hash && byId(location.hash.slice(1))) atEnd = false;
    addEventListener("scroll", () => {
      atEnd = isAtEnd();
    }, { passive: true });
    addEventListener("resize", follow);
    document.addEventListener("htmx:after:swap", follow);
    follow();
  }

  // ---- A draft outlives the page, until the server has the question.

  const draftKey = composer && `throughline.draft.${stream?.dataset.session ?? ""}`;
  const keepDraft = () => {
    try {
      if (question.value.trim()) localStorage.setItem(draftKey, question.value);
      else localStorage.removeItem(draftKey);
    } catch {
      // Storage is shut or full: the draft lives as long as the page.
    }
  };
  const restoreDraft = () => {
    try {
      // What the server gave back with a problem is newer.
      question.value ||= localStorage.getItem(draftKey) ?? "";
    } catch {
      // As above.
    }
  };

  // ---- Asking.

  const tell = (text) => {
    const line = document.createElement("p");
    line.textContent = text;
    byId("problem")?.replaceChildren(line);
  };
  // The key makes sending the same question again harmless. A question that was changed after a
  // failure is another one: under the old key the server would answer with the first.
  let failed = false;
  const renewKey = () => {
    const bytes = crypto.getRandomValues(new Uint8Array(16));
    byId("key").value = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
    failed = false;
  };
  if (composer) {
    restoreDraft();
    question.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing || byTouch.matches) return;
      event.preventDefault();
      const send = byId("send");
      if (send && !send.disabled) composer.requestSubmit(send);
    });
    // Another model makes another question as well.
    composer.addEventListener("input", () => {
      keepDraft();
      if (failed) renewKey();
    });
    document.addEventListener("htmx:after:request", ({ detail: { ctx } }) => {
      if (ctx.sourceElement !== composer) return;
      if (ctx.response.status >= 400) {
        failed = true;
        return;
      }
      // What was typed since then is the next question.
      if (question.value === ctx.request.body.get("message")) question.value = "";
      keepDraft();
      failed = false;
      atEnd = true;
      if (!byTouch.matches) question.focus();
      changed();
    });
    document.addEventListener("htmx:error", ({ detail: { ctx } }) => {
      if (!ctx) return;
      const element = ctx.sourceElement;
      if (element === composer) {
        failed = true;
        tell("The server cannot be reached. Your question is kept: send it again in a moment.");
      } else if (element.id === "stop") {
        tell("The server cannot be reached. The answer was not stopped.");
      } else if (element.matches("[data-changes], .again")) {
        tell("The server cannot be reached. Nothing was changed.");
      }
    });
    document.addEventListener("htmx:response:error", ({ detail: { ctx } }) => {
      if (ctx.sourceElement.id === "stop") tell("The answer could not be stopped. Try again.");
    });
    // A page that comes back from the back/forward cache has a key that was used already.
    addEventListener("pageshow", (event) => {
      if (!event.persisted) return;
      if (stream) renewKey();
      else location.reload();
    });

    // Send becomes Stop and back: who works with keys stays where the button was.
    const actions = byId("actions");
    let wasInside = false;
    actions.addEventListener("focusin", () => {
      wasInside = true;
    });
    actions.addEventListener("focusout", ({ target }) => {
      // A button that is shut for its request, or taken away, loses the focus as well; that one is
      // given back.
      queueMicrotask(() => {
        if (target.isConnected && !target.disabled) wasInside = false;
      });
    });
    new MutationObserver(() => {
      if (!wasInside || document.activeElement !== document.body) return;
      (byTouch.matches ? actions.querySelector("button") : question).focus();
    }).observe(actions, { childList: true });
  }

  // ---- Menus, and what Escape means: close what is open, else stop the answer.

  const openMenus = () => [...document.querySelectorAll("details.menu[open]")];
  document.addEventListener("click", ({ target }) => {
    for (const menu of openMenus()) if (!menu.contains(target)) menu.open = false;
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || event.isComposing || event.defaultPrevented) return;
    const [open] = openMenus();
    const drawer = document.querySelector("#drawer[open]");
    const close = open ?? (drawer?.checkVisibility() ? drawer : null);
    if (close) {
      close.open = false;
      close.querySelector("summary").focus({ preventScroll: true });
    } else if (!["wanted", "model"].includes(event.target.id)) {
      byId("stop")?.click();
    }
  });
  // Who leaves the drawer with the tabulator would go on underneath it.
  byId("main").addEventListener("focusin", () => {
    const drawer = document.querySelector("#drawer[open]");
    if (drawer?.checkVisibility()) drawer.open = false;
  });
  byId("title-menu")?.addEventListener("toggle", ({ target }) => {
    if (!target.open) return;
    const field = byId("new-title");
    const title = byId("title").textContent;
    field.value = title === "Untitled" ? "" : title;
    byId("rename-problem").replaceChildren();
    if (byTouch.matches) return;
    // In a bar that stays where it is there is nothing to scroll to.
    field.focus({ preventScroll: true });
    field.select();
  });

  // ---- Copying an answer's source, or a block of code.

  const COPIED_MS = 1600;
  const copyPlainly = (text) => {
    // Where the page is not of a secure origin, this old way is the only one.
    const field = document.createElement("textarea");
    field.value = text;
    field.className = "visually-hidden";
    document.body.append(field);
    const before = document.activeElement;
    field.select();
    const done = document.execCommand("copy");
    field.remove();
    before?.focus({ preventScroll: true });
    if (!done) throw new Error("the browser refused to copy");
  };
  const copy = async (read) => {
    if (!navigator.clipboard?.write) {
      copyPlainly(await read());
      return;
    }
    // Handed over before it is read: some browsers allow to copy in the moment of the click only.
    const content = read().then((text) => new Blob([text], { type: "text/plain" }));
    await navigator.clipboard.write([new ClipboardItem({ "text/plain": content })]);
  };
  const sourceOf = async (url) => {
    const response = await fetch(url);
    if (!response.ok) throw new Error(`${response.status}`);
    return response.text();
  };
  document.addEventListener("click", async ({ target }) => {
    const button = target.closest?.("button.copy");
    if (!button) return;
    const { copy: url } = button.dataset;
    const code = button.parentElement.querySelector("code");
    let outcome = "copied";
    try {
      await copy(url ? () => sourceOf(url) : async () => code.textContent);
    } catch {
      outcome = "refused";
    }
    button.dataset.outcome = outcome;
    announce(outcome === "copied" ? "Copied." : "It could not be copied.");
    clearTimeout(button.forgetting);
    button.forgetting = setTimeout(() => delete button.dataset.outcome, COPIED_MS);
  });

  // ---- Thoughts that were unfolded stay so in the state of the article that comes next.

  document.addEventListener("htmx:before:swap", ({ detail: { tasks } }) => {
    for (const { fragment } of tasks) {
      for (const next of fragment?.querySelectorAll?.("details.reasoning") ?? []) {
        next.open ||= byId(next.id)?.open ?? false;
      }
    }
  });

  // ---- An answer that is written again.

  document.addEventListener("htmx:before:request", ({ detail: { ctx } }) => {
    const article = ctx.sourceElement.matches?.(".again") && ctx.sourceElement.closest("article");
    if (article) ctx.attempt = article.dataset.attempt;
  });
  document.addEventListener("htmx:after:request", ({ detail: { ctx } }) => {
    if (ctx.attempt === undefined || ctx.response.status >= 400) return;
    atEnd = true;
    // Where the stream was quicker, the page shows more already than this response knows.
    const article = ctx.sourceElement.closest("article");
    if (article?.isConnected !== true || article.dataset.attempt !== ctx.attempt) ctx.text = "";
  });

  // ---- The list of conversations, current in every tab.

  const list = byId("list");
  const others = "BroadcastChannel" in window ? new BroadcastChannel("throughline") : null;
  const REFRESH_MS = 150;
  let refreshing = 0;
  const refresh = async () => {
    // Nothing moves under a hand that has a menu open; nobody looks at a hidden page.
    if (document.hidden || list.querySelector("details[open]")) return;
    const fields = new URLSearchParams(new FormData(byId("search")));
    const older = new URLSearchParams(location.search).get("cursor");
    if (older && !fields.get("q")) fields.set("cursor", older);
    try {
      const response = await fetch(`/conversations?${fields}`, { headers: { Accept: "text/html" } });
      if (!response.ok) return;
      const text = await response.text();
      if (list.querySelector("details[open]")) return;
      await htmx.swap({ sourceElement: list, target: list, swap: "innerMorph", text });
    } catch {
      // The next change, or the next look at the page, tries again.
    }
  };
  const refreshSoon = () => {
    clearTimeout(refreshing);
    refreshing = setTimeout(refresh, REFRESH_MS);
  };
  function changed(more = {}) {
    others?.postMessage(more);
    if (list) refreshSoon();
  }
  if (list) {
    others?.addEventListener("message", ({ data }) => {
      // Deleted here, restored there: its messages are back.
      const isBack = data.restored && data.restored === stream?.dataset.session;
      if (isBack && document.querySelector("[data-gone]")) location.reload();
      else refreshSoon();
    });
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) refreshSoon();
    });
    list.addEventListener("toggle", ({ target }) => {
      if (!target.open) refreshSoon();
    }, true);
    if (stream) {
      // Told by the stream: a question that was asked elsewhere, a title. The list brings the title
      // as well, which is none that was not told.
      new MutationObserver(() => changed()).observe(byId("messages"), { childList: true });
      let title = byId("title").textContent;
      new MutationObserver(() => {
        if (byId("title").textContent === title) return;
        title = byId("title").textContent;
        changed();
      }).observe(byId("title"), { childList: true });
    }
    // An offer to take a deletion back ends with the time for it.
    const notices = byId("notices");
    const leave = () => {
      const notice = notices.querySelector("[data-seconds]");
      if (!notice) return;
      setTimeout(() => notice.remove(), notice.dataset.seconds * 1000);
      notice.removeAttribute("data-seconds");
    };
    new MutationObserver(leave).observe(notices, { childList: true });
    leave();
    document.addEventListener("htmx:after:request", ({ detail: { ctx } }) => {
      const form = ctx.sourceElement;
      if (!form.matches?.("[data-changes]") || ctx.response.status >= 400) return;
      for (const menu of openMenus()) if (menu.contains(form)) menu.open = false;
      changed({ restored: form.closest("[data-restorable]")?.dataset.restorable });
    });
  }
})();
