use std::time::{Duration, Instant};

use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;
use multiproc_shm::Deadline;
use multiproc_shm::failpoint::die_at;
use multiproc_shm::members::{MemberId, Members};
use multiproc_shm::primitives::{Bytes, explore};

use super::{Member, member};
use crate::raw::Busy;
use crate::raw::lock::Acquired;
use crate::raw::rwlock::RwLock;

/// A lock, and a plain number that readers read and writers change: loom reports any data race.
struct Guarded {
    lock: RwLock,
    number: Bytes<'static>,
}

impl Guarded {
    fn new() -> Arc<Self> {
        Arc::new(Self { lock: RwLock::default(), number: Bytes::zeroed(8) })
    }

    fn number(&self) -> u64 {
        u64::from_le_bytes(self.number.copy_out(0))
    }

    fn enter(&self, members: &impl Members) -> Acquired {
        self.lock.read(members, Deadline::NEVER, Duration::MAX).unwrap()
    }

    fn read(&self, members: &impl Members) -> (Acquired, u64) {
        let acquired = self.enter(members);
        let number = self.number();
        self.lock.read_unlock(members.me());
        (acquired, number)
    }

    fn write(&self, members: &impl Members) -> Acquired {
        let acquired = self.lock.write(members, Deadline::NEVER, Duration::MAX).unwrap();
        self.add_one_and_unlock(members.me());
        acquired
    }

    fn try_write(&self, members: &impl Members) -> bool {
        let is_taken = self.lock.try_write(members).is_ok();
        if is_taken {
            self.add_one_and_unlock(members.me());
        }
        is_taken
    }

    fn add_one_and_unlock(&self, me: MemberId) {
        self.number.copy_in(0, &(self.number() + 1).to_le_bytes());
        self.lock.write_unlock(me, Acquired::Clean);
    }

    /// Lets time pass until the flag is set.
    fn tick_until(&self, done: &AtomicBool) {
        while !done.load(Ordering::Relaxed) {
            self.lock.drained().futex().time_out();
            self.lock.queue().futex().time_out();
            thread::yield_now();
        }
    }
}

/// A reader and a writer, each twice: they exclude each other, and no wake-up is lost.
#[test]
fn loom_rwlock_reader_and_writer_exclude_each_other() {
    explore(|| {
        let guarded = Guarded::new();
        let reader = {
            let guarded = guarded.clone();
            thread::spawn(move || {
                let before = guarded.read(&member(1)).1;
                let after = guarded.read(&member(1)).1;
                assert!(before <= after);
            })
        };
        guarded.write(&member(0));
        guarded.write(&member(0));
        reader.join().unwrap();
        assert_eq!(guarded.read(&member(0)), (Acquired::Clean, 2));
        assert_eq!(guarded.lock.readers(), 0);
    });
}

/// A writer leaves, and two readers that may sleep in the queue both enter.
#[test]
fn loom_rwlock_writer_lets_two_readers_in() {
    explore(|| {
        let guarded = Guarded::new();
        guarded.lock.write(&member(0), Deadline::NEVER, Duration::MAX).unwrap();
        let readers = [1, 2].map(|n| {
            let guarded = guarded.clone();
            thread::spawn(move || guarded.enter(&member(n)))
        });
        guarded.add_one_and_unlock(member(0).me());
        for reader in readers {
            assert_eq!(reader.join().unwrap(), Acquired::Clean);
        }
        assert_eq!((guarded.lock.readers(), guarded.number()), (2, 1));
    });
}

/// A reader leaves, and two writers that may sleep write one after the other.
#[test]
fn loom_rwlock_reader_lets_two_writers_in() {
    explore(|| {
        let guarded = Guarded::new();
        guarded.enter(&member(0));
        let writers = [1, 2].map(|n| {
            let guarded = guarded.clone();
            thread::spawn(move || guarded.write(&member(n)))
        });
        assert_eq!(guarded.number(), 0);
        guarded.lock.read_unlock(member(0).me());
        writers.into_iter().for_each(|writer| assert_eq!(writer.join().unwrap(), Acquired::Clean));
        assert_eq!(guarded.number(), 2);
    });
}

/// Two threads of one process read under one word.
#[test]
fn loom_rwlock_two_readers_of_one_member() {
    explore(|| {
        let guarded = Guarded::new();
        let reader = {
            let guarded = guarded.clone();
            thread::spawn(move || guarded.read(&member(1)))
        };
        guarded.read(&member(1));
        reader.join().unwrap();
        assert_eq!(guarded.lock.readers(), 0);
        assert!(guarded.try_write(&member(0)));
    });
}

/// Attempts that do not wait never overlap with a writer or a reader, and leave the lock open.
#[test]
fn loom_rwlock_attempts() {
    explore(|| {
        let guarded = Guarded::new();
        let writer = {
            let guarded = guarded.clone();
            thread::spawn(move || guarded.try_write(&member(1)))
        };
        if guarded.lock.try_read(&member(0)).is_ok() {
            let _ = guarded.number();
            guarded.lock.read_unlock(member(0).me());
        }
        let written = u64::from(writer.join().unwrap());
        assert_eq!(guarded.read(&member(0)), (Acquired::Clean, written));
        assert!(guarded.try_write(&member(0)));
    });
}

/// A writer times out while a reader has the lock: a reader that waited for it enters, although the
/// first one stays.
#[test]
fn loom_rwlock_writer_that_times_out_lets_readers_in() {
    let past = Deadline::at(Instant::now());
    explore(move || {
        let guarded = Guarded::new();
        guarded.enter(&member(0));
        let writer = {
            let guarded = guarded.clone();
            thread::spawn(move || guarded.lock.write(&member(1), past, Duration::MAX))
        };
        assert_eq!(guarded.enter(&member(2)), Acquired::Clean);
        assert_eq!(writer.join().unwrap(), Err(Busy));
        assert_eq!(guarded.lock.readers(), 2);
    });
}

/// A reader is dead from the start: a writer removes it, and a living reader stays counted.
#[test]
fn loom_rwlock_dead_reader_is_removed() {
    explore(|| {
        let guarded = Guarded::new();
        let dead = member(3);
        guarded.enter(&dead);
        guarded.enter(&dead);
        let reader = {
            let guarded = guarded.clone();
            thread::spawn(move || guarded.read(&member(1).after_death_of(dead)))
        };
        assert_eq!(guarded.write(&member(0).after_death_of(dead)), Acquired::Clean);
        reader.join().unwrap();
        assert_eq!(guarded.lock.readers(), 0);
    });
}

/// Member 0, to which the others are dead once the flag is set. The flag is the kernel, whose
/// report of a death is ordered after what the dead process wrote.
struct Mortal(Arc<AtomicBool>);

impl Members for Mortal {
    fn me(&self) -> MemberId {
        member(0).me
    }

    fn is_alive(&self, member: MemberId) -> bool {
        member == self.me() || !self.0.load(Ordering::Acquire)
    }
}

/// A member runs `life`, dies at `point` if it reaches it, and a writer and then a reader follow:
/// neither waits indefinitely. Returns how the writer acquired the lock, if the member died.
fn survive(point: &'static str, life: fn(&Guarded, Member), check: fn(Acquired)) {
    explore(move || {
        let guarded = Guarded::new();
        let died = Arc::new(AtomicBool::new(false));
        let done = Arc::new(AtomicBool::new(false));
        let survivor = {
            let (guarded, died, done) = (guarded.clone(), died.clone(), done.clone());
            thread::spawn(move || {
                let me = Mortal(died);
                let acquired = guarded.write(&me);
                let after = guarded.read(&me);
                done.store(true, Ordering::Relaxed);
                (acquired, after.0)
            })
        };
        let has_died = die_at(point, || life(&guarded, member(1)));
        died.store(has_died, Ordering::Release);
        guarded.tick_until(&done);
        let (acquired, after) = survivor.join().unwrap();
        check(acquired);
        // It was repaired, unless the member died after the survivor had written.
        if acquired == Acquired::OwnerDied {
            assert_eq!(after, Acquired::Clean);
        }
    });
}

fn read_once(guarded: &Guarded, member: Member) {
    guarded.read(&member);
}

fn write_once(guarded: &Guarded, member: Member) {
    guarded.write(&member);
}

fn is_clean(acquired: Acquired) {
    assert_eq!(acquired, Acquired::Clean);
}

/// A reader that dies has no effect, wherever it dies.
#[test]
fn loom_rwlock_reader_dies_after_counting() {
    survive("rwlock.counted", read_once, is_clean);
}

#[test]
fn loom_rwlock_reader_dies_with_the_queue() {
    survive("rwlock.passed", read_once, is_clean);
}

#[test]
fn loom_rwlock_reader_dies_before_it_wakes_the_writer() {
    survive("rwlock.left", read_once, is_clean);
}

/// A writer that dies while it waits has changed nothing.
#[test]
fn loom_rwlock_writer_dies_while_it_waits() {
    survive("rwlock.closed", write_once, is_clean);
}

/// A writer that dies inside is reported at most once, after which the lock is normal.
#[test]
fn loom_rwlock_writer_dies_inside() {
    survive("rwlock.writing", write_once, |_| ());
}

#[test]
fn loom_rwlock_writer_dies_after_it_has_opened() {
    survive("rwlock.opened", write_once, is_clean);
}

/// The writer died inside: the reader is told, the writer is told, and after the writer has
/// repaired the value nobody is.
#[test]
fn loom_rwlock_dead_writer_is_reported_until_repaired() {
    explore(|| {
        let guarded = Guarded::new();
        let dead = member(3);
        assert!(die_at("rwlock.writing", || _ = guarded.write(&dead)));
        let reader = {
            let guarded = guarded.clone();
            thread::spawn(move || guarded.read(&member(1).after_death_of(dead)))
        };
        assert_eq!(guarded.write(&member(0).after_death_of(dead)), Acquired::OwnerDied);
        let (acquired, number) = reader.join().unwrap();
        assert_eq!(acquired == Acquired::OwnerDied, number == 0);
        assert_eq!(guarded.read(&member(0)).0, Acquired::Clean);
    });
}

/// Without a repair, all later ones are told.
#[test]
fn loom_rwlock_unrepaired_stays_abandoned() {
    explore(|| {
        let guarded = Guarded::new();
        let dead = member(3);
        assert!(die_at("rwlock.writing", || _ = guarded.write(&dead)));
        let me = member(0).after_death_of(dead);
        assert_eq!(guarded.read(&me).0, Acquired::OwnerDied);
        let taken = guarded.lock.write(&me, Deadline::NEVER, Duration::MAX).unwrap();
        assert_eq!(taken, Acquired::OwnerDied);
        guarded.lock.write_unlock(me.me, taken);
        assert_eq!(guarded.read(&me).0, Acquired::OwnerDied);
        assert_eq!(guarded.write(&me), Acquired::OwnerDied);
        assert_eq!(guarded.read(&me).0, Acquired::Clean);
    });
}

/// The slot of a dead reader gets a new user, while a writer waits that takes it for alive.
#[test]
fn loom_rwlock_released_slot_wakes_a_writer() {
    explore(|| {
        let guarded = Guarded::new();
        guarded.enter(&member(1));
        let writer = {
            let guarded = guarded.clone();
            thread::spawn(move || guarded.write(&member(0)))
        };
        guarded.lock.release_slot(1);
        let successor = Member { me: MemberId::new(1, 2), dead: None };
        guarded.read(&successor);
        assert_eq!(writer.join().unwrap(), Acquired::Clean);
        assert_eq!(guarded.lock.readers(), 0);
    });
}

/// The slot of a writer that died while it waited gets a new user: readers enter, and are told of
/// no death.
#[test]
fn loom_rwlock_released_slot_lets_readers_in() {
    explore(|| {
        let guarded = Guarded::new();
        assert!(die_at("rwlock.closed", || _ = guarded.write(&member(1))));
        let reader = {
            let guarded = guarded.clone();
            thread::spawn(move || guarded.read(&member(0)).0)
        };
        guarded.lock.release_slot(1);
        assert_eq!(guarded.write(&member(2)), Acquired::Clean);
        assert_eq!(reader.join().unwrap(), Acquired::Clean);
    });
}

/// A guard whose ownership has ended (a copy in a forked child) has no effect.
#[test]
fn loom_rwlock_unlock_by_another_member_does_nothing() {
    explore(|| {
        let guarded = Guarded::new();
        guarded.enter(&member(0));
        guarded.lock.read_unlock(member(1).me());
        assert_eq!(guarded.lock.readers(), 1);
        guarded.lock.read_unlock(member(0).me());
        guarded.lock.write(&member(0), Deadline::NEVER, Duration::MAX).unwrap();
        guarded.lock.write_unlock(member(1).me(), Acquired::Clean);
        assert_eq!(guarded.lock.try_read(&member(1)), Err(Busy));
        guarded.lock.write_unlock(member(0).me(), Acquired::Clean);
    });
}
