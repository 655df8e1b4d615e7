// What HTMX has no word for: keys, the view that follows the end, the state of the connection,
// and a question that is kept until the server has it.
(() => {
  "use strict";

  const byId = (id) => document.getElementById(id);
  const composer = byId("composer");
  const question = byId("question");
  const stream = byId("stream");
  const connection = byId("connection");

  // ---- The view follows the end only while the reader is there.

  const END_PIXELS = 48;
  const page = document.documentElement;
  let atEnd = true;
  const follow = () => {
    if (stream && atEnd) window.scrollTo(0, page.scrollHeight);
  };
  if (stream) {
    history.scrollRestoration = "manual";
    addEventListener("scroll", () => {
      atEnd = page.scrollHeight - window.innerHeight - window.scrollY < END_PIXELS;
    }, { passive: true });
    addEventListener("resize", follow);
    document.addEventListener("htmx:after:swap", follow);
    follow();
  }

  // ---- Asking.

  const tell = (text) => {
    const line = document.createElement("p");
    line.textContent = text;
    byId("problem").replaceChildren(line);
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
    const byTouch = matchMedia("(pointer: coarse)");
    question.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing || byTouch.matches) return;
      event.preventDefault();
      const send = byId("send");
      if (send && !send.disabled) composer.requestSubmit(send);
    });
    question.addEventListener("input", () => {
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
      failed = false;
      atEnd = true;
      question.focus();
    });
    document.addEventListener("htmx:error", ({ detail: { ctx } }) => {
      if (!ctx) return;
      const element = ctx.sourceElement;
      if (element === composer) {
        failed = true;
        tell("The server cannot be reached. Your question is kept: send it again in a moment.");
      } else if (element.id === "stop") {
        tell("The server cannot be reached. The answer was not stopped.");
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
  }

  // ---- The connection.

  const WORDS = {
    connecting: "Connecting …",
    live: "Live",
    reconnecting: "Reconnecting …",
    offline: "Offline",
    ended: "Not connected",
  };
  const FIRST_TRY_MS = [500, 1000, 2000, 5000];
  if (stream) {
    let link = null;
    let tries = 0;
    let silenceMs = 45000;
    let silence = 0;

    const say = (state) => {
      connection.dataset.state = state;
      connection.textContent = WORDS[state];
    };
    say("connecting");
    const reconnect = () => {
      link?.reader?.cancel();
      link?.delayCanceller?.();
    };
    // A connection that a sleeping laptop or a changed network cut off gives no error for minutes.
    const heard = () => {
      clearTimeout(silence);
      silence = setTimeout(reconnect, silenceMs);
    };
    const connectAgain = () => {
      const delay = FIRST_TRY_MS[Math.min(tries, FIRST_TRY_MS.length - 1)];
      tries += 1;
      setTimeout(() => htmx.trigger(stream, "reconnect"), delay * (0.7 + 0.6 * Math.random()));
    };

    stream.addEventListener("htmx:sse:before:connection", ({ detail }) => {
      link = detail.connection;
      if (link.attempt > 0) say(navigator.onLine ? "reconnecting" : "offline");
    });
    stream.addEventListener("htmx:sse:after:connection", () => {
      tries = 0;
      say("live");
      heard();
    });
    stream.addEventListener("htmx:sse:after:message", heard);
    stream.addEventListener("htmx:sse:error", () => say("reconnecting"));
    stream.addEventListener("htmx:sse:close", () => {
      clearTimeout(silence);
      say("ended");
    });
    stream.addEventListener("welcome", ({ detail }) => {
      silenceMs = JSON.parse(detail.data).heartbeat_seconds * 3000;
    });
    // HTMX tries again what was connected once; a first request that failed is left to us.
    stream.addEventListener("htmx:response:error", ({ detail: { ctx } }) => {
      if (ctx.response.status === 429 || ctx.response.status >= 500) {
        say("reconnecting");
        connectAgain();
      } else {
        say("ended");
      }
    });
    stream.addEventListener("htmx:error", () => {
      say(navigator.onLine ? "reconnecting" : "offline");
      connectAgain();
    });
    addEventListener("online", reconnect);
    addEventListener("offline", () => say("offline"));
  }
})();
