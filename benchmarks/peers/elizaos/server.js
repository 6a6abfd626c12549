// A peer: the reference implementation's own session router, which keeps sessions in a Map of its process.
// It is alone in its app, to its favour: its own server puts CORS, a rate limit and other checks before it.
import { readFileSync, writeFileSync } from "node:fs";

import express from "express";

// The package is one bundle that does not export its session router; a copy that does lies beside it, so that what
// the bundle imports is found.
const bundle = new URL(import.meta.resolve("@elizaos/server"));
const opened = new URL("with-sessions-router.js", bundle);
writeFileSync(opened, `${readFileSync(bundle)}\nexport { createSessionsRouter };\n`);
const { createSessionsRouter } = await import(opened);

// What creating a session asks of agents and of the message store; reading one asks nothing of either.
const agents = { getAgent: (agentId) => ({ agentId, getSetting: () => undefined }) };
const messages = {
  messageServerId: "00000000-0000-0000-0000-000000000000",
  createChannel: async () => {},
  addParticipantsToChannel: async () => {},
};

const app = express();
app.use(express.json());
app.use("/api/messaging", createSessionsRouter(agents, messages));
app.listen(Number(process.env.PORT), "127.0.0.1");

// The router listens for this signal to stop its timer, and a signal that is listened for no longer ends a process.
process.once("SIGTERM", () => process.exit());
