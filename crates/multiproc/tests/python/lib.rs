//! A library in the style of C, which a Python program loads with ctypes: a lock and a queue, and
//! what the calling thread holds of them.

// The program that loads it finds the functions by their names.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::ffi::c_int;
use std::io;
use std::sync::OnceLock;
use std::time::Duration;

use multiproc::queue::{JoinableQueue, Queue, Task};
use multiproc::sync::{
    BoundedSemaphore, Lock, LockGuard, LockTimeoutError, Permit, RLock, RLockGuard,
};

/// What a function returns that takes something.
const TAKEN: c_int = 0;
const BUSY: c_int = 1;
const ABANDONED: c_int = 2;

/// What the others return.
const DONE: c_int = 0;
const FAILED: c_int = -1;

/// What a function returns that returns an item, if there is none.
const NOTHING: i64 = -1;

struct Handles {
    lock: Lock,
    rlock: RLock,
    permits: BoundedSemaphore,
    queue: Queue<u32>,
    tasks: JoinableQueue<u32>,
}

impl Handles {
    fn new() -> io::Result<Self> {
        Ok(Self {
            lock: Lock::new()?,
            rlock: RLock::new()?,
            permits: BoundedSemaphore::new(1)?,
            queue: Queue::bounded(1000)?,
            tasks: JoinableQueue::bounded(1000)?,
        })
    }
}

static HANDLES: OnceLock<Handles> = OnceLock::new();

fn handles() -> &'static Handles {
    HANDLES.get().expect("`mp_open` is called first")
}

#[derive(Default)]
struct Held {
    lock: Option<LockGuard<'static>>,
    rlock: Option<RLockGuard<'static>>,
    permit: Option<Permit<'static>>,
    task: Option<Task<u32>>,
}

thread_local! {
    static HELD: RefCell<Held> = RefCell::default();
}

fn millis(count: u32) -> Duration {
    Duration::from_millis(count.into())
}

/// Makes the handles.
// SAFETY: nothing else in the program that loads the library has this name, nor those below.
#[unsafe(no_mangle)]
pub extern "C" fn mp_open() -> c_int {
    let Ok(handles) = Handles::new() else { return FAILED };
    if HANDLES.set(handles).is_ok() { DONE } else { FAILED }
}

fn keep<G>(
    result: Result<G, LockTimeoutError<G>>,
    repair: impl FnOnce(multiproc::sync::Abandoned<G>) -> G,
    place: impl FnOnce(&mut Held) -> &mut Option<G>,
) -> c_int {
    let (guard, code) = match result {
        Ok(guard) => (guard, TAKEN),
        Err(LockTimeoutError::Timeout) => return BUSY,
        Err(LockTimeoutError::Abandoned(abandoned)) => (repair(abandoned), ABANDONED),
    };
    HELD.with_borrow_mut(|held| *place(held) = Some(guard));
    code
}

/// Takes the lock.
// SAFETY: see `mp_open`.
#[unsafe(no_mangle)]
pub extern "C" fn mp_lock(ms: u32) -> c_int {
    let result = handles().lock.lock_timeout(millis(ms));
    keep(result, |abandoned| abandoned.into_guard(), |held| &mut held.lock)
}

/// Drops the guard of the lock.
// SAFETY: see `mp_open`.
#[unsafe(no_mangle)]
pub extern "C" fn mp_unlock() {
    HELD.with_borrow_mut(|held| held.lock = None);
}

/// Takes the lock that its owner can take again.
// SAFETY: see `mp_open`.
#[unsafe(no_mangle)]
pub extern "C" fn mp_rlock(ms: u32) -> c_int {
    let result = handles().rlock.lock_timeout(millis(ms));
    keep(result, |abandoned| abandoned.into_guard(), |held| &mut held.rlock)
}

/// Drops its guard.
// SAFETY: see `mp_open`.
#[unsafe(no_mangle)]
pub extern "C" fn mp_runlock() {
    HELD.with_borrow_mut(|held| held.rlock = None);
}

/// Acquires the only permit.
// SAFETY: see `mp_open`.
#[unsafe(no_mangle)]
pub extern "C" fn mp_acquire(ms: u32) -> c_int {
    match handles().permits.acquire_timeout(millis(ms)) {
        Ok(permit) => {
            HELD.with_borrow_mut(|held| held.permit = Some(permit));
            TAKEN
        }
        Err(_) => BUSY,
    }
}

/// Drops the permit.
// SAFETY: see `mp_open`.
#[unsafe(no_mangle)]
pub extern "C" fn mp_release() {
    HELD.with_borrow_mut(|held| held.permit = None);
}

/// Puts a number into the queue.
// SAFETY: see `mp_open`.
#[unsafe(no_mangle)]
pub extern "C" fn mp_put(number: u32) -> c_int {
    if handles().queue.put(number).is_ok() { DONE } else { FAILED }
}

/// Gets a number from the queue.
// SAFETY: see `mp_open`.
#[unsafe(no_mangle)]
pub extern "C" fn mp_get(ms: u32) -> i64 {
    handles().queue.get_timeout(millis(ms)).map_or(NOTHING, i64::from)
}

/// Puts a task.
// SAFETY: see `mp_open`.
#[unsafe(no_mangle)]
pub extern "C" fn mp_put_task(number: u32) -> c_int {
    if handles().tasks.put(number).is_ok() { DONE } else { FAILED }
}

/// Takes a task, and keeps it.
// SAFETY: see `mp_open`.
#[unsafe(no_mangle)]
pub extern "C" fn mp_take_task(ms: u32) -> i64 {
    let Ok(task) = handles().tasks.get_timeout(millis(ms)) else { return NOTHING };
    let number = i64::from(*task);
    HELD.with_borrow_mut(|held| held.task = Some(task));
    number
}

/// Drops the task that is kept: it goes back.
// SAFETY: see `mp_open`.
#[unsafe(no_mangle)]
pub extern "C" fn mp_drop_task() {
    HELD.with_borrow_mut(|held| held.task = None);
}

/// Completes the task that is kept.
// SAFETY: see `mp_open`.
#[unsafe(no_mangle)]
pub extern "C" fn mp_task_done() -> c_int {
    match HELD.with_borrow_mut(|held| held.task.take()) {
        Some(task) => {
            task.task_done();
            DONE
        }
        None => FAILED,
    }
}

/// Returns the number of tasks that are not completed.
// SAFETY: see `mp_open`.
#[unsafe(no_mangle)]
pub extern "C" fn mp_unfinished() -> i64 {
    i64::try_from(handles().tasks.unfinished()).unwrap_or(NOTHING)
}
