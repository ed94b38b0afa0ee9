use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use multiproc_shm::Deadline;

use super::*;
use crate::engine::frame::Header;
use crate::engine::get::{Incoming, Sink};
use crate::engine::put::{Items, Outgoing, Put};
use crate::memory::Store;

/// Creates a queue in shared memory, with room for some items in the hot ring and for more in the
/// overflow ring.
fn store() -> Store {
    Store::create("", None, 1 << 20, None).unwrap()
}

fn ring<'a>(store: &'a Store, pace: &'a Pace) -> Ring<'a, Store> {
    let (puts, gets) = (pace, pace);
    let (control, limits, hot) = (store.region.control(), store.limits, store.hot());
    Ring { control, limits, hot, puts, gets, members: store }
}

fn soon() -> Deadline {
    Deadline::after(Duration::from_millis(100))
}

fn put(ring: &Ring<'_, Store>, item: &[u8]) {
    let items = Items { bytes: item, start: 0, ends: &[item.len()] };
    assert_eq!(ring.try_put(items, None, soon), Ok((1, Put::Done)));
}

/// A sink that takes `left` items and refuses the next one, or panics.
struct Few {
    bytes: Vec<u8>,
    left: usize,
    panics: bool,
}

impl Few {
    fn new(left: usize) -> Self {
        Self { bytes: Vec::new(), left, panics: false }
    }
}

impl Sink for Few {
    fn takes_more(&self) -> bool {
        true
    }

    fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    fn finish_item(&mut self, _: &Header) -> Result<(), EngineError> {
        assert!(!self.panics, "asked to");
        self.left = self.left.checked_sub(1).ok_or(EngineError::TooManyTasks)?;
        Ok(())
    }
}

/// Counts the operations on the packet of an item.
#[derive(Debug, Default, PartialEq, Eq)]
struct Lane {
    copied: u32,
    forgotten: u32,
    removed: u32,
}

impl Incoming for Lane {
    fn copy(&mut self, _: u32) -> Result<(), EngineError> {
        self.copied += 1;
        Ok(())
    }

    fn forget(&mut self) {
        self.forgotten += 1;
    }

    fn remove(&mut self) {
        self.removed += 1;
    }
}

/// Descriptors that are sent, or panic.
struct OutgoingFds {
    panics: bool,
}

impl Outgoing for OutgoingFds {
    fn send(&mut self, _: u32) -> Result<Put, EngineError> {
        assert!(!self.panics, "asked to");
        Ok(Put::Done)
    }
}

/// In both rings: 300,000 bytes do not fit into the hot ring.
const LENGTHS: [usize; 2] = [5, 300_000];

#[test]
fn item_that_the_sink_refuses_stays_in_the_queue() {
    for length in LENGTHS {
        let (store, pace) = (store(), Pace::default());
        let ring = ring(&store, &pace);
        let items = [1, 2, 3].map(|n| vec![n; length]);
        items.iter().for_each(|item| put(&ring, item));

        let mut sink = Few::new(0);
        let mut lane = Lane::default();
        let refused = ring.try_get(&mut sink, &mut lane, soon);
        assert_eq!((refused, ring.len()), (Err(EngineError::TooManyTasks), 3));
        assert!(sink.bytes.is_empty());

        // The items that it took before are got.
        let mut sink = Few::new(2);
        assert_eq!(ring.try_get(&mut sink, &mut lane, soon), Ok(2));
        assert_eq!(ring.len(), 1);
        assert!(sink.bytes == items[..2].concat());
        let mut sink = Few::new(1);
        assert_eq!(ring.try_get(&mut sink, &mut lane, soon), Ok(1));
        assert!(sink.bytes == items[2]);
        assert_eq!(ring.len(), 0);
    }
}

#[test]
fn packet_of_a_refused_item_stays_in_the_lane() {
    let (store, pace) = (store(), Pace::default());
    let ring = ring(&store, &pace);
    let items = Items { bytes: &[1], start: 0, ends: &[1] };
    let fds = &mut OutgoingFds { panics: false };
    assert_eq!(ring.try_put(items, Some(fds), soon), Ok((1, Put::Done)));
    let mut lane = Lane::default();
    assert!(ring.try_get(&mut Few::new(0), &mut lane, soon).is_err());
    assert_eq!(lane, Lane { copied: 1, forgotten: 1, removed: 0 });
    assert_eq!(ring.try_get(&mut Few::new(1), &mut lane, soon), Ok(1));
    assert_eq!(lane, Lane { copied: 2, forgotten: 1, removed: 1 });
}

#[test]
fn panic_under_a_lock_releases_it() {
    let (store, pace) = (store(), Pace::default());
    let ring = ring(&store, &pace);
    put(&ring, &[1]);
    let panics = |act: &mut dyn FnMut()| {
        assert!(catch_unwind(AssertUnwindSafe(act)).is_err());
        assert_eq!(ring.control.producers.lock.owner(), None);
        assert_eq!(ring.control.consumers.lock.owner(), None);
    };
    panics(&mut || {
        let items = Items { bytes: &[2], start: 0, ends: &[1] };
        let _ = ring.try_put(items, Some(&mut OutgoingFds { panics: true }), soon);
    });
    panics(&mut || {
        let mut sink = Few { panics: true, ..Few::new(1) };
        let _ = ring.try_get(&mut sink, &mut Lane::default(), soon);
    });
    panics(&mut || ring.as_consumer(|| panic!("asked to")));
    // No item was put or taken, and both sides go on.
    assert_eq!(ring.len(), 1);
    put(&ring, &[2]);
    let mut sink = Few::new(2);
    while sink.left > 0 {
        ring.try_get(&mut sink, &mut Lane::default(), soon).unwrap();
    }
    assert_eq!(sink.bytes, [1, 2]);
    panics(&mut || _ = ring.while_empty(|| panic!("asked to")));
    put(&ring, &[3]);
}
