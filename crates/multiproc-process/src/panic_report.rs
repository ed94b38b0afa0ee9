//! What the parent learns about a panic.

use std::any::Any;
use std::backtrace::Backtrace;
use std::cell::RefCell;
use std::io::{self, Write};
use std::{panic, process};

use crate::bootstrap::tell;
use crate::protocol::{Outcome, Panic};

thread_local! {
    /// The last panic of this thread.
    static LAST_PANIC: RefCell<Option<(String, String, Backtrace)>> = const { RefCell::new(None) };
}

/// Keeps each panic for the parent, and reports it on standard error as usual, after the name of the
/// process.
pub(crate) fn keep_panics(name: &'static str) {
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let location = info.location().map(ToString::to_string).unwrap_or_default();
        let last = (message_of(info.payload()), location, Backtrace::capture());
        let is_fatal = is_fatal(&last.0);
        // A thread that is ending has none any more.
        let _ = LAST_PANIC.try_with(|kept| {
            let mut kept = kept.borrow_mut();
            // What is fatal about it is not the reason.
            if !is_fatal || kept.is_none() {
                *kept = Some(last);
            }
        });
        // Not `eprintln`, which panics if nobody reads.
        let _ = writeln!(io::stderr(), "process '{name}' ({}):", process::id());
        usual(info);
        // Nobody will catch it, so this is the end.
        if (is_fatal || cfg!(panic = "abort"))
            && let Ok(Some((message, location, backtrace))) = LAST_PANIC.try_with(RefCell::take)
        {
            tell(Outcome::Panicked(Panic::new(message, location, &backtrace)));
        }
    }));
}

/// Whether std says by this message that a panic ends the process, although the program is built to
/// unwind: it would have to unwind where that cannot be. (Should it find other words, the parent
/// learns the signal alone.)
fn is_fatal(message: &str) -> bool {
    ["panic in a function that cannot unwind", "panic in a destructor during cleanup"]
        .contains(&message)
}

fn message_of(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic with a payload that is no text".to_owned())
}

/// What is known about a panic that was caught: the hook saw more of it, unless the function has set
/// another hook.
pub(crate) fn panic_of(payload: &(dyn Any + Send)) -> Panic {
    let message = message_of(payload);
    match LAST_PANIC.take() {
        Some((last, location, backtrace)) if last == message => {
            Panic::new(message, location, &backtrace)
        }
        _ => Panic { message, location: "an unknown place".to_owned(), backtrace: None },
    }
}

/// The outcome of arguments that could not be decoded. A panic in a `Deserialize` may have been caught
/// further down; it is a panic all the same.
pub(crate) fn not_received<A>(reason: &str) -> Outcome {
    match LAST_PANIC.take() {
        Some((message, location, backtrace)) if reason.ends_with(&message) => {
            Outcome::Panicked(Panic::new(message, location, &backtrace))
        }
        _ => Outcome::arguments_lost::<A>(reason),
    }
}
