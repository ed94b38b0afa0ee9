//! Shared bytes between processes: what arrives, what is refused, and what is reused.
//!
//! Opens `unsafe` to map memory as a hostile process would.
#![allow(unsafe_code)]

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::thread;

use multiproc::Process;
use multiproc_pipe::{
    Bytes, Connection, Descriptor, SendError, SharedBytes, SharedPool, duplex, simplex,
};
use multiproc_testkit::{Census, alone, is_asleep, until, watchdog};
use rustix::fs::{
    FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, ftruncate, memfd_create,
};
use rustix::mm::{MapFlags, ProtFlags, mmap};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};

multiproc::enable_in_tests!();

const MIB: usize = 1024 * 1024;

/// The length is prime, so that no two pages are equal.
const PATTERN: &[u8; 4093] = &{
    let mut pattern = [0; 4093];
    let mut at = 0;
    while at < pattern.len() {
        pattern[at] = ((at * at) >> 3).to_le_bytes()[0];
        at += 1;
    }
    pattern
};

fn fill(bytes: &mut [u8]) {
    for piece in bytes.chunks_mut(PATTERN.len()) {
        piece.copy_from_slice(&PATTERN[..piece.len()]);
    }
}

fn filled(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    fill(&mut bytes);
    bytes
}

fn is_filled(bytes: &[u8]) -> bool {
    bytes.chunks(PATTERN.len()).all(|piece| piece == &PATTERN[..piece.len()])
}

/// A message that another program could have made.
#[derive(Debug, Serialize, Deserialize)]
enum Forged {
    Sealed(u64, Descriptor),
    Lent(u64, Descriptor),
}

impl Forged {
    /// Receives this message as shared bytes.
    fn receive(self) -> Result<SharedBytes, String> {
        let (left, right) = duplex::<Forged, ()>().unwrap();
        left.send(self).unwrap();
        right.retype::<(), SharedBytes>().recv().map_err(|error| error.to_string())
    }
}

/// Returns the descriptor of shared bytes as their receiver gets it.
fn descriptor_of(bytes: &SharedBytes) -> OwnedFd {
    let (left, right) = duplex::<SharedBytes, ()>().unwrap();
    left.send(bytes.clone()).unwrap();
    match right.retype::<(), Forged>().recv().unwrap() {
        Forged::Sealed(_, memory) | Forged::Lent(_, memory) => memory.into(),
    }
}

const LENT: SealFlags = SealFlags::SHRINK.union(SealFlags::FUTURE_WRITE);
const SEALED: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::WRITE);

fn memfd(bytes: &[u8], seals: SealFlags) -> OwnedFd {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = File::from(memfd_create("forged", flags).unwrap());
    file.write_all(bytes).unwrap();
    fcntl_add_seals(&file, seals).unwrap();
    file.into()
}

/// Maps `len` bytes until the process exits.
fn map(descriptor: impl AsFd, len: usize, protection: ProtFlags) -> io::Result<NonNull<u8>> {
    // SAFETY: the kernel chooses the address.
    let start = unsafe { mmap(ptr::null_mut(), len, protection, MapFlags::SHARED, descriptor, 0) }?;
    Ok(NonNull::new(start).unwrap().cast())
}

/// Returns the inode of the shared memory that holds these bytes, or `None` if they are in private
/// memory.
fn inode(bytes: &[u8]) -> Option<u64> {
    let address = bytes.as_ptr() as usize;
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let line = maps.lines().find(|line| {
        let (range, _) = line.split_once(' ').unwrap();
        let (start, end) = range.split_once('-').unwrap();
        let number = |text| usize::from_str_radix(text, 16).unwrap();
        (number(start)..number(end)).contains(&address)
    });
    let line = line.unwrap();
    line.contains("memfd:multiproc:")
        .then(|| line.split_whitespace().nth(4).unwrap().parse().unwrap())
}

/// Returns the same content made in each of the ways.
fn each_kind(len: usize) -> [SharedBytes; 4] {
    let bytes = filled(len);
    let mut writer = BufWriter::new(SharedBytes::builder().unwrap());
    bytes.chunks(MIB / 2 + 7).for_each(|piece| writer.write_all(piece).unwrap());
    let written = writer.into_inner().unwrap().finish().unwrap();
    let mut buffer = SharedPool::new().buffer(len).unwrap();
    buffer.copy_from_slice(&bytes);
    [SharedBytes::copy_from(&bytes).unwrap(), written, buffer.freeze(), bytes.into()]
}

#[test]
fn shared_bytes_of_all_lengths_arrive_and_return() {
    let _dog = watchdog();
    let (ours, theirs) = duplex::<(usize, SharedBytes), SharedBytes>().unwrap();
    let child = Process::spawn(
        |parent: Connection<SharedBytes, (usize, SharedBytes)>| {
            while let Ok((len, bytes)) = parent.recv() {
                assert!(bytes.len() == len && is_filled(&bytes), "{len}");
                parent.send(bytes).unwrap();
            }
        },
        theirs,
    )
    .unwrap();
    for len in [0, 1, 4095, 4096, 4097, MIB, 100 * MIB] {
        for bytes in each_kind(len) {
            assert!(bytes.len() == len && is_filled(&bytes));
            ours.send((len, bytes.clone())).unwrap();
            let back = ours.recv().unwrap();
            assert!(back == bytes, "{len} bytes came back");
            assert!(back.into_vec() == Vec::from(bytes));
        }
    }
    drop(ours);
    child.join().unwrap();
}

#[test]
fn shared_bytes_can_be_argument_and_result_of_a_process() {
    let _dog = watchdog();
    for bytes in each_kind(MIB) {
        let child = Process::spawn(|bytes: SharedBytes| bytes, bytes).unwrap();
        assert!(is_filled(&child.join().unwrap()));
    }
}

#[test]
fn shared_bytes_outlive_a_killed_sender() {
    let _dog = watchdog();
    let (ours, theirs) = duplex::<(), SharedBytes>().unwrap();
    let child = Process::builder()
        .daemon(true)
        .spawn(
            |parent: Connection<SharedBytes, ()>| {
                each_kind(MIB).into_iter().for_each(|bytes| parent.send(bytes).unwrap());
                thread::park();
            },
            theirs,
        )
        .unwrap();
    let first = ours.recv().unwrap();
    until(|| is_asleep(child.pid())); // it has sent the others as well
    child.kill().unwrap();
    child.wait();
    for bytes in [first, ours.recv().unwrap(), ours.recv().unwrap(), ours.recv().unwrap()] {
        assert!(bytes.len() == MIB && is_filled(&bytes));
    }
}

#[test]
fn pipe_refuses_shared_bytes() {
    let (receiver, sender) = simplex::<SharedBytes>().unwrap();
    for bytes in each_kind(1) {
        let error = sender.send(bytes).unwrap_err();
        assert!(matches!(error, SendError::Encode(..)), "{error}");
        assert_eq!(*error.into_inner(), [PATTERN[0]]);
    }
    assert!(receiver.try_recv().unwrap_err().is_empty());
}

#[test]
fn clone_refers_to_the_same_bytes() {
    for bytes in each_kind(MIB) {
        assert_eq!(bytes.clone().as_ptr(), bytes.as_ptr());
    }
    let bytes = SharedBytes::from(filled(10));
    let address = bytes.as_ptr();
    assert_eq!(format!("{bytes:?}"), "SharedBytes(10 bytes)");
    assert_ne!(bytes, SharedBytes::from(filled(11)));
    let vector = bytes.into_vec();
    assert_eq!(vector.as_ptr(), address, "the only handle's vector is not copied");
}

#[test]
fn handles_are_send_and_sync() {
    fn is_send_and_sync<T: Send + Sync>(_: &T) {}
    let pool = SharedPool::new();
    let buffer = pool.buffer(1).unwrap();
    is_send_and_sync(&pool);
    is_send_and_sync(&buffer);
    is_send_and_sync(&buffer.freeze());
    let bytes = SharedBytes::from(filled(MIB));
    thread::scope(|scope| {
        for _ in 0..4 {
            // Each thread competes to make the copy that is sent.
            scope.spawn(|| {
                let (left, right) = duplex::<SharedBytes, ()>().unwrap();
                left.send(bytes.clone()).unwrap();
                assert!(is_filled(&right.recv().unwrap()));
            });
        }
    });
}

#[test]
fn bytes_from_a_vector_are_copied_once_for_many_receivers() {
    let bytes = SharedBytes::from(filled(MIB));
    let (left, right) = duplex::<SharedBytes, ()>().unwrap();
    let inodes = [(); 2].map(|()| {
        left.send(bytes.clone()).unwrap();
        inode(&right.recv().unwrap())
    });
    assert!(inodes[0].is_some() && inodes[0] == inodes[1], "{inodes:?}");
}

#[test]
fn memory_that_is_unsafe_to_read_is_refused() {
    let _dog = watchdog();
    let plain = || {
        let path = format!("{}/shared_bytes", env!("CARGO_TARGET_TMPDIR"));
        fs::write(&path, [1; 100]).unwrap();
        OwnedFd::from(File::open(&path).unwrap())
    };
    let bytes = [1; 100];
    let missing = |seals: SealFlags, less| memfd(&bytes, seals.difference(less));
    let sparse = |seals| {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let memory = memfd_create("sparse", flags).unwrap();
        ftruncate(&memory, 2 * 4096).unwrap();
        // The file has enough pages allocated, but all of them beyond its end.
        fallocate(&memory, FallocateFlags::KEEP_SIZE, 2 * 4096, 2 * 4096).unwrap();
        fcntl_add_seals(&memory, seals).unwrap();
        memory
    };
    type Memory<'a> = Box<dyn Fn(SealFlags) -> OwnedFd + 'a>;
    let table: [(&str, u64, Memory<'_>); 8] = [
        ("F_SEAL_SHRINK", 100, Box::new(|all| missing(all, SealFlags::SHRINK))),
        ("WRITE", 100, Box::new(|all| missing(all, SealFlags::WRITE | SealFlags::FUTURE_WRITE))),
        ("F_SEAL_SHRINK", 100, Box::new(|_| memfd(&bytes, SealFlags::empty()))),
        ("Fifo", 100, Box::new(|_| io::pipe().unwrap().0.into())),
        ("kind CharacterDevice", 0, Box::new(|_| File::open("/dev/zero").unwrap().into())),
        ("expected 101 bytes of shared memory, got 100", 101, Box::new(|all| memfd(&bytes, all))),
        ("bytes of shared memory, got 100", u64::MAX, Box::new(|all| memfd(&bytes, all))),
        ("holes", 2 * 4096, Box::new(sparse)),
    ];
    for (what, len, memory) in &table {
        let sealed = Forged::Sealed(*len, memory(SEALED | SealFlags::SEAL).into()).receive();
        let lent = Forged::Lent(*len, memory(LENT).into()).receive();
        for result in [sealed, lent] {
            let error = result.unwrap_err();
            assert!(error.contains(what), "{what}: {error}");
        }
    }
    for result in [Forged::Sealed(100, plain().into()), Forged::Lent(100, plain().into())] {
        let error = result.receive().unwrap_err();
        assert!(error.contains("expected shared memory") || error.contains("lacks"), "{error}");
    }
    // Only for sealed memory: lent bytes may be shorter than their memory.
    let error = Forged::Sealed(99, memfd(&bytes, SEALED | SealFlags::SEAL).into()).receive();
    assert!(error.unwrap_err().contains("99 bytes"));
    for less in [SealFlags::GROW, SealFlags::WRITE] {
        let error = Forged::Sealed(100, missing(SEALED | SealFlags::SEAL, less).into()).receive();
        assert!(error.unwrap_err().contains("F_SEAL_"));
    }
    // Correct memory is accepted.
    let memory = memfd(&bytes, SEALED | SealFlags::SEAL);
    assert_eq!(*Forged::Sealed(100, memory.into()).receive().unwrap(), bytes);
    assert_eq!(*Forged::Lent(7, memfd(&bytes, LENT).into()).receive().unwrap(), bytes[..7]);
}

#[test]
fn sent_bytes_cannot_be_changed() {
    let mut buffer = SharedPool::new().buffer(4096).unwrap();
    fill(&mut buffer);
    for bytes in [SharedBytes::copy_from(&filled(4096)).unwrap(), buffer.freeze()] {
        let memory = descriptor_of(&bytes);
        let path = format!("/proc/self/fd/{}", memory.as_raw_fd());
        let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
        let denied = |result: io::Result<()>| {
            assert_eq!(result.unwrap_err().kind(), ErrorKind::PermissionDenied);
        };
        denied((&file).write_all(b"x"));
        denied(file.set_len(0));
        denied(file.set_len(10_000));
        denied(map(&file, 4096, ProtFlags::READ | ProtFlags::WRITE).map(|_| ()));
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        denied(fallocate(&file, hole, 0, 4096).map_err(Into::into));
        denied(fcntl_add_seals(&file, SealFlags::GROW).map_err(Into::into));
        assert!(is_filled(&bytes));
    }
}

#[test]
fn received_bytes_are_unaffected_by_later_writes_of_the_sender() {
    alone(|()| {
        let memory = memfd(&filled(MIB), SealFlags::empty());
        let start = map(&memory, MIB, ProtFlags::READ | ProtFlags::WRITE).unwrap();
        // A writable mapping prevents the seal that an honest sender of sealed memory sets.
        fcntl_add_seals(&memory, SEALED).unwrap_err();
        fcntl_add_seals(&memory, LENT).unwrap();
        let error = Forged::Sealed(MIB as u64, memory.try_clone().unwrap().into()).receive();
        assert!(error.unwrap_err().contains("F_SEAL_WRITE"));
        let received = Forged::Lent(MIB as u64, memory.into()).receive().unwrap();
        // SAFETY: mapped writable above, and nothing refers to it.
        unsafe { start.as_ptr().write_bytes(0xaa, MIB) };
        assert!(is_filled(&received));
    });
}

#[test]
fn received_bytes_are_unaffected_by_a_sender_that_keeps_writing() {
    let _dog = watchdog();
    let (ours, theirs) = duplex::<(), Forged>().unwrap();
    let child = Process::spawn(
        |parent: Connection<Forged, ()>| {
            let memory = memfd(&filled(MIB), SealFlags::empty());
            let start = map(&memory, MIB, ProtFlags::READ | ProtFlags::WRITE).unwrap();
            fcntl_add_seals(&memory, LENT).unwrap();
            let start = start.as_ptr() as usize;
            thread::spawn(move || {
                for n in (0..128).cycle() {
                    let start = ptr::with_exposed_provenance_mut::<u8>(start);
                    // SAFETY: mapped writable above, until the process exits, and nothing here
                    // refers to it.
                    unsafe { start.write_bytes(n, MIB) };
                }
            });
            while parent.recv().is_ok() {
                let copy = memory.try_clone().unwrap();
                parent.send(Forged::Lent(MIB as u64, copy.into())).unwrap();
            }
        },
        theirs,
    )
    .unwrap();
    let ours = ours.retype::<(), SharedBytes>();
    for _ in 0..100 {
        ours.send(()).unwrap();
        let received = ours.recv().unwrap();
        let before = received.to_vec();
        assert_eq!(received.len(), MIB);
        assert!(*received == *before, "the received bytes changed");
    }
    child.kill().unwrap();
    child.wait();
}

#[test]
fn pool_reuses_memory_after_its_receiver_dropped_it() {
    alone(|()| {
        let (ours, theirs) = duplex::<SharedBytes, bool>().unwrap();
        let child = Process::spawn(
            |parent: Connection<bool, SharedBytes>| {
                while let Ok(bytes) = parent.recv() {
                    parent.send(is_filled(&bytes)).unwrap();
                }
            },
            theirs,
        )
        .unwrap();
        let pool = SharedPool::new();
        let mut inodes = Vec::new();
        for len in [MIB, MIB, MIB - 1, MIB / 2] {
            let mut buffer = pool.buffer(len).unwrap();
            fill(&mut buffer);
            inodes.push(inode(&buffer).unwrap());
            ours.send(buffer.freeze()).unwrap();
            assert!(ours.recv().unwrap());
            assert_eq!(pool.lent(), 0);
        }
        assert_eq!(inodes, [inodes[0]; 4]);
        assert_ne!(inode(&pool.buffer(4096).unwrap()), Some(inodes[0]), "much too large");
        assert_ne!(inode(&pool.buffer(2 * MIB).unwrap()), Some(inodes[0]), "too small");
        drop(ours);
        child.join().unwrap();
    });
}

#[test]
fn memory_sent_to_a_killed_receiver_returns_to_the_pool() {
    alone(|()| {
        let (ours, theirs) = duplex::<SharedBytes, ()>().unwrap();
        let child = Process::builder()
            .daemon(true)
            .spawn(
                |parent: Connection<(), SharedBytes>| {
                    parent.send(()).unwrap();
                    thread::park();
                },
                theirs,
            )
            .unwrap();
        ours.recv().unwrap();
        let pool = SharedPool::new();
        let buffer = pool.buffer(MIB).unwrap();
        let lent = inode(&buffer).unwrap();
        ours.send(buffer.freeze()).unwrap();
        assert_eq!(pool.lent(), 1);
        assert_ne!(inode(&pool.buffer(MIB).unwrap()), Some(lent), "it is lent");
        child.kill().unwrap();
        child.wait();
        until(|| pool.lent() == 0);
        let buffers = [(); 2].map(|()| pool.buffer(MIB).unwrap());
        assert!(
            buffers.iter().any(|buffer| inode(buffer) == Some(lent)),
            "the memory was returned"
        );
    });
}

#[test]
fn memory_in_use_does_not_return_to_the_pool() {
    alone(|()| {
        let pool = SharedPool::new();
        let (left, right) = duplex::<SharedBytes, ()>().unwrap();
        let first = pool.buffer(MIB).unwrap();
        let number = inode(&first);
        assert_ne!(inode(&pool.buffer(MIB).unwrap()), number, "a buffer uses it");

        let bytes = first.freeze();
        let handle = bytes.clone();
        left.send(bytes.clone()).unwrap();
        left.send(bytes).unwrap();
        drop(right.recv().unwrap());
        assert_ne!(inode(&pool.buffer(MIB).unwrap()), number, "a handle uses it");
        drop(handle);
        assert_eq!(pool.lent(), 1);
        assert_ne!(inode(&pool.buffer(MIB).unwrap()), number, "the second message uses it");
        drop(right);
        assert_eq!(pool.lent(), 0);
        let buffers = [(); 2].map(|()| pool.buffer(MIB).unwrap());
        assert!(buffers.iter().any(|buffer| inode(buffer) == number));
    });
}

#[test]
fn failed_send_lends_no_memory() {
    alone(|()| {
        let pool = SharedPool::new();
        let (left, right) = duplex::<SharedBytes, ()>().unwrap();
        drop(right);
        let error = left.send(pool.buffer(MIB).unwrap().freeze()).unwrap_err();
        assert!(error.is_disconnected());
        drop(error);
        let (_receiver, sender) = simplex::<SharedBytes>().unwrap();
        let error = sender.send(pool.buffer(MIB).unwrap().freeze()).unwrap_err();
        assert!(matches!(error, SendError::Encode(..)));
        drop(error);
        assert_eq!(pool.lent(), 0);
        assert_eq!(format!("{pool:?}"), "SharedPool(1 pieces kept)");
    });
}

#[test]
fn pool_keeps_at_most_its_limits() {
    alone(|()| {
        let pool = SharedPool::builder().max_segments(3).max_bytes(2 * MIB).build();
        let before = Census::take();
        let buffers =
            |count, len| -> Vec<_> { (0..count).map(|_| pool.buffer(len).unwrap()).collect() };
        drop(buffers(10, 4096));
        assert_eq!(Census::take().mappings, before.mappings + 3);
        drop(buffers(10, MIB));
        assert_eq!(Census::take().mappings, before.mappings + 2);
        // The same while the receiver takes nothing.
        let (left, right) = duplex::<SharedBytes, ()>().unwrap();
        let count = 20;
        for _ in 0..count {
            left.send(pool.buffer(MIB).unwrap().freeze()).unwrap();
        }
        assert_eq!(pool.lent(), 2);
        (0..count).for_each(|_| drop(right.recv().unwrap()));
        assert_eq!(pool.lent(), 0);
        drop((left, right, pool));
        // Receivers keep up to 16 mappings.
        let after = Census::take();
        assert!(after.mappings <= before.mappings + 16, "{after:?}");
        assert_eq!(after.descriptors, before.descriptors);
    });
}

#[test]
fn truncated_buffer_is_sent_truncated() {
    let pool = SharedPool::new();
    let mut buffer = pool.buffer(100).unwrap();
    buffer.fill(1);
    buffer.truncate(200);
    assert_eq!(buffer.len(), 100);
    buffer.truncate(3);
    let (left, right) = duplex::<SharedBytes, ()>().unwrap();
    left.send(buffer.freeze()).unwrap();
    assert_eq!(*right.recv().unwrap(), [1; 3]);
}

#[test]
fn file_size_limit_is_an_error_and_not_a_signal() {
    alone(|()| {
        let maximum = getrlimit(Resource::Fsize).maximum;
        setrlimit(Resource::Fsize, Rlimit { current: Some(MIB as u64), maximum }).unwrap();
        let bytes = filled(2 * MIB);
        let error = SharedPool::new().buffer(2 * MIB).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::FileTooLarge, "{error}");
        let error = SharedBytes::copy_from(&bytes).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::FileTooLarge, "{error}");
        let mut writer = SharedBytes::builder().unwrap();
        writer.write_all(&bytes[..MIB]).unwrap();
        assert_eq!(writer.write(b"x").unwrap_err().kind(), ErrorKind::FileTooLarge);
        assert!(is_filled(&writer.finish().unwrap()));
        let (left, _right) = duplex::<SharedBytes, ()>().unwrap();
        let error = left.send(bytes.into()).unwrap_err();
        assert!(error.to_string().contains("RLIMIT_FSIZE"), "{error}");
        assert_eq!(error.into_inner().len(), 2 * MIB, "the value is returned");
    });
}

#[test]
fn buffer_larger_than_memory_is_an_error() {
    for len in [1 << 50, usize::MAX / 2, usize::MAX] {
        let error = SharedPool::new().buffer(len).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OutOfMemory, "{error}");
    }
}

#[test]
fn shared_bytes_leak_nothing() {
    alone(|()| {
        let (left, right) = duplex::<(SharedBytes, Bytes), ()>().unwrap();
        let pool = SharedPool::builder().max_segments(1).build();
        let round = |lost: bool| {
            if lost {
                let (left, _right) = duplex::<SharedBytes, ()>().unwrap();
                left.send(pool.buffer(MIB).unwrap().freeze()).unwrap(); // never received
            }
            let bytes = pool.buffer(MIB).unwrap().freeze();
            for shared in [bytes, SharedBytes::copy_from(&[1; 5000]).unwrap(), vec![2; 99].into()] {
                left.send((shared, Bytes(vec![3; 3]))).unwrap();
                drop(right.recv().unwrap());
            }
        };
        // The mapping of the pool's only piece of memory exists once on each side.
        round(false);
        let before = Census::take();
        (0..300).for_each(|n| round(n % 2 == 0));
        assert_eq!(Census::take(), before);
        drop(pool);
        assert_eq!(Census::take().mappings, before.mappings - 1);
    });
}
