//! The core as what a shard drives.

use std::net::SocketAddr;

use super::contract::{Command, Event, PlaneStats};
use super::{Core, fanout, mirrors};
use crate::error::UsageError;
use crate::lanes::Note;
use crate::machine::{Machine, Tapped};
use crate::out::OutBatch;

impl Machine for Core {
    type Command = Command;
    type Event = Event;
    type Stats = PlaneStats;

    fn apply(&mut self, command: Command, now: i64) -> Result<(), UsageError> {
        Core::apply(self, command, now)
    }

    fn inject(&mut self, track: u32, layer: i64, packet: &[u8], now: i64) -> Result<(), UsageError> {
        Core::inject(self, track, layer, packet, now)
    }

    fn receive(&mut self, datagram: &[u8], source: SocketAddr, now: i64) {
        Core::receive(self, datagram, source, now);
    }

    fn settle(&mut self, _now: i64) -> bool {
        fanout::write_chunk(&mut self.state)
    }

    fn held(&self) -> usize {
        self.state.out.bytes() + self.state.fanout.bytes()
    }

    fn next_timeout(&self) -> Option<i64> {
        Core::next_timeout(self)
    }

    fn handle_timeout(&mut self, now: i64) {
        Core::handle_timeout(self, now);
    }

    fn out(&self) -> &OutBatch {
        &self.state.out
    }

    fn transmit(&mut self) -> &mut OutBatch {
        let out = &mut self.state.out;
        self.datagrams_out += out.len() as u64;
        self.bytes_out += out.bytes() as u64;
        out
    }

    fn events(&mut self, into: &mut Vec<Event>) {
        into.append(&mut self.state.events);
    }

    fn taps(&mut self, take: impl FnMut(Tapped<'_>)) {
        Core::taps(self, take);
    }

    fn joins(&mut self, shard: usize) {
        self.state.outbox.own = shard as u8;
    }

    fn notes(&mut self, give: impl FnMut(u64, &Note, &[u8]) -> u64) {
        mirrors::drain(&mut self.state, give);
    }

    fn take_note(&mut self, note: &Note, data: &[u8], now: i64) {
        self.state.now = now;
        mirrors::take(&mut self.state, note, data, now);
    }

    fn stats(&self) -> PlaneStats {
        Core::stats(self)
    }
}
