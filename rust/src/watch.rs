//! Whether a shard's thread is dead or merely waits for a CPU. Without I/O: readings in, a verdict out.
//!
//! A thread begins a round at least once a second, if it is let. One that lacks CPU, that is stopped or whose process was
//! paused begins none either, and goes on as soon as it may: nothing is lost but time. So it is not the clock that tells
//! of a hang, but time in which the thread could have gone on and did not: it ran on a CPU, or slept although it was due.

/// No round for this long, in microseconds: twice what is normal. From then on the thread is watched.
pub const LATE_US: i64 = 2_000_000;
/// A thread that could have gone on for this long hangs: rounds take milliseconds.
pub const HUNG_US: i64 = 8_000_000;
/// Nothing is transient for this long while whoever looks gets CPU.
pub const LOST_US: i64 = 60_000_000;
/// Between two looks no more than this counts: whoever looks may have been stopped as well.
const STRIDE_US: i64 = 1_000_000;

/// What the kernel says of a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    /// What it has had of CPUs since it was started, in microseconds.
    pub cpu_us: i64,
    /// It sleeps, of its own will. Otherwise it runs, waits for a CPU or a disk, or is stopped.
    pub sleeps: bool,
}

/// Why a thread is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dead {
    /// It had so many microseconds to go on and did not.
    Hung(i64),
    /// It was given no chance to go on for so many microseconds.
    Lost(i64),
}

/// Looks at one thread, now and then.
#[derive(Debug, Default)]
pub struct Watch {
    beat: i64,
    looked: i64,
    /// Since it is late: how long that was seen, and how much of it the thread could have gone on.
    late_us: i64,
    stuck_us: i64,
    cpu_us: Option<i64>,
}

impl Watch {
    /// `beat`: when the latest round began. `life` is asked of a thread that is late only; None when the kernel says
    /// nothing, and then all time counts.
    pub fn look(&mut self, beat: i64, now: i64, life: impl FnOnce() -> Option<Life>) -> Option<Dead> {
        if beat != self.beat || now - beat < LATE_US {
            *self = Self { beat, looked: now, ..Self::default() };
            return None;
        }
        let passed = (now - self.looked).clamp(0, STRIDE_US);
        self.looked = now;
        let life = life();
        let ran = life.zip(self.cpu_us).map_or(0, |(life, before)| life.cpu_us - before);
        self.cpu_us = life.map(|life| life.cpu_us);
        self.late_us += passed;
        self.stuck_us += match life {
            Some(life) if !life.sleeps => ran.clamp(0, passed),
            _ => passed,
        };
        if self.stuck_us >= HUNG_US {
            return Some(Dead::Hung(self.stuck_us));
        }
        (self.late_us >= LOST_US).then_some(Dead::Lost(self.late_us))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: i64 = 500_000;

    /// Looks every `step` until a verdict, at most for `limit`: the verdict, and when it came after the latest round.
    fn watched(step: i64, limit: i64, mut life: impl FnMut(i64) -> Option<Life>) -> Option<(Dead, i64)> {
        let (mut watch, beat, mut now) = (Watch::default(), 1_000_000, 1_000_000);
        while now - beat < limit {
            if let Some(dead) = watch.look(beat, now, || life(now)) {
                return Some((dead, now - beat));
            }
            now += step;
        }
        None
    }

    fn waiting(cpu_us: i64) -> Option<Life> {
        Some(Life { cpu_us, sleeps: false })
    }

    #[test]
    fn a_thread_that_is_not_late_is_not_asked_about() {
        let mut watch = Watch::default();
        for round in 0..100 {
            let beat = round * 1_000_000;
            assert_eq!(watch.look(beat, beat + LATE_US - 1, || panic!("nobody asks")), None);
        }
    }

    #[test]
    fn one_that_sleeps_and_one_that_turns_in_circles_hang() {
        let asleep = watched(STEP, LOST_US, |_| Some(Life { cpu_us: 7, sleeps: true }));
        let busy = watched(STEP, LOST_US, waiting);
        let unknown = watched(STEP, LOST_US, |_| None);
        for verdict in [asleep, busy, unknown] {
            let (dead, after) = verdict.expect("it hangs");
            assert!(matches!(dead, Dead::Hung(_)));
            assert!((HUNG_US..HUNG_US + LATE_US + 2 * STEP).contains(&after), "after {after} µs");
        }
    }

    #[test]
    fn one_that_gets_a_little_cpu_is_not_dead_for_a_minute() {
        // A hundredth of a CPU, as beside a hundred others.
        let starved = watched(STEP, 10 * LOST_US, |now| waiting(now / 100));
        let (dead, after) = starved.expect("a minute is too long");
        assert!(matches!(dead, Dead::Lost(_)) && after >= LOST_US);
    }

    #[test]
    fn a_round_that_begins_ends_what_was_held_against_it() {
        let (mut watch, mut now) = (Watch::default(), 0);
        for _ in 0..5 {
            let beat = now;
            for _ in 0..HUNG_US / STEP {
                assert_eq!(watch.look(beat, now, || None), None);
                now += STEP;
            }
        }
    }

    #[test]
    fn a_process_that_was_stopped_finds_its_threads_alive() {
        let (mut watch, beat) = (Watch::default(), 1_000_000);
        assert_eq!(watch.look(beat, beat, || None), None);
        let an_hour_later = beat + 3_600_000_000;
        for look in 0..7 {
            assert_eq!(watch.look(beat, an_hour_later + look, || Some(Life { cpu_us: 0, sleeps: true })), None);
        }
        let jumped = |now| Some(Life { cpu_us: now, sleeps: false }); // a hypervisor's pause, booked as work
        assert_eq!(watch.look(beat, 2 * an_hour_later, || jumped(2 * an_hour_later)), None);
        // A clock that goes back a little, which CPUs' do that are not in step, changes nothing.
        assert_eq!(watch.look(beat, an_hour_later, || jumped(0)), None);
    }
}
