//! The texts of all errors and panics of this crate. Other tests assert variants and predicates.

use std::fmt::{Debug, Display};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use multiproc::pipe::duplex;
use multiproc_sync::{
    Barrier, BoundedSemaphore, Condition, Lock, LockTimeoutError, Mutex, RwLock, Semaphore, Shared,
    TryLockError,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

multiproc::enable_in_tests!();

const NOW: Duration = Duration::ZERO;

/// Asserts the text of an error. Its `Debug` has the same.
fn assert_text(error: impl Display + Debug, text: &str) {
    assert_eq!(error.to_string(), text);
    assert_eq!(format!("{error:?}"), text);
}

/// Returns the text of the panic of `f`.
fn panic_text<R: Debug>(f: impl FnOnce() -> R) -> String {
    let panic = catch_unwind(AssertUnwindSafe(f)).unwrap_err();
    match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => (*panic.downcast::<&str>().unwrap()).to_owned(),
    }
}

/// Returns the text of the error of receiving `sent` as a `T`, within that of the connection.
fn receive_as<T: DeserializeOwned + Debug>(sent: impl Serialize + DeserializeOwned) -> String {
    let (left, right) = duplex::<_, ()>().unwrap();
    left.send(sent).unwrap_or_else(|error| panic!("{error}"));
    right.retype::<(), T>().recv().unwrap_err().to_string()
}

#[test]
fn texts_of_lock_errors() {
    const ABANDONED: &str = "a holder of the lock died while it held it; repair what the lock \
                             protects, then call `into_guard`";
    let lock = Lock::new().unwrap();
    let guard = lock.lock().unwrap();
    let error = lock.try_lock().unwrap_err();
    assert!(matches!(error, TryLockError::WouldBlock));
    assert_text(error, "the lock is held");
    let error = lock.lock_timeout(NOW).unwrap_err();
    assert!(matches!(error, LockTimeoutError::Timeout));
    assert_text(error, "timed out waiting for the lock");
    drop(guard);

    panic_text(|| -> () {
        let _guard = lock.lock().unwrap();
        panic!("under the lock");
    });
    assert_text(lock.lock().unwrap_err(), ABANDONED);
    assert_text(lock.try_lock().unwrap_err(), ABANDONED);
    assert_text(lock.lock_timeout(NOW).unwrap_err(), ABANDONED);
    assert_text(lock.lock().unwrap_err().into_error(), ABANDONED);
}

#[test]
fn texts_of_semaphore_errors() {
    let semaphore = Semaphore::new(0).unwrap();
    assert_text(semaphore.try_acquire().unwrap_err(), "no permit of the semaphore is available");
    assert_text(
        semaphore.acquire_timeout(NOW).unwrap_err(),
        "timed out waiting for a permit of the semaphore",
    );
    assert_text(
        semaphore.release(u32::MAX).unwrap_err(),
        "the value of a semaphore cannot exceed 2147483647; is it released more often than \
         acquired?",
    );
    assert_eq!(
        Semaphore::new(u32::MAX).unwrap_err().to_string(),
        "the value of a semaphore is at most 2147483647, not 4294967295"
    );
    assert_eq!(
        BoundedSemaphore::new(0).unwrap_err().to_string(),
        "a bounded semaphore has between 1 and 65536 permits, not 0"
    );
}

#[test]
fn texts_of_barrier_errors() {
    let barrier = Barrier::new(2).unwrap();
    assert_text(
        barrier.wait_timeout(NOW).unwrap_err(),
        "the barrier is broken: a party died, timed out or called `abort`; call `reset` to use it \
         again",
    );
    assert_eq!(
        Barrier::new(0).unwrap_err().to_string(),
        "a barrier has between 1 and 65535 parties, not 0"
    );
}

#[test]
fn texts_of_errors_of_received_values() {
    let text = receive_as::<Mutex<[u8; 24]>>(Mutex::new(0u64).unwrap());
    let expected = "expected a multiproc mutex of a value of 24 bytes, got one of 8 bytes";
    assert!(text.contains(expected), "{text}");
    let mutex = Mutex::new(7u8).unwrap();
    let text = receive_as::<Mutex<bool>>(mutex);
    let expected = "expected a multiproc mutex of a bool, got one with bytes that are no value of \
                    it: another process has overwritten them";
    assert!(text.contains(expected), "{text}");
    let text = receive_as::<RwLock<[u8; 24]>>(RwLock::new(0u64).unwrap());
    let expected =
        "expected a multiproc read-write lock of a value of 24 bytes, got one of 8 bytes";
    assert!(text.contains(expected), "{text}");
    let text = receive_as::<Shared<[u8; 16]>>(Shared::new(&[1u64, 2, 3]).unwrap());
    let expected = "expected a multiproc shared table of values of 16 bytes each, got one of 24 \
                    bytes in total";
    assert!(text.contains(expected), "{text}");
}

#[test]
fn texts_of_panics() {
    let table = Shared::new(&[1u32, 2, 3]).unwrap();
    assert_eq!(
        panic_text(|| table.get(3)),
        "1 values from index 3 are out of bounds of a table of 3"
    );
    assert_eq!(panic_text(|| Shared::new(&[(); 3])), "values of size 0 cannot be shared");

    let [one, other] = [0; 2].map(|_| Condition::new().unwrap());
    let guard = other.lock().unwrap();
    assert_eq!(
        panic_text(|| one.wait(guard).map(drop)),
        "the guard passed to a condition must be that of its own `lock`, not of another condition; \
         to use several conditions with one lock, pass the guard of a `Lock` or a `Mutex`"
    );
}
