// What a page under measurement notes by itself; in place before any of its own scripts.
(() => {
  const afterPaint = (note) => {
    // A frame's callbacks run before it is painted, and the next task after it was.
    requestAnimationFrame(() => {
      const channel = new MessageChannel();
      channel.port1.onmessage = note;
      channel.port2.postMessage(null);
    });
  };
  const answer = () => [...document.querySelectorAll("article.assistant .text")].at(-1);
  window.measured = { shown: 0, live: 0, chunks: [] };

  // How long until all of the answer that was there before the reload is painted again.
  const wanted = Number(sessionStorage.getItem("wanted"));
  const look = () => {
    if (answer()?.textContent.length >= wanted) {
      const channel = new MessageChannel();
      channel.port1.onmessage = () => (measured.shown = performance.now());
      channel.port2.postMessage(null);
    } else requestAnimationFrame(look);
  };
  if (wanted) requestAnimationFrame(look);
  const isLive = () => {
    if (document.querySelector("#connection")?.dataset.state === "live") {
      measured.live = performance.now();
    } else setTimeout(isLive, 1);
  };
  isLive();

  // When each piece that is a time came into the document, and when it was painted.
  if (!sessionStorage.getItem("clock")) return;
  const now = () => (performance.timeOrigin + performance.now()) * 1000;
  let last = 0;
  const watch = () => {
    const blocks = answer()?.children ?? [];
    const text = [...blocks].slice(-2).map((block) => block.textContent).join(" ");
    const fresh = (text.match(/\d{16}/g) ?? []).map(Number).filter((made) => made > last);
    if (!fresh.length) return;
    last = fresh.at(-1);
    const changed = now();
    afterPaint(() => {
      const painted = now();
      for (const made of fresh) measured.chunks.push([made, changed, painted]);
    });
  };
  addEventListener("DOMContentLoaded", () => {
    new MutationObserver(watch).observe(document.querySelector("#messages"), {
      childList: true,
      characterData: true,
      subtree: true,
    });
  });
})();
