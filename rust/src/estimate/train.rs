//! Trains of packets that probe for bandwidth.

use super::HISTORY;

/// A probe train has at least so many packets.
pub const PROBE_PACKETS: usize = 5;

/// One train: which sequence numbers belong to it, and what came of them.
#[derive(Debug)]
pub struct Probe {
    pub first: u16,
    pub last: Option<u16>, // None while it is being sent
    pub bitrate: i64,
    pub started_us: i64,
    pub packets: Vec<(i64, i64, i64)>, // sent, arrived, bytes
}

impl Probe {
    pub fn add(&mut self, seq16: u16, send_us: i64, arrival_us: i64, size: i64) {
        let ahead = seq16.wrapping_sub(self.first);
        let belongs = self.last.is_none_or(|last| ahead <= last.wrapping_sub(self.first));
        if usize::from(ahead) < HISTORY && belongs {
            self.packets.push((send_us, arrival_us, size));
        }
    }

    /// Bit/s that the path has shown it can carry, 0 when the train says nothing.
    pub fn result(&self, last: u16) -> i64 {
        let count = self.packets.len();
        if count < PROBE_PACKETS || count * 10 < (usize::from(last.wrapping_sub(self.first)) + 1) * 8 {
            return 0;
        }
        let total: i64 = self.packets.iter().map(|packet| packet.2).sum();
        let sending = spread(self.packets.iter().map(|packet| packet.0));
        let arriving = spread(self.packets.iter().map(|packet| packet.1));
        if !(0 < sending && sending <= 1_000_000 && 0 < arriving && arriving <= 1_000_000) {
            return 0;
        }
        // The last packet's bytes are sent after the sending interval, the first one's arrive before the other.
        let sent = (total - self.packets[count - 1].2) * 8_000_000 / sending;
        let got = (total - self.packets[0].2) * 8_000_000 / arriving;
        if got > 2 * sent {
            return 0; // released in a clump: the times measure a scheduler, not a path
        }
        if got * 10 < sent * 9 { got * 95 / 100 } else { sent.min(got) }
    }
}

fn spread(times: impl Iterator<Item = i64> + Clone) -> i64 {
    times.clone().max().unwrap_or(0) - times.min().unwrap_or(0)
}
