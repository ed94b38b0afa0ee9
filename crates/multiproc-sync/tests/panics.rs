//! A panic under a guard counts as the death of its holder.

use std::panic::{AssertUnwindSafe, catch_unwind};

use multiproc_sync::{BoundedSemaphore, Condition, Lock, Mutex, RLock};

multiproc::enable_in_tests!();

fn panics(act: impl FnOnce()) {
    catch_unwind(AssertUnwindSafe(act)).expect_err("it panics");
}

#[test]
fn half_changed_value_is_not_written_back() {
    let pair = Mutex::new([0u32, 0]).unwrap();
    *pair.lock().unwrap() = [1, 1];
    panics(|| {
        let mut guard = pair.lock().unwrap();
        guard[0] = 2;
        panic!("between two changes");
    });
    let abandoned = pair.lock().expect_err("its holder panicked");
    assert_eq!(**abandoned.guard(), [1, 1]);
    // The value was not repaired, so the next holder gets `Abandoned` as well.
    drop(abandoned);
    let mut guard = pair.lock().expect_err("it was not repaired").into_guard();
    *guard = [3, 3];
    drop(guard);
    assert_eq!(*pair.lock().unwrap(), [3, 3]);
}

#[test]
fn panic_under_any_lock_yields_abandoned() {
    let (lock, rlock, condition) =
        (Lock::new().unwrap(), RLock::new().unwrap(), Condition::new().unwrap());
    panics(|| {
        let _guard = lock.lock().unwrap();
        panic!("under a lock");
    });
    panics(|| {
        let _outer = rlock.lock().unwrap();
        let _inner = rlock.lock().unwrap();
        panic!("under a lock, two deep");
    });
    panics(|| {
        let _guard = condition.lock().unwrap();
        panic!("under the lock of a condition");
    });
    drop(lock.try_lock().unwrap_err());
    drop(lock.lock().expect_err("its holder panicked").into_guard());
    drop(rlock.lock().expect_err("its holder panicked").into_guard());
    drop(condition.lock().expect_err("its holder panicked").into_guard());
    drop((lock.lock().unwrap(), rlock.lock().unwrap(), condition.lock().unwrap()));
}

#[test]
fn caught_inner_panic_leaves_an_rlock_abandoned() {
    let rlock = RLock::new().unwrap();
    let outer = rlock.lock().unwrap();
    panics(|| {
        let _inner = rlock.lock().unwrap();
        panic!("in the inner one");
    });
    drop(outer);
    drop(rlock.lock().expect_err("what the inner one did may be half done").into_guard());
    drop(rlock.lock().unwrap());
}

/// No panic begins under a guard that is taken and dropped while another panic unwinds.
#[test]
fn guard_used_while_unwinding_is_clean() {
    struct OnUnwind<'a>(&'a Mutex<u32>);
    impl Drop for OnUnwind<'_> {
        fn drop(&mut self) {
            *self.0.lock().unwrap() += 1;
        }
    }
    let count = Mutex::new(0u32).unwrap();
    panics(|| {
        let _counts = OnUnwind(&count);
        panic!("outside of the lock");
    });
    assert_eq!(*count.lock().unwrap(), 1);
}

#[test]
fn permit_is_free_after_a_panic() {
    let permits = BoundedSemaphore::new(1).unwrap();
    panics(|| {
        let _permit = permits.acquire();
        panic!("with a permit");
    });
    drop(permits.try_acquire().unwrap());
}
