//! What the parent learns about a panic.

use std::any::Any;
use std::backtrace::Backtrace;
use std::cell::RefCell;
use std::io::{self, Write};
use std::{panic, process};

use crate::bootstrap::tell;
use crate::protocol::{Outcome, Panic};

thread_local! {
    /// The last panic of this thread: message, location, backtrace.
    static LAST_PANIC: RefCell<Option<(String, String, Backtrace)>> = const { RefCell::new(None) };
}

/// Installs a panic hook that stores each panic for the parent, and prints it as usual after a line
/// with the name of the process.
pub(crate) fn keep_panics(name: &'static str) {
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let location = info.location().map(ToString::to_string).unwrap_or_default();
        let last = (message_of(info.payload()), location, Backtrace::capture());
        let is_fatal = is_fatal(&last.0);
        // It fails in a thread that is ending.
        let _ = LAST_PANIC.try_with(|kept| {
            let mut kept = kept.borrow_mut();
            // A fatal panic follows the original one, which is the cause.
            if !is_fatal || kept.is_none() {
                *kept = Some(last);
            }
        });
        // `eprintln` would panic if standard error is closed.
        let _ = writeln!(io::stderr(), "process '{name}' ({}):", process::id());
        usual(info);
        // The panic will not be caught: the process ends after this hook.
        if (is_fatal || cfg!(panic = "abort"))
            && let Ok(Some((message, location, backtrace))) = LAST_PANIC.try_with(RefCell::take)
        {
            tell(Outcome::Panicked(Panic::new(message, location, &backtrace)));
        }
    }));
}

/// Returns `true` if std announces with this message that a panic ends the process, although the
/// program is built to unwind: it cannot unwind there. (If std changes the words, the parent learns
/// only the signal.)
fn is_fatal(message: &str) -> bool {
    ["panic in a function that cannot unwind", "panic in a destructor during cleanup"]
        .contains(&message)
}

fn message_of(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic whose payload is not a string".to_owned())
}

/// Returns what is known about a panic that was caught. The hook knows more than the payload,
/// unless the function has installed another hook.
pub(crate) fn panic_of(payload: &(dyn Any + Send)) -> Panic {
    let message = message_of(payload);
    match LAST_PANIC.take() {
        Some((last, location, backtrace)) if last == message => {
            Panic::new(message, location, &backtrace)
        }
        _ => Panic { message, location: "an unknown location".to_owned(), backtrace: None },
    }
}

/// Returns the outcome of arguments that could not be decoded. If a `Deserialize` panicked and the
/// panic was caught further down, the outcome is that panic.
pub(crate) fn not_received<A>(reason: &str) -> Outcome {
    match LAST_PANIC.take() {
        Some((message, location, backtrace)) if reason.ends_with(&message) => {
            Outcome::Panicked(Panic::new(message, location, &backtrace))
        }
        _ => Outcome::arguments_lost::<A>(reason),
    }
}
