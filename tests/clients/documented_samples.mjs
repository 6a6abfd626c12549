// Clients that make the same calls as the samples of the reference's documentation. `calls` lists their requests.

export const calls = [];

async function request(url, method, path, body) {
  const response = await fetch(`${url}/api/messaging/sessions${path}`, {
    method,
    headers: { "Content-Type": "application/json" },
    body: body && JSON.stringify(body),
  });
  calls.push(`${method} ${response.status}`);
  return response;
}

// Sends heartbeats, warns near the end, and stops after any error.
export class SessionManager {
  constructor(url, sessionId, onWarning, onLost) {
    Object.assign(this, { url, sessionId, onWarning, onLost });
  }

  async beat() {
    const response = await request(this.url, "POST", `/${this.sessionId}/heartbeat`);
    if (!response.ok) return this.onLost(response.status);
    const { isNearExpiration, timeRemaining, timeoutConfig } = await response.json();
    if (isNearExpiration || timeRemaining < timeoutConfig.warningThresholdMinutes * 60_000) this.onWarning();
  }
}

// The logic of the React hook: after 404 or 410, it opens a session and sends again, without a limit.
export class SessionHook {
  constructor(url, owner) {
    Object.assign(this, { url, owner, messages: [], status: null });
  }

  async open() {
    const timeoutConfig = { timeoutMinutes: 30, autoRenew: true, maxDurationMinutes: 120 };
    const response = await request(this.url, "POST", "", { ...this.owner, timeoutConfig });
    this.session = await response.json();
  }

  async send(content) {
    const response = await request(this.url, "POST", `/${this.session.sessionId}/messages`, { content });
    if (response.status === 404 || response.status === 410) {
      await this.open();
      return this.send(content);
    }
    const message = await response.json();
    this.messages.push(message);
    this.status = message.sessionStatus;
  }
}

// Reads the session before each message, and opens another one after any failure.
export class ResilientClient {
  constructor(url, owner) {
    Object.assign(this, { url, owner, sessionId: null });
  }

  async send(content) {
    try {
      if (!this.sessionId || !(await request(this.url, "GET", `/${this.sessionId}`)).ok) {
        this.sessionId = (await (await request(this.url, "POST", "", this.owner)).json()).sessionId;
      }
      const response = await request(this.url, "POST", `/${this.sessionId}/messages`, { content });
      if (!response.ok) throw new Error(`status ${response.status}`);
      return await response.json();
    } catch {
      this.sessionId = null;
      return this.send(content);
    }
  }
}
