//! A million broken streams cause only errors, with bounded memory. Run by `cargo xtask faults`,
//! and with `--soak` for twenty million.
//!
//! The streams are split and decoded as by a receiver, but without its system calls. `hostile.rs`
//! tests some thousands of streams with them.
#![cfg(multiproc_faults)]
#![allow(unsafe_code, reason = "a global allocator, to count")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::{env, fs, thread};

use multiproc_pipe::{Bytes, Connection, message, syscall_script};
use multiproc_testkit::watchdog;
use random::Random;
use streams::{Value, frame, mutate, stream, value};

#[path = "support/random.rs"]
mod random;
#[path = "support/streams.rs"]
mod streams;

/// Counts the bytes that a thread has allocated, currently and at most.
struct Counting;

thread_local! {
    static NOW: Cell<usize> = const { Cell::new(0) };
    static MOST: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: forwards all calls to the system's allocator. Counting does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        NOW.set(NOW.get().wrapping_add(layout.size()));
        // Memory of one thread may be freed by another. The count then wraps and must not become
        // the maximum.
        if NOW.get().cast_signed() > MOST.get().cast_signed() {
            MOST.set(NOW.get());
        }
        // SAFETY: guaranteed by the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        NOW.set(NOW.get().wrapping_sub(layout.size()));
        // SAFETY: guaranteed by the caller.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Returns the peak number of bytes allocated during `action`, less those allocated before.
fn memory_of(action: impl FnOnce()) -> usize {
    let before = NOW.get();
    MOST.set(before);
    action();
    MOST.get().wrapping_sub(before)
}

#[test]
fn broken_streams_cause_errors_with_little_memory() {
    let _dog = watchdog();
    let count =
        if env::var_os("MULTIPROC_SOAK_SECONDS").is_some() { 20_000_000 } else { 1_000_000 };
    let mut random = Random::new(random::seed());
    let whole: Vec<Vec<u8>> = (0..200)
        .map(|_| {
            let values: Vec<_> = (0..1 + random.below(6)).map(|_| value(&mut random, 4)).collect();
            let stream = stream(&values);
            let mut came = Vec::new();
            syscall_script::take_apart(&stream, &[7], |body| {
                came.push(message::decode::<Value>(body, Vec::new()).unwrap());
            })
            .unwrap();
            assert_eq!(came, values, "the intact stream");
            stream
        })
        .collect();
    let (mut values, mut refused, mut corrupted, mut ended, mut most) = (0, 0, 0, 0, 0);
    for n in 0..count {
        let mut broken = whole[random.below(whole.len())].clone();
        for _ in 0..random.below(4) {
            mutate(&mut broken, &mut random);
        }
        let pieces = [1 + random.below(100), broken.len() + 1];
        let memory =
            memory_of(|| {
                let end = syscall_script::take_apart(&broken, &pieces[n % 2..], |body| {
                    match message::decode::<Value>(body, Vec::new()) {
                        Ok(_) => values += 1,
                        Err(_) => refused += 1,
                    }
                });
                if end.is_ok() { ended += 1 } else { corrupted += 1 }
            });
        // The read-ahead buffer, one step of growth, and the values themselves.
        assert!(memory < (2 << 20) + 200 * broken.len(), "{memory} bytes for {broken:?}");
        most = most.max(memory);
    }
    println!(
        "{count} streams: {values} values, {refused} refused; {ended} ended, {corrupted} corrupted; \
         {most} bytes at most"
    );
    for often in [values, refused, corrupted, ended] {
        assert!(often > count / 20, "an outcome is too rare: {often} of {count}");
    }
}

/// Nested lists, each of which claims to have as many elements as there are bytes left.
#[test]
fn nested_lengths_reserve_no_memory() {
    let mut list = Vec::new();
    message::encode(&Value::List(Vec::new()), &mut list).unwrap();
    // A count of two bytes replaces the count of one.
    list.pop();
    let body = [&list[..], &[253, 0x81, 0x82]].concat().repeat(25_000);
    let stream = frame(u64::try_from(body.len()).unwrap(), 0, &body);
    let memory = memory_of(|| {
        syscall_script::take_apart(&stream, &[], |body| {
            let error = message::decode::<Value>(body, Vec::new()).unwrap_err();
            assert!(error.reason().contains("256"), "{error}");
        })
        .unwrap();
    });
    println!("{memory} bytes for a message of {}", body.len());
    assert!(memory < 100 << 20, "{memory} bytes");
}

/// Returns content that differs from itself when it is shifted by a few bytes.
fn block() -> Vec<u8> {
    (0..1_000_003_u32).map(|n| n.wrapping_mul(0x9e37_79b1).to_le_bytes()[3]).collect()
}

/// Returns `length` bytes in blocks.
fn blocks(block: &[u8], length: usize) -> impl Iterator<Item = &[u8]> {
    (0..length).step_by(block.len()).map(move |at| &block[..block.len().min(length - at)])
}

/// Returns 64 MiB, or in a soak run 3 GiB or a third of the available memory, whichever is less.
fn large_length() -> usize {
    if env::var_os("MULTIPROC_SOAK_SECONDS").is_none() {
        return 64 << 20;
    }
    let free = fs::read_to_string("/proc/meminfo").unwrap();
    let free = free.lines().find_map(|line| line.strip_prefix("MemAvailable:")).unwrap();
    let free: usize = free.trim().trim_end_matches(" kB").parse().unwrap();
    (3 << 30).min(free * 1024 / 3)
}

/// One side is a raw socket that makes or checks the content piece by piece, so only two copies are
/// in memory.
#[test]
fn message_of_gigabytes_arrives_and_returns_intact() {
    let _dog = watchdog();
    let length = large_length();
    let block = block();
    let prefix = {
        // The count of the bytes, encoded in four.
        [&[254][..], &u32::try_from(length).unwrap().to_le_bytes()].concat()
    };
    let start = frame(u64::try_from(length + prefix.len()).unwrap(), 0, &prefix);

    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let ours = Connection::<Bytes, Bytes>::from_socket(ours.into()).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            theirs.write_all(&start).unwrap();
            blocks(&block, length).for_each(|block| theirs.write_all(block).unwrap());
            // The returned message must be the same.
            let mut came = vec![0; start.len()];
            theirs.read_exact(&mut came).unwrap();
            assert_eq!(came, start);
            for block in blocks(&block, length) {
                came.resize(block.len(), 0);
                theirs.read_exact(&mut came).unwrap();
                assert!(came == block);
            }
        });
        let mut received = Bytes::default();
        let memory = memory_of(|| received = ours.recv().unwrap());
        println!("{length} bytes received, {memory} bytes of memory");
        assert!(memory < 2 * length + (2 << 20), "{memory} bytes");
        assert_eq!(received.0.len(), length);
        let mut rest = &received.0[..];
        for block in blocks(&block, length) {
            let (came, next) = rest.split_at(block.len());
            assert!(came == block);
            rest = next;
        }
        ours.send(received).unwrap();
    });
}
