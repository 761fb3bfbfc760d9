// WHIP (RFC 9725): camera, microphone and screen to the stage, in three simulcast layers.

import { Rates, Session } from './session.js';

/** Simulcast encodings, lowest first, as the relay orders its layers. */
export const LAYERS = [
  { rid: 'q', scaleResolutionDownBy: 4, maxBitrate: 150_000 },
  { rid: 'h', scaleResolutionDownBy: 2, maxBitrate: 500_000 },
  { rid: 'f', scaleResolutionDownBy: 1, maxBitrate: 1_700_000 },
];

export class Publisher extends Session {
  /** `layers` is how many of LAYERS to send, counted from the full picture down; 1 sends one plain encoding. */
  constructor(api, room, stream, { layers = 3, codec = null } = {}) {
    super(api, `/whip/${encodeURIComponent(room)}`);
    this.stream = stream;
    this.layers = layers;
    this.codec = codec;
    this.rates = new Rates();
  }

  async prepare(pc) {
    for (const track of this.stream.getTracks()) {
      const init = { direction: 'sendonly', streams: [this.stream] };
      if (track.kind === 'video') init.sendEncodings = this.encodings();
      const transceiver = pc.addTransceiver(track, init);
      if (track.kind === 'video' && this.codec) preferCodec(transceiver, this.codec);
    }
  }

  /** What comes to a publisher: reports of what has arrived, some ten a second. */
  async heard(pc) {
    let packets = 0;
    for (const stat of (await pc.getStats()).values()) if (stat.type === 'transport') packets += stat.packetsReceived ?? 0;
    return packets;
  }

  /** Those who watch on other nodes take what is sent to the old one until they can decode what is sent to the new one. */
  get lingers() {
    return true;
  }

  encodings() {
    if (this.layers <= 1) return [{ maxBitrate: LAYERS.at(-1).maxBitrate }];
    return LAYERS.slice(-this.layers).map((layer) => ({ ...layer }));
  }

  /** Replace what a kind of track shows (another device, or null to send nothing) without renegotiation. */
  async replace(kind, track) {
    const sender = this.pc?.getTransceivers().find((t) => t.sender.track?.kind === kind || t.receiver.track.kind === kind)?.sender;
    await sender?.replaceTrack(track);
    for (const old of this.stream.getTracks().filter((t) => t.kind === kind && t !== track)) {
      this.stream.removeTrack(old);
      old.stop();
    }
    if (track && !this.stream.getTracks().includes(track)) this.stream.addTrack(track);
  }

  /** Upload health: per layer bitrate and size, and round trip, loss and what limits the encoder. */
  async health() {
    const health = { layers: [], roundTripMs: null, loss: 0, limit: 'none', audioBps: 0, totalBps: 0, availableBps: null };
    if (!this.pc) return health;
    const report = await this.pc.getStats();
    for (const stat of report.values()) {
      if (stat.type === 'outbound-rtp') {
        const bps = this.rates.of(stat.id, stat.bytesSent, stat.timestamp) * 8;
        health.totalBps += bps;
        if (stat.kind === 'audio') health.audioBps += bps;
        else {
          health.layers.push({ rid: stat.rid ?? '', bps, width: stat.frameWidth ?? 0, height: stat.frameHeight ?? 0, fps: stat.framesPerSecond ?? 0 });
          if (stat.qualityLimitationReason && stat.qualityLimitationReason !== 'none') health.limit = stat.qualityLimitationReason;
        }
      } else if (stat.type === 'remote-inbound-rtp') {
        health.loss = Math.max(health.loss, stat.fractionLost ?? 0);
        if (stat.roundTripTime !== undefined) health.roundTripMs = stat.roundTripTime * 1000;
      } else if (stat.type === 'candidate-pair' && stat.nominated) {
        health.availableBps = stat.availableOutgoingBitrate ?? null;
        health.roundTripMs ??= stat.currentRoundTripTime * 1000;
      }
    }
    const order = LAYERS.map((layer) => layer.rid);
    health.layers.sort((a, b) => order.indexOf(a.rid) - order.indexOf(b.rid));
    return health;
  }
}

// Offers nothing else: among several codecs the room's order decides, not the offer's.
function preferCodec(transceiver, name) {
  const { codecs } = RTCRtpSender.getCapabilities('video');
  const wanted = new RegExp(`^video/(${name}|rtx)$`, 'i');
  transceiver.setCodecPreferences(codecs.filter((codec) => wanted.test(codec.mimeType)));
}
