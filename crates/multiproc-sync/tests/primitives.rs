//! Tests of what all primitives have in common: they are handles, which can be cloned and sent.

use std::fmt::Debug;
use std::mem::forget;
use std::thread;

use multiproc::Process;
use multiproc::pipe::{Connection, duplex};
use multiproc_sync::{
    Atomic, Barrier, BoundedSemaphore, Condition, Event, Lock, Mutex, RLock, RwLock, Semaphore,
    Shared,
};
use multiproc_testkit::{Census, alone, watchdog};
use serde::Serialize;
use serde::de::DeserializeOwned;

multiproc::enable_in_tests!();

/// What the tests need of each primitive.
trait Primitive: Clone + Debug + Serialize + DeserializeOwned + 'static {
    /// Its name in errors.
    const NAME: &'static str;
    /// Its kind in the header of the region.
    const KIND: &'static str;
    /// Parts of its `Debug` text before and after a change.
    const STATES: [&'static str; 2];

    fn make() -> Self;
    /// Makes a change that all handles can observe. It can be called once.
    fn change(&self);
    fn is_changed(&self) -> bool;
}

/// Implements [`Primitive`].
macro_rules! primitive {
    (
        $type:ty, $name:literal $kind:literal, $before:literal => $after:literal,
        make: $make:expr,
        change: $change:expr,
        is_changed: $is_changed:expr,
    ) => {
        impl Primitive for $type {
            const NAME: &'static str = $name;
            const KIND: &'static str = $kind;
            const STATES: [&'static str; 2] = [$before, $after];

            fn make() -> Self {
                $make.unwrap()
            }

            fn change(&self) {
                let change: fn(&Self) = $change;
                change(self);
            }

            fn is_changed(&self) -> bool {
                let is_changed: fn(&Self) -> bool = $is_changed;
                is_changed(self)
            }
        }
    };
}

primitive! {
    Lock, "lock" "LOCK", "holder: None" => "alive: true",
    make: Self::new(),
    change: |lock| forget(lock.lock().unwrap()),
    is_changed: |lock| lock.try_lock().is_err(),
}
primitive! {
    RLock, "re-entrant lock" "RLCK", "depth: 0" => "depth: 1",
    make: Self::new(),
    change: |lock| forget(lock.lock().unwrap()),
    // By another thread, since this one may hold the lock.
    is_changed: |lock| thread::scope(|scope| {
        scope.spawn(|| lock.try_lock().is_err()).join().unwrap()
    }),
}
primitive! {
    Mutex<u64>, "mutex" "MUTX", "holder: None" => "alive: true",
    make: Self::new(5),
    change: |mutex| forget(mutex.lock().unwrap()),
    is_changed: |mutex| mutex.try_lock().is_err(),
}
primitive! {
    RwLock<u64>, "read-write lock" "RWLK", "readers: 0" => "readers: 1",
    make: Self::new(5),
    change: |lock| forget(lock.read().unwrap()),
    is_changed: |lock| lock.try_write().is_err(),
}
primitive! {
    Shared<u64>, "shared table" "DATA", "len: 3" => "len: 3",
    make: Self::new(&[1, 2, 3]),
    change: |table| table.set(2, 4),
    is_changed: |table| table.to_vec() == [1, 2, 4],
}
primitive! {
    Atomic, "atomic number" "ATOM", "Atomic(7)" => "Atomic(8)",
    make: Self::new(7),
    change: |number| number.store(8),
    is_changed: |number| number.load() == 8,
}
primitive! {
    Semaphore, "semaphore" "SEMA", "value: 1" => "value: 0",
    make: Self::new(1),
    change: |semaphore| semaphore.acquire(),
    is_changed: |semaphore| semaphore.value() == 0,
}
primitive! {
    BoundedSemaphore, "bounded semaphore" "PERM", "available: 2" => "available: 1",
    make: Self::new(2),
    change: |semaphore| forget(semaphore.acquire()),
    is_changed: |semaphore| semaphore.available() == 1,
}
primitive! {
    Event, "event" "EVNT", "set: false" => "set: true",
    make: Self::new(),
    change: |event| event.set(),
    is_changed: |event| event.is_set(),
}
primitive! {
    Condition, "condition" "COND", "holder: None" => "alive: true",
    make: Self::new(),
    change: |condition| forget(condition.lock().unwrap()),
    is_changed: |condition| condition.try_lock().is_err(),
}
primitive! {
    Barrier, "barrier" "BARR", "broken: false" => "broken: true",
    make: Self::new(2),
    change: |barrier| barrier.abort(),
    is_changed: |barrier| barrier.is_broken(),
}

/// Calls a macro with all primitives.
macro_rules! with_all {
    ($macro:ident) => {
        $macro! {
            lock: Lock, rlock: RLock, mutex: Mutex<u64>, rwlock: RwLock<u64>,
            shared: Shared<u64>, atomic: Atomic, semaphore: Semaphore,
            bounded_semaphore: BoundedSemaphore, event: Event, condition: Condition,
            barrier: Barrier
        }
    };
}

/// Defines the tests of each primitive.
macro_rules! tests {
    ($($module:ident: $type:ty),*) => {$(
        mod $module {
            use super::*;

            #[test]
            fn clone_is_the_same() {
                clone::<$type>();
            }

            #[test]
            fn received_in_the_same_process_is_the_same() {
                alone(|()| travel::<$type>());
            }

            #[test]
            fn received_in_another_process_is_the_same() {
                share::<$type>();
            }

            #[test]
            fn debug_shows_the_state() {
                debug::<$type>();
            }

            #[test]
            fn another_kind_is_refused() {
                mistake::<$type>();
            }

            #[test]
            fn dropped_handles_leave_nothing_behind() {
                alone(|()| use_up::<$type>());
            }
        }
    )*};
}

with_all!(tests);

fn clone<T: Primitive>() {
    let one = T::make();
    let same = one.clone();
    assert!(!one.is_changed() && !same.is_changed());
    same.change();
    assert!(one.is_changed() && same.is_changed());
    drop(one);
    assert!(same.is_changed(), "it lives as long as any of them");
    assert!(!T::make().is_changed(), "another one is another one");
}

fn travel<T: Primitive>() {
    let one = T::make();
    let before = Census::take();
    let (left, right) = duplex::<T, ()>().unwrap();
    left.send(one.clone()).unwrap();
    left.send(one.clone()).unwrap();
    let same = [right.recv().unwrap(), right.recv().unwrap()];
    drop((left, right));
    assert_eq!(Census::take(), before, "it is mapped once");
    assert!(!same[0].is_changed());
    one.change();
    drop(one);
    assert!(same[0].is_changed() && same[1].is_changed());
}

fn share<T: Primitive>() {
    let _dog = watchdog();
    let one = T::make();
    let (ours, theirs) = duplex::<(), bool>().unwrap();
    let change = |(one, parent): (T, Connection<bool, ()>)| {
        let before = one.is_changed();
        one.change();
        parent.send(!before && one.is_changed()).unwrap();
        let _ = parent.recv();
    };
    let child = Process::spawn(change, (one.clone(), theirs)).unwrap();
    assert!(ours.recv().unwrap());
    assert!(one.is_changed());
    drop(ours);
    child.join().unwrap();
}

fn debug<T: Primitive>() {
    let one = T::make();
    let before = format!("{one:?}");
    one.change();
    let after = format!("{one:?}");
    for (debug, state) in [before, after].iter().zip(T::STATES) {
        assert!(debug.contains(state), "{debug}");
    }
}

fn mistake<Sent: Primitive>() {
    fn receive<Sent: Primitive, Expected: Primitive>() {
        let (left, right) = duplex::<Sent, ()>().unwrap();
        left.send(Sent::make()).unwrap();
        let received = right.retype::<(), Expected>().recv();
        if Sent::KIND == Expected::KIND {
            received.unwrap();
            return;
        }
        let text = received.unwrap_err().to_string();
        let (expected, got) = (Expected::NAME, Sent::KIND);
        let words = format!("expected a multiproc {expected}, got one of another kind ({got})");
        assert!(text.contains(&words), "{text}");
    }
    macro_rules! receive_as_each {
        ($($module:ident: $type:ty),*) => {
            $(receive::<Sent, $type>();)*
        };
    }
    with_all!(receive_as_each);
}

fn use_up<T: Primitive>() {
    let before = Census::take();
    for _ in 0..500 {
        let one = T::make();
        let (left, right) = duplex::<T, ()>().unwrap();
        left.send(one.clone()).unwrap();
        left.send(one.clone()).unwrap(); // never received
        let same = right.recv().unwrap();
        same.change();
        assert!(one.is_changed());
    }
    assert_eq!(Census::take(), before);
    for _ in 0..5 {
        let one = T::make();
        Process::spawn(|one: T| one.change(), one.clone()).unwrap().join().unwrap();
        Process::spawn(|one: T| drop(one), one).unwrap().join().unwrap();
    }
    assert_eq!(Census::take(), before, "nor after other processes had it");
}
