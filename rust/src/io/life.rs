//! What the kernel says of one of our own threads.

use std::fs;

use rustix::thread::Pid;

use crate::watch::Life;

/// USER_HZ, in which the kernel tells times: 100 on every architecture that is built for today. What asks for it
/// (`rustix::param`) reads the auxiliary vector, which valgrind gives it wrong.
const TICKS: u64 = 100;

/// None where /proc is not mounted, or the thread is gone.
pub fn life_of(thread: Pid) -> Option<Life> {
    let text = fs::read_to_string(format!("/proc/self/task/{}/stat", thread.as_raw_nonzero())).ok()?;
    read(&text)
}

/// See proc_pid_stat(5): the name, which may hold anything, ends with the last parenthesis; then the state is field 3,
/// and the times in user and kernel mode are fields 14 and 15.
fn read(text: &str) -> Option<Life> {
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let sleeps = fields.next()? == "S";
    let mut times = fields.skip(10).map(str::parse::<u64>);
    let (user, kernel) = (times.next()?.ok()?, times.next()?.ok()?);
    let spent = user.checked_add(kernel)?.checked_mul(1_000_000)? / TICKS;
    Some(Life { cpu_us: i64::try_from(spent).ok()?, sleeps })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::thread::gettid;
    use std::sync::mpsc::sync_channel;
    use std::thread;
    use std::time::{Duration, Instant};

    #[test]
    fn a_thread_that_works_and_one_that_sleeps() {
        let mine = life_of(gettid()).expect("/proc");
        assert!(!mine.sleeps);
        let until = Instant::now() + Duration::from_secs(30); // of a CPU that is shared
        while life_of(gettid()).is_some_and(|now| now.cpu_us < mine.cpu_us + 20_000) {
            assert!(Instant::now() < until, "no CPU time was counted");
        }
        let ((tell, told), (end, ended)) = (sync_channel(1), sync_channel::<()>(0));
        let sleeper = thread::spawn(move || {
            tell.send(gettid()).expect("somebody listens");
            let _ = ended.recv();
        });
        let other = told.recv().expect("its number");
        while !life_of(other).expect("it is there").sleeps {
            assert!(Instant::now() < until, "it never sleeps");
        }
        drop(end);
        sleeper.join().expect("no panic");
        while life_of(other).is_some() {
            assert!(Instant::now() < until, "it is still there");
        }
    }

    #[test]
    fn what_is_no_such_line_says_nothing() {
        let line = "7 (a) R 9) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20";
        assert_eq!(read(line), Some(Life { cpu_us: 2_000_000, sleeps: true }));
        for wrong in ["", "7 (a", "7 (a) S 1 2", "7 (a) S 1 2 3 4 5 6 7 8 9 10 x 50", &line.replace("50 0", "-50 0")] {
            assert_eq!(read(wrong), None);
        }
        assert_eq!(read(&line.replace("150", &u64::MAX.to_string())), None);
    }
}
