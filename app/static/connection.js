// The connection that keeps a conversation current.
//
// One machine over three transports, which bring the same fragments. The position moves once a
// fragment is on the page, so whatever goes wrong, the page goes on from what it shows.
//
// After any loss the page first asks for what it missed, in a single short request: that makes it
// current within one round trip, and tells a server that is away from a transport that is.
(() => {
  "use strict";

  const stream = document.getElementById("stream");
  const connection = document.getElementById("connection");

  const WAYS = ["websocket", "sse", "poll"];
  const WAY_WORDS = { websocket: "WebSocket", sse: "SSE", poll: "polling" };
  const WORDS = {
    connecting: "Connecting …",
    live: "Live",
    reconnecting: "Reconnecting …",
    offline: "Offline",
    ended: "Not connected",
  };
  const REMEMBERED = "throughline.transport";
  const REMEMBERED_MS = 3600000;
  // How long a connection may take to say its first word, and must last to count as one that works.
  const OPENING_MS = 5000;
  const SHORT_MS = 5000;
  // Shorter than proxies wait for an answer; the pause bounds what each one costs.
  const POLL_SECONDS = 25;
  const POLL_LIMIT_MS = 35000;
  const POLL_PAUSE_MS = 150;
  // For a request that catches up; the first may meet a connection that died while it was kept.
  const ANSWER_MS = [4000, 10000];
  const RETRY_MS = [300, 5000];
  const PATIENCE_MS = 700;

  const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

  // What worked behind this visitor's proxies, for so long; then WebSocket is given a new chance.
  let memory = null;
  const remembered = () => {
    let kept = memory;
    try {
      kept = JSON.parse(localStorage.getItem(REMEMBERED)) ?? memory;
    } catch {
      // Storage is shut, or not ours.
    }
    const age = Date.now() - kept?.at;
    return WAYS.includes(kept?.way) && age >= 0 && age < REMEMBERED_MS ? kept.way : WAYS[0];
  };
  const remember = (way) => {
    if (way === remembered()) return;
    memory = { way, at: Date.now() };
    try {
      localStorage.setItem(REMEMBERED, JSON.stringify(memory));
    } catch {
      // The next page finds out by itself.
    }
  };

  if (stream) {
    const session = encodeURIComponent(stream.dataset.session);
    // Null asks for the whole state.
    let position = stream.dataset.position;
    let way = remembered();
    // Counts the times that a connection was begun: what one that was given up still has to say is
    // nobody's news.
    let turn = 0;
    let link = null;
    let swapped = Promise.resolve();
    let heartbeatMs = 15000;
    let hiddenAt = 0;
    let doubtedAt = 0;
    // In a row: connections that did not last, that were never opened, that were cut off early.
    let losses = 0;
    let refused = 0;
    let cutShort = 0;
    let isLive = false;
    let impatience = 0;

    // ---- What the indicator says.

    const say = (state, words = WORDS[state]) => {
      clearTimeout(impatience);
      impatience = 0;
      isLive = state === "live";
      const [said, how] = connection.children;
      said.textContent = words;
      how.textContent = isLive ? ` · ${WAY_WORDS[way]}` : "";
      connection.dataset.state = state;
      connection.dataset.transport = way;
    };
    // A connection that is replaced at once is nobody's worry.
    const sayLater = () => {
      if (isLive) impatience ||= setTimeout(say, PATIENCE_MS, "reconnecting");
    };

    // ---- Fragments.

    const place = async (mine, html, next) => {
      if (mine !== turn) return;
      try {
        if (html) {
          const swap = "none swapEmpty:false";
          await htmx.swap({ sourceElement: stream, target: stream, swap, text: html });
        }
        if (next) position = next;
      } catch (error) {
        // Nobody knows what is on the page now.
        console.error(error);
        position = null;
        lost(mine, {});
      }
      stream.dataset.position = position ?? "";
    };
    // One after the other, and none is begun before the one before is on the page.
    const take = (mine, html, next) => {
      swapped = swapped.then(() => place(mine, html, next));
      return swapped;
    };

    // ---- Requests.

    const query = (more = {}) => {
      const fields = position ? { last_event_id: position, ...more } : more;
      return new URLSearchParams(fields).toString();
    };
    // Gives {ended, again: milliseconds} where the server answered; throws where none did.
    const ask = async (mine, seconds, limitMs) => {
      const leaving = new AbortController();
      link.close = () => leaving.abort();
      const deadline = setTimeout(link.close, limitMs);
      try {
        const response = await fetch(`/chat/${session}/poll?${query({ wait: seconds })}`, {
          cache: "no-store",
          headers: { Accept: "application/json" },
          signal: leaving.signal,
        });
        if (response.status === 401) {
          // Where the page itself is refused as well, what is on it is nobody's any more, and a
          // reload leads to the sign-in page. Unasked it might be reloaded without end.
          const itself = await fetch(location.href, { method: "HEAD", signal: leaving.signal });
          if (itself.status === 401) location.reload();
          return { ended: "Signed out" };
        }
        if (response.status === 429 || response.status >= 500) {
          const after = Number(response.headers.get("Retry-After")) || 0;
          return { again: Math.min(after, 30) * 1000 };
        }
        if (!response.ok) return { ended: WORDS.ended };
        const answer = await response.json();
        await take(mine, answer.html, answer.position);
        return answer.ended ? { ended: "Deleted" } : {};
      } finally {
        clearTimeout(deadline);
      }
    };

    // ---- The machine.

    const drop = () => {
      clearTimeout(link?.opening);
      link?.close?.();
      link = null;
    };
    const end = (words) => {
      turn += 1;
      drop();
      say("ended", words);
    };
    const backoff = (times) => {
      const [least, most] = RETRY_MS;
      return times && Math.min(least * 2 ** (times - 1), most) * (0.7 + 0.6 * Math.random());
    };

    // ``blame``: how sure it is that the transport is at fault, not the server or the network.
    // 2: at once, 1: when it happens again, 0: not at all.
    const lost = (mine, { blame = 0, afterMs = 0 }) => {
      if (mine !== turn) return;
      const lived = link?.since ? Date.now() - link.since : 0;
      if (lived >= SHORT_MS) losses = 0;
      const waitMs = Math.max(afterMs, backoff(losses));
      losses += 1;
      sayLater();
      begin({ blame, waitMs });
    };
    // The transport after this one, for as long as it is remembered.
    const giveWay = () => {
      way = WAYS[Math.min(WAYS.indexOf(way) + 1, WAYS.length - 1)];
      losses = refused = cutShort = 0;
    };
    // Catch up, again and again until that succeeds, then connect.
    const begin = async ({ blame = 0, waitMs = 0 } = {}) => {
      drop();
      turn += 1;
      const mine = turn;
      link = {};
      for (let tries = 1; ; tries += 1) {
        if (waitMs) await pause(waitMs);
        await swapped;
        if (mine !== turn) return;
        let found = { again: 0 };
        try {
          found = await ask(mine, 0, ANSWER_MS[Math.min(tries, ANSWER_MS.length) - 1]);
        } catch {
          // No server, no network, or something in between that answers in the server's place.
        }
        if (mine !== turn) return;
        if (found.ended) {
          end(found.ended);
          return;
        }
        if (found.again === undefined) break;
        // A server that is away, and is restarted perhaps, says nothing about the transport.
        blame = refused = cutShort = 0;
        if (!navigator.onLine) say("offline");
        else if (!isLive) say("reconnecting");
        waitMs = Math.max(found.again, backoff(tries));
      }
      if (blame >= 2) giveWay();
      else if (!blame && remembered() === WAYS[0]) way = WAYS[0];
      open();
    };

    const welcomed = () => {
      clearTimeout(link.opening);
      link.since = Date.now();
      link.heardAt = link.since;
      refused = 0;
      remember(way);
      say("live");
    };
    const heard = (mine, type, id, data) => {
      if (mine !== turn) return;
      link.heardAt = Date.now();
      if (type === "fragment") take(mine, data, id);
      else if (type === "welcome") {
        heartbeatMs = data.heartbeat_seconds * 1000;
        link.silenceMs = heartbeatMs * 2.5;
        welcomed();
      } else if (type === "bye") {
        if (data.reason === "session_deleted") swapped.then(() => mine === turn && end("Deleted"));
        else lost(mine, { afterMs: data.after_ms });
      } else if (type === "error") {
        // What is wrong with the session or the visitor, the request that follows finds out.
        lost(mine, { blame: data.retryable ? 0 : 2 });
      }
    };
    // It ended, or never began.
    const closed = (mine) => {
      if (mine !== turn) return;
      if (!link.since) {
        refused += 1;
        lost(mine, { blame: refused });
        return;
      }
      cutShort = Date.now() - link.since < SHORT_MS ? cutShort + 1 : 0;
      lost(mine, { blame: cutShort >= 3 ? 2 : 0 });
    };

    const openers = {
      websocket: (mine) => {
        const fields = query({ session_id: stream.dataset.session, content: "html" });
        const url = new URL(`/ws/chat?${fields}`, location.href);
        url.protocol = url.protocol.replace("http", "ws");
        const socket = new WebSocket(url);
        socket.onmessage = (event) => {
          const { type, id, data } = JSON.parse(event.data);
          heard(mine, type, id, data);
        };
        socket.onclose = () => closed(mine);
        return () => socket.close();
      },
      sse: (mine) => {
        const source = new EventSource(`/chat/${session}/stream?${query()}`);
        for (const type of ["welcome", "heartbeat", "bye"]) {
          source.addEventListener(type, (event) => {
            heard(mine, type, null, event.data && JSON.parse(event.data));
          });
        }
        source.addEventListener("fragment", (event) => {
          heard(mine, "fragment", event.lastEventId, event.data);
        });
        // The server's word for a stream that cannot go on, or the browser's for one that ended.
        source.addEventListener("error", (event) => {
          if (event.data) heard(mine, "error", null, JSON.parse(event.data));
          else closed(mine);
        });
        return () => source.close();
      },
      poll: (mine) => {
        const goOn = async () => {
          for (;;) {
            await pause(POLL_PAUSE_MS);
            if (mine !== turn) return;
            const found = await ask(mine, POLL_SECONDS, POLL_LIMIT_MS);
            if (mine !== turn) return;
            link.heardAt = Date.now();
            if (found.ended) end(found.ended);
            else if (found.again !== undefined) lost(mine, { afterMs: found.again });
          }
        };
        goOn().catch(() => lost(mine, {}));
      },
    };
    const open = () => {
      turn += 1;
      const mine = turn;
      link = { heardAt: Date.now(), silenceMs: POLL_LIMIT_MS };
      try {
        link.close = openers[way](mine);
      } catch {
        // A browser without it, or one that was told to have none.
        lost(mine, { blame: 2 });
        return;
      }
      // A poll needs no welcome: it comes after a request that was answered.
      if (way === "poll") welcomed();
      else link.opening = setTimeout(lost, OPENING_MS, mine, { blame: 2 });
    };
    const refresh = () => {
      // One event seldom comes alone: a page that is shown again was resumed, and is online.
      const sinceDoubt = Date.now() - doubtedAt;
      if ((sinceDoubt >= 0 && sinceDoubt < 100) || connection.dataset.state === "ended") return;
      doubtedAt = Date.now();
      losses = 0;
      sayLater();
      begin();
    };

    // ---- When to doubt a connection that says nothing.

    // By the clock on the wall: it goes on while a computer sleeps, and no timer does.
    setInterval(() => {
      if (link?.since && Date.now() - link.heardAt > link.silenceMs) lost(turn, {});
    }, 1000);
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) hiddenAt = Date.now();
      else {
        const isSilent = !link?.since || Date.now() - link.heardAt > heartbeatMs;
        if (isSilent || Date.now() - hiddenAt >= SHORT_MS) refresh();
      }
    });
    document.addEventListener("resume", refresh);
    addEventListener("online", refresh);
    addEventListener("offline", refresh);
    // An open connection would keep the page out of the back/forward cache.
    addEventListener("pagehide", () => {
      turn += 1;
      drop();
    });
    // Whoever signs out is on the way to another page: what ends here must not lead elsewhere.
    addEventListener("submit", ({ target }) => {
      if (target.matches('[action="/sign-out"]')) end("Signed out");
    });
    addEventListener("pageshow", (event) => {
      if (event.persisted) refresh();
    });

    say("connecting");
    // htmx is set up by then.
    const start = () => (way === "poll" ? begin() : open());
    if (document.readyState === "loading") addEventListener("DOMContentLoaded", start);
    else start();
  }
})();
