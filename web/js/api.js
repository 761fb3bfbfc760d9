// The REST API as the pages use it: a client that carries the token, problems (RFC 9457) as errors, and server-sent
// events over fetch, because EventSource cannot send an Authorization header.

export class Problem extends Error {
  constructor(status, body, retryAfter) {
    super(body.detail || body.title || `HTTP ${status}`);
    this.status = status;
    this.type = body.type || 'about:blank';
    this.retryAfter = retryAfter;
  }
}

/** Room and token from the page's fragment (`#room=…&token=…`): fragments never reach a server's log. */
export function fragmentParameters() {
  return Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
}

/** The claims inside a token, for display only; the relay alone decides what it allows. */
export function tokenClaims(token) {
  try {
    const part = token.split('.')[1].replace(/-/g, '+').replace(/_/g, '/');
    return JSON.parse(new TextDecoder().decode(Uint8Array.from(atob(part), (c) => c.charCodeAt(0))));
  } catch {
    return {};
  }
}

export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function problemOf(response) {
  let body = {};
  try {
    body = await response.json();
  } catch {
    body = { title: response.statusText };
  }
  return new Problem(response.status, body, Number(response.headers.get('Retry-After')) || undefined);
}

export class Api {
  constructor(token, base = location.origin) {
    this.token = token;
    this.base = base;
  }

  /** Send a request and return the response. Throws Problem for any status outside 2xx. */
  async send(method, path, { body, headers = {}, signal, keepalive } = {}) {
    const response = await fetch(new URL(path, this.base), {
      method,
      body,
      signal,
      keepalive,
      headers: { Authorization: `Bearer ${this.token}`, ...headers },
    });
    if (!response.ok) throw await problemOf(response);
    return response;
  }

  async json(method, path, value) {
    const options = value === undefined ? {} : { body: JSON.stringify(value), headers: { 'Content-Type': 'application/json' } };
    const response = await this.send(method, path, options);
    return response.status === 204 ? null : response.json();
  }

  get(path) {
    return this.json('GET', path);
  }

  /** Follow a stream of events; comes back by itself where it left off. Returns a function that stops it. */
  events(path, onEvent, onState = () => {}) {
    const abort = new AbortController();
    let lastId;
    const follow = async () => {
      for (let delay = 500; !abort.signal.aborted; delay = Math.min(delay * 2, 10000)) {
        try {
          const headers = { Accept: 'text/event-stream', ...(lastId ? { 'Last-Event-ID': lastId } : {}) };
          const response = await this.send('GET', path, { headers, signal: abort.signal });
          onState('live');
          delay = 500;
          for await (const event of readEvents(response.body)) {
            if (event.id) lastId = event.id;
            if (event.data) onEvent(event.type, JSON.parse(event.data));
          }
        } catch (error) {
          if (abort.signal.aborted) return;
          if (error instanceof Problem && error.status === 410) lastId = undefined; // too old to resume: start anew
          if (error instanceof Problem && [401, 403, 404].includes(error.status)) {
            onState('refused', error);
            return;
          }
        }
        onState('lost');
        await pause(delay);
      }
    };
    follow();
    return () => abort.abort();
  }
}

/** Parse a body of server-sent events (WHATWG HTML, 9.2.6). */
async function* readEvents(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = '';
  let event = { type: 'message', data: '', id: '' };
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    buffer += value;
    const lines = buffer.split(/\r\n|\n|\r/);
    buffer = lines.pop();
    for (const line of lines) {
      if (line === '') {
        if (event.data) yield { ...event, data: event.data.replace(/\n$/, '') };
        event = { type: 'message', data: '', id: '' };
        continue;
      }
      const [, field, text] = /^([^:]*):? ?(.*)$/s.exec(line);
      if (field === 'event') event.type = text;
      else if (field === 'data') event.data += `${text}\n`;
      else if (field === 'id') event.id = text;
    }
  }
}
