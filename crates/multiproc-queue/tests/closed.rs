//! Other code in the process closes our descriptors: an error, and nothing of the program's is
//! harmed.
//!
//! Opens `unsafe` to close descriptors behind the library's back.
#![allow(unsafe_code)]

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use multiproc::Process;
use multiproc::pipe::Descriptor;
use multiproc_queue::{GetError, PutError, Queue, Shutdown};
use multiproc_testkit::{alone, watchdog};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair,
};

multiproc::enable_in_tests!();

/// Returns the numbers of the descriptors whose file has a name that contains `text`.
fn descriptors_of(text: &str) -> Vec<i32> {
    let entries = fs::read_dir("/proc/self/fd").unwrap().map(|entry| entry.unwrap().path());
    let has_text =
        |path: &Path| fs::read_link(path).is_ok_and(|file| file.to_string_lossy().contains(text));
    entries
        .filter(|path| has_text(path))
        .filter_map(|path| path.file_name()?.to_str()?.parse().ok())
        .collect()
}

/// Returns a file of the program, filled with one byte.
fn file(len: usize) -> File {
    let path = std::env::temp_dir().join(format!("multiproc-closed-{}", std::process::id()));
    let mut file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    fs::remove_file(path).unwrap();
    file.write_all(&vec![0xAA; len]).unwrap();
    file
}

/// The memory of large items is released when they are got, but the number of the region's
/// descriptor belongs to a file of the program.
#[test]
fn reused_region_descriptor_leaves_the_new_file_intact() {
    const LEN: usize = 40 << 20;
    alone(|()| {
        let queue = Queue::<Vec<u64>>::unbounded().unwrap();
        for _ in 0..40 {
            queue.put(vec![1; 128 << 10]).unwrap();
        }
        let file = file(LEN);
        for number in descriptors_of("memfd:multiproc:") {
            // SAFETY: from here on, the number belongs to the program's file.
            assert!(unsafe { libc::dup2(file.as_raw_fd(), number) } >= 0);
        }
        while let Ok(item) = queue.try_get() {
            assert_eq!(item[0], 1);
        }
        drop(queue);
        let mut bytes = vec![0; LEN];
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert!(bytes.iter().all(|&byte| byte == 0xAA));
        assert_eq!(file.metadata().unwrap().len(), LEN as u64);
    });
}

/// The numbers of the lane belong to a socket of the program, whose other end is closed. The socket
/// is neither taken for the end of all consumers, nor read from.
#[test]
fn reused_lane_descriptors_are_not_taken_for_the_lane() {
    alone(|()| {
        let sockets = || descriptors_of("socket:");
        let before = sockets();
        let queue = Queue::<(u32, Option<Descriptor>)>::bounded(3000).unwrap();
        let file = || Some(Descriptor(File::open("/dev/null").unwrap().into()));
        queue.put((0, file())).unwrap();
        queue.put((1, None)).unwrap();
        let lane: Vec<_> = sockets().into_iter().filter(|fd| !before.contains(fd)).collect();
        assert_eq!(lane.len(), 2);
        let (ours, other) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .unwrap();
        send(&other, b"mine", SendFlags::empty()).unwrap();
        drop(other);
        for number in lane {
            // SAFETY: from here on, the number belongs to the program's socket.
            assert!(unsafe { libc::dup2(ours.as_raw_fd(), number) } >= 0);
        }
        let (producer, consumer) = (queue.producer(), queue.consumer());
        drop(queue);
        assert_eq!(producer.len(), 2);
        (0..2000).for_each(|n| producer.put((n, None)).unwrap());
        let PutError::Os(_, error) = producer.put((0, file())).unwrap_err() else { panic!() };
        assert_eq!(error.raw_os_error(), libc::EBADF);
        assert_eq!(producer.len(), 2002);
        let GetError::Os(error) = consumer.get().unwrap_err() else { panic!() };
        assert_eq!(error.raw_os_error(), libc::EBADF);
        producer.shutdown(Shutdown::Now);
        assert!(consumer.get().unwrap_err().is_closed());
        drop((producer, consumer));
        let mut bytes = [0; 8];
        assert_eq!(recv(&ours, &mut bytes, RecvFlags::DONTWAIT).unwrap().0, 4);
    });
}

/// Queued items can be got. An item that needs more memory is refused with the reason.
#[test]
fn queue_with_closed_descriptors_reports_the_cause() {
    let _dog = watchdog();
    let run = |()| {
        let queue = Queue::<Vec<u64>>::unbounded().unwrap();
        queue.put(vec![1]).unwrap();
        let ours = [descriptors_of("memfd:multiproc:"), descriptors_of("socket:")].concat();
        for number in ours {
            if number > 2 {
                // SAFETY: closes a descriptor of the library, which is the purpose of this test.
                unsafe { libc::close(number) };
            }
        }
        assert_eq!(queue.get_timeout(Duration::from_secs(60)).unwrap(), [1]);
        let PutError::Os(item, error) = queue.put(vec![2; 1 << 20]).unwrap_err() else { panic!() };
        assert_eq!((error.raw_os_error(), item.len()), (libc::EBADF, 1 << 20));
        // The connection for the result of this process was closed as well.
        std::process::exit(0);
    };
    let child: Process<()> = Process::spawn(run, ()).unwrap();
    assert_eq!(child.wait().code(), Some(0));
}

/// In a process with closed standard descriptors, neither a queue nor the descriptors in its items
/// take their numbers.
#[test]
fn queue_descriptors_avoid_the_standard_numbers() {
    let _dog = watchdog();
    let life = |queue: Queue<Option<Descriptor>>| -> bool {
        for number in 0..3 {
            // SAFETY: closes the standard descriptors of this process, which does not use them.
            unsafe { libc::close(number) };
        }
        let own = Queue::<u32>::unbounded().unwrap();
        own.put(7).unwrap();
        let received = queue.get().unwrap().expect("a file");
        let is_free = |number| fs::read_link(format!("/proc/self/fd/{number}")).is_err();
        let are_free = (0..3).all(is_free);
        drop(received);
        are_free && own.get().unwrap() == 7
    };
    let queue = Queue::unbounded().unwrap();
    let child = Process::spawn(life, queue.clone()).unwrap();
    queue.put(Some(Descriptor::from(File::open("/dev/null").unwrap()))).unwrap();
    assert!(child.join().unwrap());
}
