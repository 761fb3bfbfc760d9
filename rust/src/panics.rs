//! What a thread of the plane said when it panicked, and where: who restarts the node in the night wants to know.

use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};
use std::panic;
use std::sync::Once;

thread_local! {
    static LISTENS: Cell<bool> = const { Cell::new(false) };
    static LATEST: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Keep this thread's panics. Those of other threads go where they went before.
pub fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if LISTENS.get() {
                LATEST.set(format!("{info}{}", ours(&Backtrace::force_capture().to_string())));
            }
            before(info);
        }));
    });
    LISTENS.set(true);
}

/// The places of a backtrace that are in our own files, the innermost first: some five of thirty frames. None where the
/// extension was built without line tables.
fn ours(backtrace: &str) -> String {
    let places = backtrace.lines().filter_map(|line| line.trim_start().strip_prefix("at "));
    let places = places.filter_map(|place| place.rfind("rust/src/").map(|from| &place[from..]));
    let called: Vec<_> = places.filter(|place| !place.starts_with("rust/src/panics.rs")).collect();
    if called.is_empty() { String::new() } else { format!("\nby way of {}", called.join(", ")) }
}

/// Take the latest panic of this thread: where, what, and by way of which places.
pub fn latest() -> String {
    LATEST.take()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_kept_by_the_thread_that_asked_for_it() {
        listen();
        let empty = std::thread::spawn(|| {
            let _ = panic::catch_unwind(|| panic!("unheard"));
            latest()
        });
        assert_eq!(empty.join().expect("caught"), "");
        let _ = panic::catch_unwind(|| panic!("number {}", 7));
        let told = latest();
        assert!(told.contains("number 7") && told.contains("panics.rs"), "{told}");
        assert_eq!(latest(), "");
    }

    #[test]
    fn of_a_backtrace_our_own_places_are_told() {
        let backtrace = "   0: {closure#0}\n             at ./rust/src/panics.rs:21:50\n   1: core::panicking::panic_fmt\n\
            \x20            at /rustc/5980/library/core/src/panicking.rs:80:14\n   2: orders<_native::core::Core>\n\
            \x20            at /build/rust/src/shard.rs:322:33\n   3: round\n             at ./rust/src/shard.rs:249:14\n";
        assert_eq!(ours(backtrace), "\nby way of rust/src/shard.rs:322:33, rust/src/shard.rs:249:14");
        assert_eq!(ours("   0: <unknown>\n"), "");
    }
}
