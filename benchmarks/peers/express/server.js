// The same session with express-session and connect-redis, as their documentation recommends.
// By default, a read extends the session, so it needs a GET and an EXPIRE.
import { randomBytes } from "node:crypto";

import { RedisStore } from "connect-redis";
import express from "express";
import session from "express-session";
import { createClient } from "redis";

const MINUTE = 60_000;
const TIMEOUT_CONFIG = { timeoutMinutes: 30, autoRenew: true, maxDurationMinutes: 720, warningThresholdMinutes: 5 };

const redis = createClient({ url: process.env.REDIS_URL });
redis.on("error", console.error);
await redis.connect();

const app = express();

app.get("/health", (_request, response) => response.json({ status: "healthy" }));

app.use(express.json());
app.use(
  session({
    store: new RedisStore({ client: redis, prefix: "express:session:" }),
    secret: randomBytes(32).toString("hex"),
    resave: false,
    saveUninitialized: false,
    rolling: false,
    cookie: { maxAge: TIMEOUT_CONFIG.timeoutMinutes * MINUTE },
  }),
);

app.post("/sessions", (request, response) => {
  const { agentId, userId, metadata = {} } = request.body;
  const now = new Date().toISOString();
  const facts = { agentId, userId, createdAt: now, lastActivity: now, renewedAt: now };
  Object.assign(request.session, facts, { timeoutConfig: TIMEOUT_CONFIG, renewalCount: 0, revision: 1, metadata });
  response.status(201).json(answerOf(request.session));
});

app.get("/session", (request, response) => {
  if (!request.session.agentId) return response.status(404).json({ error: "Session not found" });
  response.json(answerOf(request.session));
});

function answerOf({ id, cookie, agentId, userId, createdAt, lastActivity, timeoutConfig, renewalCount, metadata }) {
  const timeRemaining = cookie.maxAge;
  return {
    sessionId: id,
    agentId,
    userId,
    createdAt,
    lastActivity,
    expiresAt: cookie.expires,
    timeoutConfig,
    renewalCount,
    timeRemaining,
    isNearExpiration: timeRemaining <= timeoutConfig.warningThresholdMinutes * MINUTE,
    metadata,
  };
}

app.listen(Number(process.env.PORT), "127.0.0.1");
