//! A process writes arbitrary data into the queue's memory and into its lane.

mod common;

use std::fs::{self, File};
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use multiproc::pipe::{Bytes, Descriptor, wait};
use multiproc::{JoinError, Process};
use multiproc_queue::{GetError, PutError, Queue, Shutdown, TryGetError};
use multiproc_testkit::{Census, alone, watchdog};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, send, sendmsg};

use common::{CONTROL, HOT, SOON, TABLE, memory, parts, within};

multiproc::enable_in_tests!();

/// The offset of the blocks of a queue of 1 MiB.
const BLOCKS: u64 = TABLE + 4096;
const BLOCK: u64 = 65_536;

type Item = (u32, Bytes, Option<Descriptor>);

fn null() -> Descriptor {
    Descriptor(OwnedFd::from(File::open("/dev/null").unwrap()))
}

#[test]
fn forged_frame_is_reported_as_corrupted() {
    let queue = Queue::bounded(10).unwrap();
    queue.put(1u64).unwrap();
    let memory = memory(&queue);
    let ring = HOT;
    memory.write_all_at(&77u64.to_le_bytes(), ring).unwrap();
    assert!(matches!(queue.get(), Err(GetError::Corrupted(_))));
    memory.write_all_at(&0u64.to_le_bytes(), ring).unwrap();
    memory.write_all_at(&u32::MAX.to_le_bytes(), ring + 8).unwrap();
    assert!(matches!(queue.try_get(), Err(TryGetError::Corrupted(_))));
    memory.write_all_at(&8u32.to_le_bytes(), ring + 8).unwrap();
    assert_eq!(queue.get().unwrap(), 1, "a failed get has changed nothing");
}

#[test]
fn forged_capacity_is_refused_by_new_members_and_ignored_by_others() {
    let queue = Queue::<u8>::bounded(2).unwrap();
    let memory = memory(&queue);
    memory.write_all_at(&0u64.to_le_bytes(), CONTROL + 896 + 8).unwrap();
    assert_eq!(queue.max_bytes(), 8 << 30);
    let child = Process::spawn(|queue: Queue<u8>| drop(queue), queue).unwrap();
    assert!(matches!(child.join(), Err(JoinError::ArgumentsLost(_))));
}

/// Returns a queue with two items in the overflow ring, behind one that fills the hot ring.
fn with_overflow() -> Queue<Item> {
    let queue = Queue::builder().max_bytes(1 << 20).build().unwrap();
    (0..3).for_each(|n| queue.put((n, Bytes(vec![7; 200_000]), None)).unwrap());
    queue
}

#[test]
fn forged_table_is_reported_as_corrupted() {
    let queue = with_overflow();
    let memory = memory(&queue);
    assert_eq!(queue.get().unwrap().0, 0);
    let mut first = [0; 4];
    memory.read_exact_at(&mut first, TABLE).unwrap();
    memory.write_all_at(&u32::MAX.to_le_bytes(), TABLE).unwrap();
    assert!(matches!(queue.get(), Err(GetError::Corrupted(_))));
    // A block that exists and that holds another frame.
    memory.write_all_at(&4u32.to_le_bytes(), TABLE).unwrap();
    assert!(matches!(queue.get(), Err(GetError::Corrupted(_))));
    memory.write_all_at(&first, TABLE).unwrap();
    assert_eq!(queue.get().unwrap().0, 1, "a failed get has changed nothing");
    assert_eq!(queue.get().unwrap().0, 2);
}

#[test]
fn forged_packets_deliver_no_descriptor_of_another_item() {
    let _dog = watchdog();
    let queue = Queue::<Item>::bounded(20).unwrap();
    let (_, producers, consumers, ..) = parts(&queue);
    let (producers, consumers) = (producers.unwrap().0, consumers.unwrap().0);
    // Older packets, bells, and packets that are neither.
    for bytes in [&[0; 4][..], &[], &[1], &[0; 100], &u32::MAX.to_le_bytes()] {
        for _ in 0..5 {
            send(&producers, bytes, SendFlags::DONTWAIT).unwrap();
            send(&consumers, bytes, SendFlags::DONTWAIT).unwrap();
        }
    }
    queue.put((1, Bytes(vec![]), Some(null()))).unwrap();
    queue.put((2, Bytes(vec![]), None)).unwrap();
    let first = queue.get().unwrap();
    assert!(first.0 == 1 && first.2.is_some());
    assert_eq!(queue.get().unwrap().0, 2);
    // A newer packet is in the way. The item has no descriptor, which is an error. After that the
    // queue works again.
    let newer = 5u32.to_le_bytes();
    send(&producers, &newer, SendFlags::DONTWAIT).unwrap();
    queue.put((3, Bytes(vec![]), Some(null()))).unwrap();
    queue.put((4, Bytes(vec![]), None)).unwrap();
    let error = queue.get().unwrap_err();
    assert!(matches!(error, GetError::Decode(_)), "{error}");
    assert_eq!(queue.get().unwrap().0, 4);
    assert!(queue.try_get().unwrap_err().is_empty());
    queue.put((5, Bytes(vec![]), Some(null()))).unwrap();
    assert!(queue.get().unwrap().2.is_some());
}

/// Sends a packet that claims to belong to the item with this tag.
fn forge(lane: &OwnedFd, tag: u32, descriptors: usize) {
    let file = null();
    let files = vec![file.0.as_fd(); descriptors];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(descriptors == 0 || control.push(SendAncillaryMessage::ScmRights(&files)));
    let bytes = tag.to_le_bytes();
    sendmsg(lane, &[IoSlice::new(&bytes)], &mut control, SendFlags::DONTWAIT).unwrap();
}

/// The packet has the right tag, and fewer or more descriptors than the item. No descriptor that
/// does not belong to an item is kept.
#[test]
fn forged_packet_with_wrong_descriptor_count_leaks_nothing() {
    alone(|()| {
        let queue = Queue::<Item>::bounded(20).unwrap();
        let lane = parts(&queue).1.unwrap().0;
        let before = Census::take();
        for (tag, descriptors) in [(1, 0), (2, 1), (3, 3)] {
            forge(&lane, tag, descriptors);
            queue.put((9, Bytes(vec![]), Some(null()))).unwrap();
            let result = queue.get();
            assert_eq!(result.is_ok(), descriptors > 0, "{descriptors}");
            drop(result);
            assert!(queue.try_get().unwrap_err().is_empty());
        }
        assert_eq!(Census::take(), before);
    });
}

/// Writes arbitrary data at an arbitrary place: the control block, frames, the table, the lane.
fn scribble(random: &mut fastrand::Rng, memory: &File, lane: &[OwnedFd; 2]) {
    let mut bytes = [0; 8];
    random.fill(&mut bytes);
    if random.bool() {
        // Small numbers are more often nearly valid.
        bytes[1 + random.usize(..3)..].fill(0);
    }
    let bytes = &bytes[..random.usize(1..=8)];
    let at = match random.usize(..8) {
        0..3 => CONTROL + random.u64(..1024),
        3 => HOT + random.u64(..300),
        4 => TABLE + random.u64(..128),
        5 => BLOCKS + BLOCK * random.u64(..6) + random.u64(..40),
        6 => BLOCKS + random.u64(..6 * BLOCK),
        _ => {
            let file = null();
            let files = [file.0.as_fd()];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if random.bool() {
                control.push(SendAncillaryMessage::ScmRights(&files));
            }
            let end = &lane[random.usize(..2)];
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            let _ = sendmsg(end, &[IoSlice::new(bytes)], &mut control, flags);
            return;
        }
    };
    memory.write_all_at(bytes, at).unwrap();
}

/// Returns the peak memory of this process, in KiB.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn arbitrary_writes_cause_only_errors() {
    const MOMENT: Duration = Duration::from_millis(2);
    /// More than a hundred times as long as it takes.
    const LONG: Duration = Duration::from_secs(10);
    let _dog = watchdog();
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let child = Process::spawn(
        |seed: u64| {
            let mut random = fastrand::Rng::with_seed(seed);
            let before = Census::take();
            for _ in 0..150 {
                let mut builder = Queue::<Item>::builder().max_bytes(1 << 20);
                if random.bool() {
                    builder = builder.capacity(5);
                }
                let queue = builder.build().unwrap();
                let (memory, producers, consumers, ..) = parts(&queue);
                let (memory, lane) =
                    (File::from(memory.0), [producers.unwrap().0, consumers.unwrap().0]);
                for n in 0..3 {
                    let long = random.usize(..3) * 100_000;
                    let file = random.bool().then(null);
                    queue.put((n, Bytes(vec![1; 40 + long]), file)).unwrap();
                }
                for _ in 0..12 {
                    scribble(&mut random, &memory, &lane);
                    let long = random.usize(..10) * 50_000;
                    let file = random.bool().then(null);
                    let item = (7, Bytes(vec![1; 40 + long]), file);
                    within(LONG, || drop(queue.put_timeout(item, MOMENT)));
                    within(LONG, || drop(queue.get_timeout(MOMENT)));
                    within(LONG, || drop(queue.get_many_timeout(3, MOMENT)));
                    within(LONG, || drop(wait([&queue], Some(MOMENT))));
                    within(LONG, || format!("{queue:?}"));
                    assert!(queue.capacity().is_none_or(|most| queue.len() <= most));
                }
                if random.u32(..10) == 0 {
                    within(SOON, || {
                        drop(queue.try_put((1, Bytes(vec![]), None)));
                        drop(queue.try_get());
                    });
                    queue.shutdown(Shutdown::Drain);
                    within(LONG, || drop(queue.get_timeout(MOMENT)));
                }
            }
            assert_eq!(Census::take(), before);
            let peak = peak();
            assert!(peak < 300 * 1024, "{peak} KiB");
        },
        seed,
    );
    child.unwrap().join().unwrap();
}

/// The positions are far beyond the blocks that were taken. The queue does not take block after
/// block to reach them.
#[test]
fn forged_positions_far_ahead_are_an_error_at_once() {
    let _dog = watchdog();
    let queue = with_overflow();
    let memory = memory(&queue);
    (0..2).for_each(|n| assert_eq!(queue.get().unwrap().0, n));
    for side in [0, 256] {
        for copy in [8, 32] {
            let at = CONTROL + side + 128 + copy + 8;
            let mut position = [0; 8];
            memory.read_exact_at(&mut position, at).unwrap();
            let far = u64::from_le_bytes(position) + (1 << 50);
            memory.write_all_at(&far.to_le_bytes(), at).unwrap();
        }
    }
    let error = within(SOON, || queue.put((9, Bytes(vec![1; 300_000]), None)).unwrap_err());
    assert!(matches!(error, PutError::Corrupted(..)), "{error}");
}

/// Returns the owner of each side's lock in shared memory.
fn lock_owners(memory: &File) -> [u32; 2] {
    [CONTROL, CONTROL + 256].map(|at| {
        let mut owner = [0; 4];
        memory.read_exact_at(&mut owner, at).unwrap();
        u32::from_le_bytes(owner)
    })
}

/// Writes numbers that overflow when something is added to them, or that no member writes, into
/// every word of the control block, one word at a time.
#[test]
fn extreme_numbers_in_each_word_cause_errors_and_leave_no_lock_held() {
    const MOMENT: Duration = Duration::from_millis(1);
    const SMALL: usize = 40;
    const LARGE: usize = 150_000;
    let _dog = watchdog();
    let item = |len| (7, Bytes(vec![1; len]), None);
    for word in 0..144 {
        for number in [u64::MAX, u64::MAX - 15, u64::MAX - 65_535, 1 << 63, i64::MAX as u64] {
            let at = CONTROL + 8 * word;
            let queue = with_overflow();
            let memory = memory(&queue);
            memory.write_all_at(&number.to_le_bytes(), at).unwrap();
            let forged = lock_owners(&memory);
            let check = |what: &str| {
                let held: Vec<_> = lock_owners(&memory)
                    .into_iter()
                    .zip(forged)
                    .filter(|&(owner, forged)| owner != 0 && owner != forged)
                    .collect();
                assert!(held.is_empty(), "{what}: {held:x?}, with {number:#x} at {at}");
            };
            let act = |what: &str, act: &dyn Fn()| {
                let result = catch_unwind(AssertUnwindSafe(act));
                assert!(result.is_ok(), "{what} panicked, with {number:#x} at {at}");
                check(what);
            };
            act("put", &|| drop(queue.put_timeout(item(SMALL), MOMENT)));
            act("a long put", &|| {
                while queue.put_timeout(item(LARGE), MOMENT).is_ok() {}
            });
            act("len", &|| drop((queue.len(), format!("{queue:?}"))));
            act("wait", &|| drop(wait([&queue], Some(MOMENT))));
            act("get", &|| while queue.get_timeout(MOMENT).is_ok() {});
            act("get_many", &|| drop(queue.get_many_timeout(3, MOMENT)));
            act("another put", &|| drop(queue.put_timeout(item(LARGE), MOMENT)));
            act("shutdown", &|| queue.shutdown(Shutdown::Drain));
            act("the last get", &|| drop(queue.get_timeout(MOMENT)));
            act("the end", &|| queue.shutdown(Shutdown::Now));
            act("get after the end", &|| drop(queue.get_timeout(MOMENT)));
        }
    }
}
