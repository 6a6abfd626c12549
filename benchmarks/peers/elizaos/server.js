// The session router of the reference implementation, which keeps sessions in memory.
// It runs without the CORS, rate limit and other middleware of its server.
import { readFileSync, writeFileSync } from "node:fs";

import express from "express";

// The package is a bundle that does not export its session router. Write a copy that does next to it, so that its
// imports resolve.
const bundle = new URL(import.meta.resolve("@elizaos/server"));
const opened = new URL("with-sessions-router.js", bundle);
writeFileSync(opened, `${readFileSync(bundle)}\nexport { createSessionsRouter };\n`);
const { createSessionsRouter } = await import(opened);

// Stubs of the agents and the message store, which only the creation of a session uses.
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

// The router handles this signal to stop its timer, so the process must exit explicitly.
process.once("SIGTERM", () => process.exit());
