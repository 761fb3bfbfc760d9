// WHIP and WHEP for a page under test, beside painting.js. Everything that Python asks for is on `clients`.
globalThis.clients = (() => {
  const publishers = [], viewers = [], log = [];

  async function gathered(pc, ms) {
    if (!ms || pc.iceGatheringState === "complete") return;
    await new Promise((resolve) => {
      setTimeout(resolve, ms);
      pc.addEventListener("icegatheringstatechange", () => pc.iceGatheringState === "complete" && resolve());
    });
  }

  async function exchange(pc, url, token, gatherMs) {
    pc.addEventListener("connectionstatechange", () => log.push(`${url} ${pc.connectionState}`));
    await pc.setLocalDescription();
    await gathered(pc, gatherMs);
    const answer = await fetch(url, {
      method: "POST",
      headers: { "Content-Type": "application/sdp", ...(token && { Authorization: `Bearer ${token}` }) },
      body: pc.localDescription.sdp,
    });
    const body = await answer.text();
    if (answer.status !== 201) throw new Error(`${url} answered ${answer.status}: ${body.slice(0, 500)}`);
    await pc.setRemoteDescription({ type: "answer", sdp: body });
    return new URL(answer.headers.get("Location"), answer.url).href;
  }

  function prefer(transceiver, kind, codec) {
    const all = RTCRtpReceiver.getCapabilities(kind).codecs;
    const chosen = all.filter((c) => c.mimeType.toLowerCase() === `${kind}/${codec}`.toLowerCase());
    if (!chosen.length) throw new Error(`this browser has no ${codec}`);
    const repair = all.filter((c) => /\/(rtx|red|ulpfec)$/i.test(c.mimeType));
    transceiver.setCodecPreferences([...chosen, ...repair]);
  }

  // A canvas that is painted `fps` times a second. A worker keeps the time: pages in the background lose their timers.
  function paintedTrack({ publisher, width, height, fps }) {
    const canvas = document.createElement("canvas");
    Object.assign(canvas, { width, height });
    document.body.append(canvas);
    const context = canvas.getContext("2d", { alpha: false });
    const state = { canvas, counter: 0, track: null };
    const paint = () => {
      painting.paint(context, width, height, { publisher, counter: state.counter++, clockMs: Date.now() % 2 ** 24 });
      state.track?.requestFrame?.();
    };
    paint();
    state.track = canvas.captureStream(0).getVideoTracks()[0];
    const code = `setInterval(() => postMessage(0), ${1000 / fps})`;
    state.worker = new Worker(URL.createObjectURL(new Blob([code])));
    state.worker.onmessage = paint;
    return state;
  }

  function toneTrack(frequency) {
    const audio = new AudioContext({ sampleRate: 48000 });
    const oscillator = new OscillatorNode(audio, { frequency });
    const sink = audio.createMediaStreamDestination();
    oscillator.connect(new GainNode(audio, { gain: 0.3 })).connect(sink);
    oscillator.start();
    return { audio, track: sink.stream.getAudioTracks()[0] };
  }

  // options: url, token, publisher, width, height, fps, codec, simulcast, tone, gatherMs. Returns the publisher's index.
  async function publish(options) {
    const o = { token: "", publisher: 1, width: 1280, height: 720, fps: 30, codec: "VP8", simulcast: false, tone: 440,
      gatherMs: 2000, ...options };
    const pc = new RTCPeerConnection({ bundlePolicy: "max-bundle" });
    const tone = o.tone ? toneTrack(o.tone) : null;
    if (tone) pc.addTransceiver(tone.track, { direction: "sendonly" });
    const painted = paintedTrack(o);
    const sendEncodings = o.simulcast
      ? [{ rid: "q", scaleResolutionDownBy: 4 }, { rid: "h", scaleResolutionDownBy: 2 }, { rid: "f" }]
      : [{}];
    const transceiver = pc.addTransceiver(painted.track, { direction: "sendonly", sendEncodings });
    prefer(transceiver, "video", o.codec);
    const location = await exchange(pc, o.url, o.token, o.gatherMs);
    return publishers.push({ pc, painted, tone, location, token: o.token }) - 1;
  }

  // options: url, token, videos, audios, codec, gatherMs. Returns the viewer's index.
  async function view(options) {
    const o = { token: "", videos: 1, audios: 1, codec: "", gatherMs: 2000, ...options };
    const pc = new RTCPeerConnection({ bundlePolicy: "max-bundle" });
    const viewer = { pc, slots: [], negotiations: 1, token: o.token };
    const kinds = [...Array(o.audios).fill("audio"), ...Array(o.videos).fill("video")];
    for (const kind of kinds) {
      const transceiver = pc.addTransceiver(kind, { direction: "recvonly" });
      if (kind === "video" && o.codec) prefer(transceiver, kind, o.codec);
      viewer.slots.push(kind === "video" ? videoSlot(transceiver.receiver.track) : audioSlot(transceiver.receiver.track));
    }
    viewer.location = await exchange(pc, o.url, o.token, o.gatherMs);
    return viewers.push(viewer) - 1;
  }

  function videoSlot(track) {
    const video = Object.assign(document.createElement("video"), { muted: true, autoplay: true, playsInline: true });
    video.style.width = "320px";
    video.srcObject = new MediaStream([track]);
    document.body.append(video);
    const slot = { kind: "video", video, frames: 0, unread: 0, seen: [], width: 0, height: 0 };
    const canvas = document.createElement("canvas");
    const look = (now) => {
      slot.frames++;
      Object.assign(slot, { width: video.videoWidth, height: video.videoHeight });
      const said = painting.readVideo(video, canvas);
      if (said) slot.seen.push([Math.round(now), said.publisher, said.counter, said.clockMs]);
      else slot.unread++;
      video.requestVideoFrameCallback(look);
    };
    video.requestVideoFrameCallback(look);
    return slot;
  }

  function audioSlot(track) {
    const element = Object.assign(document.createElement("audio"), { muted: true, autoplay: true });
    element.srcObject = new MediaStream([track]); // Chromium pulls remote sound only through an element
    const audio = new AudioContext({ sampleRate: 48000 });
    const analyser = new AnalyserNode(audio, { fftSize: 16384, smoothingTimeConstant: 0 });
    audio.createMediaStreamSource(element.srcObject).connect(analyser);
    return { kind: "audio", element, audio, analyser };
  }

  // The strongest tone: [Hz, dB of its bin]; the bins are 2.9 Hz wide.
  function heard({ audio, analyser }) {
    const bins = new Float32Array(analyser.frequencyBinCount);
    analyser.getFloatFrequencyData(bins);
    let best = 1;
    for (let i = 1; i < bins.length; i++) if (bins[i] > bins[best]) best = i;
    return Number.isFinite(bins[best]) ? [(best * audio.sampleRate) / analyser.fftSize, bins[best]] : null;
  }

  // What a viewer's slots have shown since the last call with `clear`; `seen` rows: [ms, publisher, counter, clockMs].
  function report(index, clear = false) {
    const { pc, slots } = viewers[index];
    return {
      state: pc.connectionState,
      slots: slots.map((slot) => {
        if (slot.kind === "audio") return { kind: "audio", heard: heard(slot) };
        const { frames, unread, seen, width, height } = slot;
        if (clear) Object.assign(slot, { frames: 0, unread: 0, seen: [] });
        return { kind: "video", frames, unread, seen, width, height };
      }),
    };
  }

  // How many pictures a second each video slot has shown, per publisher, over the last `ms`.
  const rates = (index, ms = 2000) =>
    viewers[index].slots.filter((slot) => slot.kind === "video").map((slot) => {
      const counts = {};
      for (const [at, publisher] of slot.seen)
        if (at > performance.now() - ms) counts[publisher] = (counts[publisher] ?? 0) + 1000 / ms;
      return counts;
    });

  const stats = async (list, index, type) =>
    [...(await list[index].pc.getStats()).values()].filter((entry) => !type || entry.type === type);

  async function close(list, index, { remove = true } = {}) {
    const { pc, location, token, painted, tone, slots } = list[index];
    let status = 0;
    if (remove)
      status = (await fetch(location, { method: "DELETE", headers: token ? { Authorization: `Bearer ${token}` } : {} }))
        .status;
    pc.close();
    painted?.worker.terminate();
    for (const { audio } of [tone, ...(slots ?? [])].filter((x) => x?.audio)) await audio.close();
    return status;
  }

  return {
    log, publishers, viewers, publish, view, report, rates,
    publisherState: (index) => ({ state: publishers[index].pc.connectionState, counter: publishers[index].painted.counter }),
    publisherStats: (index, type) => stats(publishers, index, type),
    viewerStats: (index, type) => stats(viewers, index, type),
    unpublish: (index, options) => close(publishers, index, options),
    unview: (index, options) => close(viewers, index, options),
  };
})();
