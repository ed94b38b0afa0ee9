//! loom's models of the primitives.
//!
//! Contains `unsafe` for loom's cells, which return raw pointers and check every access.
#![allow(unsafe_code)]
#![allow(clippy::missing_panics_doc)] // a model panics where loom finds a fault

use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::Arc;

use crate::Deadline;
use loom::cell::UnsafeCell;
use loom::sync::{Condvar, Mutex};

pub use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

pub use crossbeam_utils::CachePadded;

/// A model of the kernel's futex: comparing and falling asleep are one step with respect to a wake.
///
/// Time does not pass in a model. A wait ends by a wake or by [`Futex::time_out`], which a test
/// calls from a thread of its own so that the recheck interval can end at any point. A test without
/// it therefore shows that no wake-up is lost.
#[derive(Debug)]
pub struct Futex {
    word: AtomicU32,
    sleepers: Mutex<Sleepers>,
    condvar: Condvar,
}

#[derive(Debug, Default)]
struct Sleepers {
    /// Asleep and not yet selected by a wake.
    asleep: u32,
    /// Selected by a wake and not yet running.
    woken: u32,
    /// The number of timeouts.
    timeouts: u32,
}

impl Futex {
    /// Creates a futex that holds `value`.
    #[must_use]
    pub fn new(value: u32) -> Self {
        Self { word: AtomicU32::new(value), sleepers: Mutex::default(), condvar: Condvar::new() }
    }

    /// As the real one. The deadline has no effect.
    pub fn wait(&self, expected: u32, _: Deadline) -> bool {
        let mut sleepers = self.sleepers.lock().unwrap();
        if self.word.load(Ordering::Relaxed) != expected {
            return true;
        }
        sleepers.asleep += 1;
        let before = sleepers.timeouts;
        loop {
            sleepers = self.condvar.wait(sleepers).unwrap();
            if sleepers.woken > 0 {
                sleepers.woken -= 1;
                return true;
            }
            if sleepers.timeouts != before {
                sleepers.asleep -= 1;
                return false;
            }
        }
    }

    /// As the real one.
    pub fn wake(&self, count: u32) {
        let mut sleepers = self.sleepers.lock().unwrap();
        let count = count.min(sleepers.asleep);
        sleepers.asleep -= count;
        sleepers.woken += count;
        (0..count).for_each(|_| self.condvar.notify_one());
    }

    /// Times out all sleepers.
    pub fn time_out(&self) {
        let mut sleepers = self.sleepers.lock().unwrap();
        sleepers.timeouts += 1;
        self.condvar.notify_all();
    }
}

impl Deref for Futex {
    type Target = AtomicU32;

    fn deref(&self) -> &AtomicU32 {
        &self.word
    }
}

/// Does not spin: a model explores the sleeping paths.
#[derive(Debug, Default)]
pub struct Backoff;

impl Backoff {
    /// Creates one.
    #[must_use]
    pub fn new() -> Self {
        Self
    }

    /// Lets another thread run.
    pub fn snooze(&self) {
        loom::thread::yield_now();
    }

    /// Lets another thread run.
    pub fn spin(&self) {
        loom::thread::yield_now();
    }

    /// Always `true`: time to sleep.
    #[must_use]
    pub fn is_completed(&self) -> bool {
        true
    }
}

/// Always `false`: in a model, all threads run.
#[must_use]
pub fn has_one_cpu() -> bool {
    false
}

/// As the real one. Fails if another thread stores meanwhile.
pub fn load_locked(word: &AtomicU64) -> u64 {
    // SAFETY: loom checks it.
    unsafe { word.unsync_load() }
}

/// Time does not pass in a model.
pub fn pause(_: u32) {}

/// As the real one, on every machine.
pub fn fence_after_rmw() {
    fence(Ordering::SeqCst);
}

/// A full fence, which is the effect of a matching pair.
pub(crate) fn asymmetric_fence_light() {
    fence(Ordering::SeqCst);
}

/// As the real one.
pub(crate) fn asymmetric_fence_heavy() -> std::io::Result<()> {
    fence(Ordering::SeqCst);
    Ok(())
}

/// In a model, all do.
#[must_use]
pub fn has_light_fences() -> bool {
    true
}

/// Runs a model in every interleaving within the preemption bound and prints how many there were.
pub fn explore(model: impl Fn() + Send + Sync + 'static) {
    explore_with(loom::model::Builder::new(), model);
}

/// Runs a model that takes more than a minute with one preemption less than the bound.
pub fn explore_long(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.map(|bound| bound.saturating_sub(1));
    explore_with(builder, model);
}

fn explore_with(mut builder: loom::model::Builder, model: impl Fn() + Send + Sync + 'static) {
    let executions = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = Arc::clone(&executions);
    // Setting up takes steps as well.
    builder.max_branches = 10_000;
    let bound = builder.preemption_bound.map_or("none".to_owned(), |bound| bound.to_string());
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        model();
    });
    println!(
        "{}: {} executions, preemption bound {bound}",
        std::thread::current().name().unwrap_or("a model"),
        executions.load(Ordering::Relaxed)
    );
}

const WORD: usize = 8;

/// Bytes that loom checks: a copy out that is not ordered after the copy in fails the test.
///
/// All accesses must be whole words of eight bytes, to keep the model small.
#[derive(Debug, Clone)]
pub struct Bytes<'a> {
    words: Arc<[UnsafeCell<[u8; WORD]>]>,
    region: PhantomData<&'a ()>,
}

impl Bytes<'_> {
    /// Creates `len` bytes of zero.
    #[must_use]
    pub fn zeroed(len: usize) -> Self {
        let words = (0..len / WORD).map(|_| UnsafeCell::new([0; WORD])).collect();
        Self { words, region: PhantomData }
    }

    /// As the real one.
    #[must_use]
    pub fn len(&self) -> usize {
        self.words.len() * WORD
    }

    /// As the real one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// As the real one.
    pub fn copy_in(&self, at: usize, bytes: &[u8]) {
        for (chunk, word) in bytes.chunks(WORD).zip(&self.words[at / WORD..]) {
            let mut whole = [0; WORD];
            whole[..chunk.len()].copy_from_slice(chunk);
            word.with_mut(|word| {
                // SAFETY: loom fails the test if another thread accesses it.
                unsafe { word.write(whole) };
            });
        }
    }

    /// As the real one.
    pub fn copy_in_array<const N: usize>(&self, at: usize, bytes: [u8; N]) {
        self.copy_in(at, &bytes);
    }

    /// As the real one.
    pub fn append_to(&self, at: usize, count: usize, target: &mut Vec<u8>) {
        let end = target.len() + count;
        for word in &self.words[at / WORD..(at + count).div_ceil(WORD)] {
            // SAFETY: loom fails the test if another thread accesses it.
            target.extend_from_slice(&word.with(|word| unsafe { word.read() }));
        }
        target.truncate(end);
    }

    /// As the real one.
    #[must_use]
    pub fn copy_out<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut bytes = Vec::new();
        self.append_to(at, N, &mut bytes);
        bytes.try_into().unwrap()
    }
}

// SAFETY: loom checks every access at run time.
unsafe impl Send for Bytes<'_> {}
// SAFETY: as for Send.
unsafe impl Sync for Bytes<'_> {}
