// Cameras and microphones.

import { el } from './dom.js';

/** Open a camera and a microphone; empty ids mean the browser's choice. */
export function openDevices(cameraId, microphoneId) {
  return navigator.mediaDevices.getUserMedia({
    video: { width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: 30 }, ...(cameraId && { deviceId: { exact: cameraId } }) },
    audio: { echoCancellation: true, noiseSuppression: true, autoGainControl: true, ...(microphoneId && { deviceId: { exact: microphoneId } }) },
  });
}

/** Fill two selects with the devices, the ones in use selected. */
export async function listDevices(cameraSelect, microphoneSelect, stream) {
  const devices = await navigator.mediaDevices.enumerateDevices();
  const fill = (select, kind, track) => {
    const current = track?.getSettings().deviceId;
    const options = devices
      .filter((device) => device.kind === kind)
      .map((device, index) => el('option', { value: device.deviceId, selected: device.deviceId === current }, device.label || `${kind} ${index + 1}`));
    select.replaceChildren(...options);
  };
  fill(cameraSelect, 'videoinput', stream.getVideoTracks()[0]);
  fill(microphoneSelect, 'audioinput', stream.getAudioTracks()[0]);
}

/** Show the level of a stream's sound in a bar. Returns a function that stops it. */
export function watchLevel(stream, bar) {
  if (!stream.getAudioTracks().length) return () => {};
  const context = new AudioContext();
  const analyser = context.createAnalyser();
  const source = context.createMediaStreamSource(stream);
  source.connect(analyser);
  const samples = new Uint8Array(analyser.fftSize);
  const timer = setInterval(() => {
    analyser.getByteTimeDomainData(samples);
    const peak = samples.reduce((most, sample) => Math.max(most, Math.abs(sample - 128)), 0);
    bar.style.width = `${Math.min(100, (peak / 128) * 160)}%`;
  }, 80);
  return () => {
    clearInterval(timer);
    context.close();
  };
}
