"""The program, or any publication, out of the room: HLS, recording, RTMP. See docs/decisions/0015."""
