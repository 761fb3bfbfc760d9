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
                // Message and place first; a backtrace has names where the extension was built with them.
                LATEST.set(format!("{info}\n{}", Backtrace::force_capture()));
            }
            before(info);
        }));
    });
    LISTENS.set(true);
}

/// Take the latest panic of this thread: what, where, and the backtrace.
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
}
