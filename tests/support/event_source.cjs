// Follows a session as any program with the npm package `eventsource` would, and prints one JSON
// object a line: what it was given, and what became of its connection.
//
//   NODE_PATH=tests/support/vendor node tests/support/event_source.cjs URL
"use strict";

const { EventSource } = require("eventsource");

const TYPES = ["welcome", "history", "message", "start", "chunk", "session", "bye"];

const print = (said) => process.stdout.write(`${JSON.stringify(said)}\n`);
const source = new EventSource(process.argv[2]);

const give = (event) =>
  print({ event: event.type, id: event.lastEventId || null, data: JSON.parse(event.data) });

for (const type of TYPES) {
  source.addEventListener(type, give);
}
source.addEventListener("open", () => print({ connection: "open" }));
source.addEventListener("error", (event) => {
  // Our own frame `error` comes under the name that the package gives its connection's troubles.
  if (event.data !== undefined) {
    give(event);
    return;
  }
  const closed = source.readyState === EventSource.CLOSED;
  print({ connection: closed ? "closed" : "lost", status: event.code ?? null });
});
