//! The manager: names, mismatches, deaths, and hostile clients.

use std::io::{Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use std::{env, fs, process, thread};

use multiproc_manager::{Diagnosis, Manager, ManagerError, ObjectKind};
use multiproc_pipe::{
    Address, Connection, Listener, Sender, connect_without_hello, duplex, simplex,
};
use multiproc_process::{Child, Process, active_children};
use multiproc_queue::{Consumer, JoinableQueue, Producer, Queue};
use multiproc_sync::{Atomic, Lock, Mutex, Semaphore, Shared};
use multiproc_testkit::{Census, alone, is_asleep, until, watchdog};
use rustix::process::{Gid, Pid, Resource, Signal, Uid, getrlimit, kill_process, setrlimit};
use rustix::thread::{set_thread_res_gid, set_thread_res_uid};
use serde::{Deserialize, Serialize};

multiproc_process::enable_in_tests!();

/// A folder of this test program, removed when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = env::temp_dir().join(format!("multiproc-manager-{}-{number}", process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The process of a manager that this process has started.
fn process_of(manager: &Manager) -> Child {
    let process = manager.process().unwrap().clone();
    assert!(process.name().starts_with("Manager-") && process.is_daemon());
    process
}

/// Returns an unauthenticated client of a manager with an abstract name.
fn bare(manager: &Manager) -> UnixStream {
    let name = manager.address().to_string();
    let address = SocketAddr::from_abstract_name(name.strip_prefix('@').unwrap()).unwrap();
    UnixStream::connect_addr(&address).unwrap()
}

fn frame(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u64).to_le_bytes()[..], &[0; 4], body].concat()
}

/// The version of the protocol between a manager and its clients.
const VERSION: u32 = 4;

/// Returns the first message of a client.
fn greeting(version: u32) -> Vec<u8> {
    frame(&[&b"mp-mngr\0"[..], &version.to_le_bytes()].concat())
}

/// Returns a bare client that was accepted.
fn welcome(manager: &Manager) -> UnixStream {
    let mut client = bare(manager);
    client.write_all(&greeting(VERSION)).unwrap();
    client.read_exact(&mut [0; 12 + 20]).unwrap();
    client
}

/// Asserts that the manager closes the connection.
fn assert_dropped(mut client: UnixStream) {
    let mut rest = Vec::new();
    // Unread data makes it a reset.
    let _ = client.read_to_end(&mut rest);
}

#[test]
fn first_client_creates_and_others_open() {
    let _dog = watchdog();
    let manager = Manager::start().unwrap();
    let (jobs, done) = (manager.queue("jobs", 2).unwrap(), manager.event("done").unwrap());
    let child = Process::spawn(
        |manager: Manager| {
            let jobs = manager.queue::<String>("jobs", 2).unwrap();
            manager.event("done").unwrap().wait();
            jobs.get().unwrap()
        },
        manager.clone(),
    )
    .unwrap();
    jobs.put("a job".to_owned()).unwrap();
    done.set();
    assert_eq!(child.join().unwrap(), "a job");

    let again = Manager::connect(manager.address()).unwrap();
    assert!(again.queue::<String>("jobs", 2).unwrap().is_same(&jobs));
}

#[test]
fn every_kind_can_be_opened() {
    let _dog = watchdog();
    let (manager, other) = {
        let manager = Manager::start().unwrap();
        let other = Manager::connect(manager.address()).unwrap();
        (manager, other)
    };
    let tasks: JoinableQueue<u8> = manager.joinable_queue("tasks", None).unwrap();
    tasks.put(1).unwrap();
    other.joinable_queue::<u8>("tasks", None).unwrap().get().unwrap().task_done();
    tasks.join().unwrap();

    let guard_of = manager.lock("lock").unwrap();
    let guard = guard_of.lock().unwrap();
    assert!(other.lock("lock").unwrap().try_lock().is_err());
    drop(guard);
    drop(manager.rlock("rlock").unwrap().lock().unwrap());

    manager.semaphore("semaphore", 0).unwrap().release(2).unwrap();
    assert_eq!(other.semaphore("semaphore", 0).unwrap().value(), 2);
    let permits = manager.bounded_semaphore("permits", 2).unwrap();
    let _permit = permits.acquire();
    assert_eq!(other.bounded_semaphore("permits", 2).unwrap().available(), 1);

    let condition = manager.condition("condition").unwrap();
    assert_eq!(condition.notify(1), 0);
    manager.event("event").unwrap().set();
    assert!(other.event("event").unwrap().is_set());
    let barrier = manager.barrier("barrier", 2).unwrap();
    let clients = other.clone();
    let waits = thread::spawn(move || other.barrier("barrier", 2).unwrap().wait().unwrap());
    barrier.wait().unwrap();
    waits.join().unwrap();

    *manager.mutex("mutex", [1u32, 2]).unwrap().lock().unwrap() = [3, 4];
    assert_eq!(*clients.mutex("mutex", [0u32; 2]).unwrap().lock().unwrap(), [3, 4]);
    manager.shared::<f64>("table", 100).unwrap().set(99, 0.5);
    assert_eq!(clients.shared::<f64>("table", 100).unwrap().to_vec()[98..], [0.0, 0.5]);
    manager.atomic("number", 5).unwrap().fetch_add(1);
    assert_eq!(clients.atomic("number", 0).unwrap().load(), 6);

    let list = manager.list().unwrap();
    let line = |kind| list.iter().find(|info| info.kind == kind).unwrap();
    assert_eq!(list.len(), 11);
    assert_eq!(line(ObjectKind::Mutex).item_type.as_deref(), Some("[u32; 2]"));
    assert_eq!(
        (line(ObjectKind::Shared).capacity, line(ObjectKind::Atomic).length),
        (Some(100), 6)
    );
    assert_eq!(line(ObjectKind::JoinableQueue).capacity, None);
    assert_eq!(line(ObjectKind::Semaphore).length, 2);
    assert_eq!(line(ObjectKind::BoundedSemaphore).length, 1);
    assert_eq!(line(ObjectKind::BoundedSemaphore).capacity, Some(2));
    assert_eq!(line(ObjectKind::Event).length, 1);
    assert_eq!(line(ObjectKind::Barrier).capacity, Some(2));
}

#[test]
fn other_kind_type_or_capacity_is_a_mismatch() {
    mod one {
        #[derive(serde::Serialize, serde::Deserialize)]
        pub(crate) struct Item {
            pub(crate) id: u32,
        }
    }
    let _dog = watchdog();
    let manager = Manager::start().unwrap();
    manager.queue::<one::Item>("jobs", 2).unwrap();
    let other = Manager::connect(manager.address()).unwrap();

    let error = other.queue::<(u8, String)>("jobs", 2).unwrap_err();
    assert!(error.is_mismatch());
    let ManagerError::TypeMismatch { asked, is, .. } = error else { panic!("{error}") };
    assert_eq!(asked, "(u8, alloc::string::String)");
    assert_eq!(is, "Item");

    let error = other.queue::<one::Item>("jobs", 3).unwrap_err();
    assert!(matches!(error, ManagerError::CapacityMismatch { asked: Some(3), is: Some(2), .. }));
    let error = other.queue::<one::Item>("jobs", None).unwrap_err();
    assert!(matches!(error, ManagerError::CapacityMismatch { asked: None, is: Some(2), .. }));

    let error = other.joinable_queue::<one::Item>("jobs", 2).unwrap_err();
    let ManagerError::KindMismatch { asked, is, .. } = error else { panic!("{error}") };
    assert_eq!((asked, is), (ObjectKind::JoinableQueue, ObjectKind::Queue));

    manager.semaphore("s", 1).unwrap();
    let error = other.semaphore("s", 2).unwrap_err();
    assert!(matches!(error, ManagerError::CapacityMismatch { asked: Some(2), is: Some(1), .. }));
    manager.barrier("b", 1).unwrap();
    assert!(other.barrier("b", 2).unwrap_err().is_mismatch());
    assert!(other.lock("b").unwrap_err().is_mismatch());
    // The failed requests have changed nothing.
    other.queue::<one::Item>("jobs", 2).unwrap().put(one::Item { id: 1 }).unwrap();
    assert_eq!(manager.queue::<one::Item>("jobs", 2).unwrap().get().unwrap().id, 1);
}

/// Two versions of one type, as two programs may have them. Their names are the same.
#[test]
fn type_of_the_same_name_and_another_schema_is_a_mismatch() {
    let _dog = watchdog();
    let manager = Manager::start().unwrap();
    macro_rules! version {
        ($($fields:tt)*) => {{
            #[derive(Serialize, Deserialize)]
            #[allow(dead_code)]
            struct Item {
                $($fields)*
            }
            manager.queue::<Item>("items", 1).map(drop)
        }};
    }
    version!(id: u32,).unwrap();
    let error = version!(id: u32, text: String,).unwrap_err();
    let ManagerError::TypeMismatch { asked, is, .. } = &error else { panic!("{error}") };
    assert_eq!(asked, is);
}

#[test]
fn open_finds_existing_objects_of_any_capacity() {
    let _dog = watchdog();
    let manager = Manager::start().unwrap();
    let other = Manager::connect(manager.address()).unwrap();
    let jobs = manager.queue::<String>("jobs", 3).unwrap();
    assert!(other.open::<Queue<String>>("jobs").unwrap().is_same(&jobs));
    let producer: Producer<String> = other.open("jobs").unwrap();
    let consumer: Consumer<String> = other.open("jobs").unwrap();
    producer.put("a".to_owned()).unwrap();
    assert_eq!(consumer.get().unwrap(), "a");
    assert_eq!(consumer.capacity(), Some(3));

    let tasks = manager.joinable_queue::<u8>("tasks", None).unwrap();
    assert!(other.open::<JoinableQueue<u8>>("tasks").unwrap().is_same(&tasks));
    manager.semaphore("ready", 7).unwrap();
    assert_eq!(other.open::<Semaphore>("ready").unwrap().value(), 7);
    manager.mutex("best", 1.5f32).unwrap();
    assert!((*other.open::<Mutex<f32>>("best").unwrap().lock().unwrap() - 1.5).abs() < 1e-9);
    manager.shared::<u16>("table", 7).unwrap();
    assert_eq!(other.open::<Shared<u16>>("table").unwrap().len(), 7);
    manager.atomic("hits", 3).unwrap();
    assert_eq!(other.open::<Atomic>("hits").unwrap().load(), 3);
    assert_eq!(manager.list().unwrap().len(), 6);
}

#[test]
fn open_of_a_missing_object_names_those_of_its_kind() {
    let _dog = watchdog();
    let manager = Manager::start().unwrap();
    let missing = |name: &str| match manager.open::<Queue<u8>>(name).unwrap_err() {
        ManagerError::NoSuchObject { name, kind: ObjectKind::Queue, existing, others } => {
            (name, existing, others)
        }
        error => panic!("{error}"),
    };
    assert_eq!(missing("a"), ("a".to_owned(), vec![], 0));
    manager.lock("lock").unwrap();
    for n in 0..10 {
        manager.queue::<String>(&*format!("queue {n}"), n + 1).unwrap();
    }
    let (_, existing, others) = missing("b");
    assert_eq!((&*existing[0], existing.len(), others), ("queue 0", 8, 2));
    // Nothing was created.
    assert_eq!(manager.list().unwrap().len(), 11);
    assert!(matches!(manager.open::<Lock>(""), Err(ManagerError::InvalidName { .. })));
}

#[test]
fn open_of_another_kind_or_type_names_both() {
    let _dog = watchdog();
    let manager = Manager::start().unwrap();
    manager.queue::<u8>("jobs", 1).unwrap();
    let error = manager.open::<Producer<String>>("jobs").unwrap_err();
    let ManagerError::TypeMismatch { asked, is, .. } = error else { panic!("{error}") };
    assert_eq!((&*asked, &*is), ("alloc::string::String", "u8"));
    let error = manager.open::<Lock>("jobs").unwrap_err();
    let ManagerError::KindMismatch { asked, is, .. } = error else { panic!("{error}") };
    assert_eq!((asked, is), (ObjectKind::Lock, ObjectKind::Queue));

    manager.mutex("value", 1u64).unwrap();
    assert!(matches!(manager.open::<Mutex<i64>>("value"), Err(ManagerError::TypeMismatch { .. })));
    manager.shared::<u32>("table", 2).unwrap();
    assert!(manager.open::<Shared<[u16; 2]>>("table").unwrap_err().is_mismatch());
    let error = manager.shared::<u32>("table", 3).unwrap_err();
    assert!(matches!(error, ManagerError::CapacityMismatch { asked: Some(3), is: Some(2), .. }));
}

#[test]
fn limits_of_queues_are_set_and_compared() {
    let _dog = watchdog();
    let manager = Manager::start().unwrap();
    let tasks = || manager.joinable_queue_builder::<u8>("tasks");
    let made = tasks().capacity(5).max_bytes(1 << 16).max_attempts(3).build().unwrap();
    assert_eq!((made.capacity(), made.max_bytes(), made.max_attempts()), (Some(5), 1 << 16, 3));
    assert_eq!(made.name(), Some("tasks"));
    let info = &manager.list().unwrap()[0];
    assert_eq!((info.max_bytes, info.max_attempts), (Some(1 << 16), Some(3)));

    // What is not set is not compared.
    assert!(tasks().build().unwrap().is_same(&made));
    assert!(tasks().max_attempts(3).build().unwrap().is_same(&made));
    assert!(manager.joinable_queue::<u8>("tasks", 5).unwrap().is_same(&made));
    let error = tasks().capacity(6).build().unwrap_err();
    assert!(matches!(error, ManagerError::CapacityMismatch { asked: Some(6), is: Some(5), .. }));
    let error = tasks().max_bytes(7).build().unwrap_err();
    assert!(matches!(error, ManagerError::MaxBytesMismatch { asked: 7, is: 65536, .. }));
    let error = tasks().max_attempts(4).build().unwrap_err();
    assert!(matches!(error, ManagerError::MaxAttemptsMismatch { asked: 4, is: 3, .. }));

    // The defaults are compared as well.
    manager.queue::<u8>("jobs", 1).unwrap();
    let error = manager.queue_builder::<u8>("jobs").max_bytes(8).build().unwrap_err();
    assert!(matches!(error, ManagerError::MaxBytesMismatch { is, .. } if is == 8 << 30));
    let error = manager.queue_builder::<u8>("none").max_bytes(0).build().unwrap_err();
    assert!(matches!(error, ManagerError::Failed { .. }), "{error}");
    let nameless = manager.queue_builder::<u8>(None).capacity(2).max_bytes(99).build().unwrap();
    assert_eq!((nameless.capacity(), nameless.max_bytes()), (Some(2), 99));
}

#[test]
fn values_of_mutexes_may_have_up_to_16_kib() {
    let _dog = watchdog();
    let manager = Manager::start().unwrap();
    let largest = manager.mutex("largest", [7u64; 2048]).unwrap();
    assert_eq!(largest.lock().unwrap()[2047], 7);
    let error = manager.mutex("larger", [[7u64; 64]; 64]).unwrap_err();
    assert!(matches!(error, ManagerError::Failed { name: Some(_), .. }), "{error}");
    manager.mutex(None, [[7u64; 64]; 64]).unwrap();
    assert_eq!(manager.list().unwrap().len(), 1);
}

/// The memory of a table is taken when it is written, in the manager as well.
#[test]
fn large_table_takes_no_memory_in_the_manager() {
    let _dog = watchdog();
    let manager = Manager::start().unwrap();
    let table = manager.shared::<u64>("table", 1 << 30).unwrap();
    table.set((1 << 30) - 1, 5);
    assert_eq!(manager.open::<Shared<u64>>("table").unwrap().get((1 << 30) - 1), 5);
    let status = fs::read_to_string(format!("/proc/{}/status", process_of(&manager).pid()));
    let status = status.unwrap();
    let peak = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    let peak: usize = peak.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(peak < 100_000, "{peak} KiB");
    let error = manager.shared::<u64>("endless", usize::MAX).unwrap_err();
    assert!(matches!(error, ManagerError::Failed { .. }), "{error}");
}

/// The holder of a mutex dies, and so does the manager.
#[test]
fn killed_holder_of_a_named_mutex_yields_abandoned() {
    let _dog = watchdog();
    let manager = Manager::start().unwrap();
    let balance = manager.mutex("balance", 100u64).unwrap();
    let (locked, is_locked) = simplex::<()>().map(|(receiver, sender)| (sender, receiver)).unwrap();
    let holder = Process::spawn(
        |(manager, locked): (Manager, Sender<()>)| {
            let balance = manager.open::<Mutex<u64>>("balance").unwrap();
            let mut guard = balance.lock().unwrap();
            *guard = 0;
            locked.send(()).unwrap();
            thread::park();
        },
        (manager.clone(), locked),
    )
    .unwrap();
    is_locked.recv().unwrap();
    let info = manager.list().unwrap().remove(0);
    assert_eq!((info.holder, info.members, info.length), (Some(holder.pid()), 2, 1));
    let process = process_of(&manager);
    process.kill().unwrap();
    process.wait();
    holder.kill().unwrap();
    holder.wait();
    let abandoned = balance.lock().unwrap_err();
    assert_eq!(*abandoned.into_guard(), 100);
    assert_eq!(*balance.lock().unwrap(), 100);
}

#[test]
fn diagnosis_states_why_no_manager_answers() {
    let _dog = watchdog();
    let folder = Folder::new();
    let path = folder.path("socket");
    assert_eq!(Manager::diagnose(&path), Diagnosis::NoSuchPath);
    assert_eq!(Manager::diagnose(folder.path("a/b")), Diagnosis::NoSuchPath);
    fs::write(folder.path("file"), "").unwrap();
    assert_eq!(Manager::diagnose(folder.path("file")), Diagnosis::NotASocket);
    assert!(matches!(Manager::diagnose(folder.path("file/b")), Diagnosis::Unreachable(_)));
    let abstract_name = format!("@multiproc-test-diagnosis-{}", process::id());
    assert_eq!(Manager::diagnose(&*abstract_name), Diagnosis::NoSuchName);
    assert!(matches!(Manager::diagnose(&*"@x".repeat(100)), Diagnosis::Unreachable(_)));

    let manager = Manager::builder().address(&path).start().unwrap();
    assert_eq!(Manager::diagnose(&path), Diagnosis::Listening);
    assert_eq!(Manager::diagnose(manager.address()), Diagnosis::Listening);
    let process = process_of(&manager);
    process.kill().unwrap();
    process.wait();
    assert_eq!(Manager::diagnose(&path), Diagnosis::Stale);
    // A diagnosis takes no place at a manager.
    let manager = Manager::builder().max_clients(1).start().unwrap();
    for _ in 0..10 {
        assert_eq!(Manager::diagnose(manager.address()), Diagnosis::Listening);
    }
    manager.list().unwrap();
}

#[test]
fn diagnosis_names_both_users() {
    let _dog = watchdog();
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can be another user");
        return;
    }
    let folder = Folder::new();
    let path = folder.path("socket");
    let of_path = Manager::builder().address(&path).start().unwrap();
    let of_name = Manager::start().unwrap();
    let diagnose = |addresses: [Address; 2]| {
        become_another_user();
        let expected = Diagnosis::OtherUser { manager: 0, user: NOBODY };
        addresses.map(|address| Manager::diagnose(address) == expected)
    };
    let addresses = [of_path.address().clone(), of_name.address().clone()];
    let same = Process::spawn(diagnose, addresses).unwrap().join().unwrap();
    assert_eq!(same, [true, false]);
}

#[test]
fn nameless_objects_are_separate() {
    let manager = Manager::start().unwrap();
    let queue: Queue<u32> = manager.queue(None, 2).unwrap();
    queue.put(1).unwrap();
    assert_eq!(manager.queue::<u32>(None, 2).unwrap().len(), 0);
    assert!(manager.list().unwrap().is_empty());
    let child = Process::spawn(|queue: Queue<u32>| queue.get().unwrap(), queue).unwrap();
    assert_eq!(child.join().unwrap(), 1);
    let error = manager.barrier(None, 0).unwrap_err();
    assert!(matches!(error, ManagerError::Failed { name: None, .. }), "{error}");
}

#[test]
fn invalid_names_are_refused() {
    let manager = Manager::start().unwrap();
    for name in ["", "a\nb", "\u{1b}[2J", "zero\0", &"x".repeat(10 << 10)] {
        let error = manager.queue::<u8>(name, 1).unwrap_err();
        assert!(matches!(error, ManagerError::InvalidName { .. }), "{error}");
        assert!(error.to_string().len() < 300, "{error}");
        assert!(matches!(manager.remove(name), Err(ManagerError::InvalidName { .. })));
    }
    let longest = "ü".repeat(127);
    manager.lock(&longest).unwrap();
    manager.lock(String::from("a b/c\"d\"")).unwrap();
    assert_eq!(manager.list().unwrap()[0].name, longest);
    // And by a client without the library: the request is refused, the client lives.
    let error = manager.queue::<u8>("jobs", 0).unwrap_err();
    assert!(matches!(error, ManagerError::Failed { name: Some(_), .. }), "{error}");
}

#[test]
fn removed_object_stays_usable() {
    let manager = Manager::start().unwrap();
    let old = manager.queue::<u8>("jobs", 2).unwrap();
    manager.remove("jobs").unwrap();
    assert!(matches!(manager.remove("jobs"), Err(ManagerError::NoSuchName(_))));
    assert!(manager.list().unwrap().is_empty());
    let new = manager.queue::<u16>("jobs", 3).unwrap();
    old.put(1).unwrap();
    assert_eq!((old.len(), new.len()), (1, 0));
}

#[test]
fn list_counts_members_and_shows_waiters() {
    let _dog = watchdog();
    let manager = Manager::start().unwrap();
    let jobs = manager.queue::<u8>("jobs", 2).unwrap();
    let lock = manager.lock("lock").unwrap();
    let guard = lock.lock().unwrap();
    let child = Process::spawn(
        |(jobs, lock): (Queue<u8>, multiproc_sync::Lock)| {
            let waits = thread::spawn(move || drop(lock.lock()));
            let item = jobs.get().unwrap();
            waits.join().unwrap();
            item
        },
        (jobs.clone(), lock.clone()),
    )
    .unwrap();
    let info =
        |name: &str| manager.list().unwrap().into_iter().find(|info| info.name == name).unwrap();
    until(|| info("jobs").waiting && info("lock").waiting);
    assert_eq!((info("jobs").members, info("lock").members), (2, 2));
    assert_eq!(info("lock").holder, Some(process::id()));
    assert!(!info("jobs").waiting_to_put);
    drop(guard);
    jobs.put(7).unwrap();
    assert_eq!(child.join().unwrap(), 7);
    assert_eq!((info("jobs").members, info("jobs").put, info("jobs").got), (1, 1, 1));
    assert_eq!(info("lock").holder, None);

    // A killed process is not a member.
    let killed = Process::spawn(
        |(manager, ready): (Manager, Queue<()>)| {
            let _jobs = manager.queue::<u8>("jobs", 2).unwrap();
            ready.put(()).unwrap();
            thread::park();
        },
        (manager.clone(), manager.queue("ready", 1).unwrap()),
    )
    .unwrap();
    manager.queue::<()>("ready", 1).unwrap().get().unwrap();
    assert_eq!(info("jobs").members, 2);
    killed.kill().unwrap();
    killed.wait();
    until(|| info("jobs").members == 1);
}

#[test]
fn long_list_is_complete_and_limits_hold() {
    let manager = Manager::builder().max_objects(200).start().unwrap();
    let locks: Vec<_> = (0..200).map(|n| manager.event(&*format!("event {n}")).unwrap()).collect();
    let error = manager.lock("one more").unwrap_err();
    assert!(matches!(error, ManagerError::TooManyObjects(200)), "{error}");
    // Existing objects can be opened.
    manager.event("event 7").unwrap();
    let list = manager.list().unwrap();
    assert_eq!(list.len(), locks.len());
    assert!(list.iter().enumerate().all(|(n, info)| info.name == format!("event {n}")));
    manager.remove("event 7").unwrap();
    manager.lock("one more").unwrap();
}

#[test]
fn killed_manager_leaves_objects_usable() {
    let _dog = watchdog();
    let folder = Folder::new();
    let path = folder.path("socket");
    let manager = Manager::builder().address(&path).start().unwrap();
    let jobs = manager.queue::<u64>("jobs", 4).unwrap();
    let results = manager.queue::<u64>("results", 4).unwrap();
    let lock = manager.lock("lock").unwrap();
    let barrier = manager.barrier("barrier", 2).unwrap();
    let worker = Process::spawn(
        |manager: Manager| {
            let jobs = manager.queue::<u64>("jobs", 4).unwrap();
            let results = manager.queue::<u64>("results", 4).unwrap();
            let lock = manager.lock("lock").unwrap();
            let barrier = manager.barrier("barrier", 2).unwrap();
            for _ in 0..1000 {
                let job = jobs.get().unwrap();
                let _guard = lock.lock().unwrap();
                results.put(job * 2).unwrap();
            }
            barrier.wait().unwrap();
            manager.queue::<u64>("jobs", 4).unwrap_err().is_manager_gone()
        },
        manager.clone(),
    )
    .unwrap();
    for job in 0..1000 {
        if job == 500 {
            let process = process_of(&manager);
            process.kill().unwrap();
            process.wait();
        }
        jobs.put(job).unwrap();
        assert_eq!(results.get().unwrap(), job * 2);
        drop(lock.lock().unwrap());
    }
    // An observer is not a party of a barrier, and its death breaks nothing. (A sleeping waiter has
    // checked for deaths before.)
    until(|| barrier.waiting() == 1 && is_asleep(worker.pid()) || !worker.is_alive());
    barrier.wait().unwrap();
    assert!(worker.join().unwrap());
    for error in [
        manager.queue::<u64>("jobs", 4).unwrap_err(),
        manager.lock("new").unwrap_err(),
        manager.list().unwrap_err(),
        manager.remove("jobs").unwrap_err(),
        manager.shutdown().unwrap_err(),
    ] {
        assert!(error.is_manager_gone(), "{error}");
    }
    let error = Manager::connect(&path).unwrap_err();
    assert!(error.is_manager_gone(), "{error}");
    // Without a name, the manager is not involved.
    manager.queue::<u8>(None, 1).unwrap();

    // The file that it left does not keep another manager from starting, and the old handle finds
    // that one.
    assert!(path.exists());
    let next = Manager::builder().address(&path).start().unwrap();
    next.queue::<u8>("jobs", 1).unwrap();
    assert_eq!(manager.list().unwrap().len(), 1);
    // The end of the old one does not affect it.
    drop(manager);
    assert_eq!(next.list().unwrap().len(), 1);
    drop(next);
    assert!(!path.exists());
}

#[test]
fn manager_killed_at_any_time_is_reported_gone() {
    let _dog = watchdog();
    for round in 0..20 {
        let manager = Manager::start().unwrap();
        let process = process_of(&manager);
        let (started, starts) = mpsc::channel();
        let other = manager.clone();
        let asks = thread::spawn(move || {
            for number in 0u64.. {
                if number == round * 5 {
                    started.send(()).unwrap();
                }
                if let Err(error) = other.event(&*format!("{}", number % 100)) {
                    return error;
                }
            }
            unreachable!("it ends with an error");
        });
        starts.recv().unwrap();
        process.kill().unwrap();
        let error = asks.join().unwrap();
        assert!(error.is_manager_gone(), "{error}");
        process.wait();
        drop(manager);
    }
}

#[test]
fn manager_ends_with_its_starter_and_not_with_clients() {
    let _dog = watchdog();
    let manager = Manager::start().unwrap();
    let process = process_of(&manager);
    let other = Manager::connect(manager.address()).unwrap();
    assert!(active_children().iter().any(|child| child.name() == process.name()));
    drop(Manager::connect(manager.address()).unwrap());
    let clone = manager.clone();
    drop(manager);
    assert!(process.is_alive());
    other.list().unwrap();
    drop(clone);
    assert!(!process.is_alive());
    assert!(process.exit_status().unwrap().success());
    assert!(other.list().unwrap_err().is_manager_gone());
}

#[test]
fn manager_ends_when_its_parent_is_killed() {
    let _dog = watchdog();
    let folder = Folder::new();
    let path = folder.path("socket");
    let (told, tells) = duplex::<(), u32>().unwrap();
    let _ = &told;
    let parent = Process::spawn(
        |(tells, path): (Connection<u32, ()>, PathBuf)| {
            let manager = Manager::builder().address(path).start().unwrap();
            tells.send(process_of(&manager).pid()).unwrap();
            thread::park();
        },
        (tells.retype(), path.clone()),
    )
    .unwrap();
    let pid = told.retype::<(), u32>().recv().unwrap();
    let manager = Manager::connect(&path).unwrap();
    let queue = manager.queue::<u8>("jobs", 1).unwrap();
    parent.kill().unwrap();
    parent.wait();
    until(|| !fs::exists(format!("/proc/{pid}")).unwrap() || is_zombie(pid));
    // It had time to remove its file.
    assert!(!path.exists());
    assert!(manager.list().unwrap_err().is_manager_gone());
    queue.put(1).unwrap();
}

fn is_zombie(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z"))
}

#[test]
fn shutdown_ends_the_manager_for_all_clients() {
    let _dog = watchdog();
    let folder = Folder::new();
    let path = folder.path("socket");
    let manager = Manager::builder().address(&path).start().unwrap();
    let process = process_of(&manager);
    Manager::connect(&path).unwrap().shutdown().unwrap();
    assert!(!path.exists());
    process.wait();
    assert!(process.exit_status().unwrap().success());
    assert!(manager.lock("lock").unwrap_err().is_manager_gone());

    let manager = Manager::builder().address(&path).start().unwrap();
    manager.shutdown().unwrap();
    assert!(active_children().iter().all(|child| child.pid() != process.pid()));
    assert!(manager.shutdown().unwrap_err().is_manager_gone());
}

#[test]
fn unusable_addresses_are_errors() {
    let _dog = watchdog();
    let folder = Folder::new();
    let file = folder.path("file");
    fs::write(&file, "precious").unwrap();
    let error = Manager::builder().address(&file).start().unwrap_err();
    assert!(matches!(error, ManagerError::Io(_)), "{error}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
    assert!(Manager::connect(&file).unwrap_err().is_manager_gone());

    let path = folder.path("socket");
    let manager = Manager::builder().address(&path).start().unwrap();
    let error = Manager::builder().address(&path).start().unwrap_err();
    assert!(matches!(error, ManagerError::AddressInUse(_)), "{error}");
    assert!(manager.list().is_ok());
    drop(manager);
    assert!(Manager::connect(&path).unwrap_err().is_manager_gone());

    // What a killed manager leaves: a socket without a listener.
    drop(UnixListener::bind(&path).unwrap());
    assert!(Manager::connect(&path).unwrap_err().is_manager_gone());
    drop(Manager::builder().address(&path).start().unwrap());

    let long = folder.path(&"x".repeat(200));
    for address in [Address::path(long), Address::path(""), Address::path(folder.path("a/b"))] {
        let error = Manager::builder().address(&address).start().unwrap_err();
        assert!(matches!(error, ManagerError::Io(_)), "{error}");
    }
    assert!(Manager::builder().connect().unwrap_err().is_manager_gone());
}

const NOBODY: u32 = 65_534;

/// Makes the calling thread one of another user.
fn become_another_user() {
    let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    set_thread_res_gid(gid, gid, gid).unwrap();
    set_thread_res_uid(uid, uid, uid).unwrap();
}

/// Connects in a process of another user. Returns the error, or an empty string.
fn as_another_user(address: &Address) -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can be another user");
        return None;
    }
    let list = |address: Address| {
        become_another_user();
        let listed = Manager::connect(address).and_then(|manager| manager.list());
        listed.err().map(|error| error.to_string())
    };
    let error = Process::spawn(list, address.clone()).unwrap().join().unwrap();
    Some(error.unwrap_or_default())
}

#[test]
fn client_of_another_user_is_refused() {
    let _dog = watchdog();
    let manager = Manager::start().unwrap();
    let Some(error) = as_another_user(manager.address()) else { return };
    assert!(error.contains("as user 0") && error.contains("as user 65534"), "{error}");
    assert!(manager.list().is_ok());

    let allowing = Manager::builder().allow_user(NOBODY).start().unwrap();
    assert_eq!(as_another_user(allowing.address()).unwrap(), "");

    let folder = Folder::new();
    let path = folder.path("socket");
    let _manager = Manager::builder().address(&path).start().unwrap();
    let error = as_another_user(&Address::path(&path)).unwrap();
    assert!(error.to_lowercase().contains("permission denied"), "{error}");
}

/// A client does not trust a manager of another user.
#[test]
fn manager_of_another_user_is_not_trusted() {
    let _dog = watchdog();
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can be another user");
        return;
    }
    let address = format!("@multiproc-test-stranger-{}", process::id());
    let serve = |(address, ready): (String, Sender<()>)| {
        become_another_user();
        let builder = Manager::builder().address(&*address).allow_user(0);
        builder.serve(|_| ready.send(()).unwrap()).unwrap();
    };
    let (is_ready, ready) = simplex::<()>().unwrap();
    let server = Process::builder().daemon(true).spawn(serve, (address.clone(), ready)).unwrap();
    is_ready.recv().unwrap();
    let error = Manager::connect(&*address).unwrap_err();
    let both = ManagerError::NotAllowed { manager: NOBODY, user: 0 };
    assert_eq!(error.to_string(), both.to_string());
    let trusting = Manager::builder().address(&*address).allow_user(NOBODY).connect().unwrap();
    trusting.shutdown().unwrap();
    server.join().unwrap();
}

#[test]
fn other_protocol_version_is_reported() {
    let _dog = watchdog();
    let manager = Manager::start().unwrap();
    let mut client = bare(&manager);
    client.write_all(&greeting(99)).unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    // Its version, and the reason.
    assert_eq!(answer, frame(b"mp-mngr\0\x04\0\0\0\x01\0\0\0\0\0\0\0"));

    // The other way round: a manager of another version, whatever else it sends.
    let address = format!("@multiproc-test-version-{}", process::id());
    let listener = Listener::bind(&address).unwrap();
    let connects = thread::spawn(move || Manager::connect(&*address).unwrap_err());
    let client = listener.accept_without_hello::<(), ()>(None).unwrap();
    client.recv_bytes().unwrap();
    client.send_bytes(b"mp-mngr\0\x63\0\0\0\x09\x09\x09\x09!").unwrap();
    let error = connects.join().unwrap();
    assert!(matches!(error, ManagerError::Version { ours: VERSION, theirs: 99 }), "{error}");
}

#[test]
fn other_server_is_not_a_manager() {
    let _dog = watchdog();
    let address = format!("@multiproc-test-other-{}", process::id());
    let listener = Listener::bind(&address).unwrap();
    let answers: [&[u8]; 4] = [b"HTTP/1.1 400 Bad Request\r\n\r\n", &[0; 32], &[0xff; 64], b"x"];
    for answer in answers {
        let address = address.clone();
        let connects = thread::spawn(move || Manager::connect(&*address).unwrap_err());
        let client = listener.accept_without_hello::<(), ()>(None).unwrap();
        let mut socket = UnixStream::from(std::os::fd::OwnedFd::from(client));
        socket.write_all(answer).unwrap();
        socket.shutdown(std::net::Shutdown::Write).unwrap();
        let error = connects.join().unwrap();
        let is_right = matches!(error, ManagerError::NotAManager | ManagerError::ManagerGone);
        assert!(is_right, "{error:?}");
    }
    // One that accepts the client, and then sends invalid data.
    let connects = thread::spawn({
        let address = address.clone();
        move || Manager::connect(&*address).unwrap().list().unwrap_err()
    });
    let client = listener.accept_without_hello::<(), ()>(None).unwrap();
    client.recv_bytes().unwrap();
    client.send_bytes(b"mp-mngr\0\x04\0\0\0\0\0\0\0\0\0\0\0").unwrap();
    client.recv_bytes().unwrap();
    client.send_bytes(&[0xee; 100]).unwrap();
    let error = connects.join().unwrap();
    assert!(matches!(error, ManagerError::Failed { .. }), "{error:?}");
}

/// Pseudo-random bytes from a seed.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..length).map(|_| next()).collect()
}

#[test]
fn hostile_clients_affect_no_other_client() {
    let _dog = watchdog();
    let manager = Manager::start().unwrap();
    let jobs = manager.queue::<u64>("jobs", 4).unwrap();
    for (seed, length) in (0..300).zip((0..).map(|n| 1 + n * 37 % 6000)) {
        // Before and after it was accepted: bare noise, and noise in a frame.
        let mut client = if seed % 2 == 0 { bare(&manager) } else { welcome(&manager) };
        let bytes = noise(seed, length);
        let bytes = if seed % 3 == 0 { frame(&bytes[..bytes.len().min(4096)]) } else { bytes };
        let _ = client.write_all(&bytes);
        if seed % 5 == 0 {
            let _ = client.shutdown(std::net::Shutdown::Write);
            assert_dropped(client);
        }
        assert_eq!(manager.queue::<u64>("jobs", 4).unwrap().len(), 0);
    }
    // A length that exceeds all memory; descriptors that do not arrive.
    for header in
        [[0xff; 12], [0, 0, 0, 0, 0, 0, 0, 0x40, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0]]
    {
        let mut client = welcome(&manager);
        client.write_all(&header).unwrap();
        assert_dropped(client);
    }
    assert!(jobs.is_empty() && manager.list().unwrap().len() == 1);
    let memory =
        fs::read_to_string(format!("/proc/{}/status", process_of(&manager).pid())).unwrap();
    let peak = memory.lines().find(|line| line.starts_with("VmHWM")).unwrap().to_owned();
    let peak: usize = peak.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(peak < 200_000, "{peak} KiB");
}

/// Each thing that a client may do halfway. Other clients are served meanwhile.
#[test]
fn slow_and_silent_clients_are_dropped() {
    let _dog = watchdog();
    let manager = Manager::start().unwrap();
    let silent = bare(&manager);
    let mut half_greeting = bare(&manager);
    half_greeting.write_all(&greeting(VERSION)[..13]).unwrap();
    let mut half_request = welcome(&manager);
    half_request.write_all(&frame(&[0; 100])[..40]).unwrap();
    let idle = welcome(&manager);
    let start = Instant::now();
    // It does not read its answers, which are long lists.
    for n in 0..64 {
        manager.event(&*format!("event {n}")).unwrap();
    }
    let mut deaf = welcome(&manager);
    deaf.set_write_timeout(Some(Duration::from_secs(60))).unwrap();
    let list = frame(b"\x01\0");
    while deaf.write_all(&list).is_ok() {}

    manager.lock("lock").unwrap();
    assert!(start.elapsed() < Duration::from_secs(60));
    for client in [silent, half_greeting, half_request] {
        assert_dropped(client);
    }
    assert!(start.elapsed() >= Duration::from_secs(4));
    // A client that was accepted may be idle.
    idle.set_nonblocking(true).unwrap();
    let error = (&idle).read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    idle.set_nonblocking(false).unwrap();
    (&idle).write_all(&list).unwrap();
    (&idle).read_exact(&mut [0; 12]).unwrap();
}

#[test]
fn client_killed_during_a_request_affects_no_other_client() {
    let _dog = watchdog();
    let manager = Manager::start().unwrap();
    let jobs = manager.queue::<u32>("jobs", 1).unwrap();
    for round in 0..30u64 {
        let (tells, told) = multiproc_pipe::simplex::<()>().unwrap();
        let client = Process::spawn(
            |(manager, told): (Manager, multiproc_pipe::Sender<()>)| {
                for n in 0.. {
                    manager.queue::<u32>("jobs", 1).unwrap();
                    if n == 3 {
                        told.send(()).unwrap();
                    }
                }
            },
            (manager.clone(), told),
        )
        .unwrap();
        tells.recv().unwrap();
        thread::sleep(Duration::from_micros(round * 37));
        client.kill().unwrap();
        client.wait();
        jobs.put(1).unwrap();
        assert_eq!(manager.queue::<u32>("jobs", 1).unwrap().get().unwrap(), 1);
    }
    assert_eq!(manager.list().unwrap()[0].members, 1);
}

#[test]
fn thousand_clients_at_once() {
    alone(|()| {
        let mut limit = getrlimit(Resource::Nofile);
        limit.current = limit.maximum;
        setrlimit(Resource::Nofile, limit).unwrap();
        if limit.current.is_some_and(|most| most < 2500) {
            eprintln!("skipped: a thousand clients need 2500 descriptors (ulimit -Hn)");
            return;
        }
        let manager = Manager::start().unwrap();
        let clients: Vec<_> =
            (0..1000).map(|_| Manager::connect(manager.address()).unwrap()).collect();
        let jobs = manager.queue::<usize>("jobs", 1000).unwrap();
        // All of them, in reverse order.
        for (number, client) in clients.iter().enumerate().rev() {
            client.queue::<usize>("jobs", 1000).unwrap().put(number).unwrap();
        }
        assert_eq!(jobs.get_many(1000).unwrap().len(), 128);
        let silent: Vec<_> = (0..100).map(|_| bare(&manager)).collect();
        assert!(clients.iter().all(|client| client.list().unwrap().len() == 1));
        drop(silent);
    });
}

#[test]
fn client_over_the_limit_is_refused() {
    let _dog = watchdog();
    let manager = Manager::builder().max_clients(2).start().unwrap();
    let other = Manager::connect(manager.address()).unwrap();
    for _ in 0..20 {
        let error = Manager::connect(manager.address()).unwrap_err();
        assert!(matches!(error, ManagerError::TooManyClients(2)), "{error}");
    }
    drop(other);
    until(|| Manager::connect(manager.address()).is_ok());
}

#[test]
fn stopped_manager_times_out() {
    let _dog = watchdog();
    let manager = Manager::start().unwrap();
    let jobs = manager.queue::<u8>("jobs", 1).unwrap();
    let process = process_of(&manager);
    let pid = Pid::from_raw(process.pid().try_into().unwrap()).unwrap();
    let stop = || {
        kill_process(pid, Signal::STOP).unwrap();
        let path = format!("/proc/{}/stat", process.pid());
        until(|| fs::read_to_string(&path).unwrap().contains(") T "));
    };
    stop();
    jobs.put(1).unwrap();
    let error = manager.lock("lock").unwrap_err();
    assert!(matches!(error, ManagerError::NoAnswer), "{error}");
    kill_process(pid, Signal::CONT).unwrap();
    manager.lock("lock").unwrap();
    // Stopped again, it is killed in the end.
    stop();
    drop(manager);
    assert!(!process.is_alive());
}

#[test]
fn idle_manager_uses_no_cpu() {
    let _dog = watchdog();
    let manager = Manager::start().unwrap();
    let jobs = manager.queue::<u8>("jobs", 1).unwrap();
    let clients: Vec<_> = (0..10).map(|_| Manager::connect(manager.address()).unwrap()).collect();
    let pid = process_of(&manager).pid();
    until(|| is_asleep(pid));
    // Clock ticks in user and kernel mode, and the number of voluntary context switches, which is
    // how often it woke.
    let used = || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let fields: Vec<_> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("voluntary_ctxt")).unwrap();
        (ticks, line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap())
    };
    // The deadlines of the new connections pass meanwhile, once.
    let before = used();
    thread::sleep(Duration::from_secs(1));
    let after = used();
    assert!(after.0 <= before.0 + 1, "{before:?} {after:?}");
    assert!(after.1 <= before.1 + 2, "{before:?} {after:?}");
    // Work with its objects does not involve it.
    for _ in 0..10_000 {
        jobs.put(1).unwrap();
        jobs.get().unwrap();
    }
    assert!(used().1 <= after.1 + 2);
    drop(clients);
}

#[test]
fn ended_manager_leaves_nothing_behind() {
    alone(|()| {
        let folder = Folder::new();
        let round = || {
            let manager = Manager::builder().address(folder.path("socket")).start().unwrap();
            let other = Manager::connect(manager.address()).unwrap();
            let jobs = other.queue::<u8>("jobs", 1).unwrap();
            manager.joinable_queue::<u8>("tasks", None).unwrap().put(1).unwrap();
            manager.queue::<u16>("jobs", 1).unwrap_err();
            jobs.put(1).unwrap();
            other.open::<Producer<u8>>("jobs").unwrap().put_timeout(2, Duration::ZERO).unwrap_err();
            other.open::<Queue<u16>>("jobs").unwrap_err();
            other.open::<Lock>("no lock").unwrap_err();
            manager.mutex("mutex", 1u64).unwrap();
            manager.shared::<u8>("table", 1 << 20).unwrap();
            manager.atomic("number", 1).unwrap();
            assert_eq!(Manager::diagnose(folder.path("socket")), Diagnosis::Listening);
            assert_eq!(Manager::diagnose(folder.path("none")), Diagnosis::NoSuchPath);
        };
        // What is set up once.
        round();
        let before = Census::take();
        for _ in 0..20 {
            round();
        }
        assert_eq!(Census::take(), before);
        assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 0);
    });
}

#[test]
fn removed_objects_and_clients_leave_nothing_in_the_manager() {
    let _dog = watchdog();
    let manager = Manager::start().unwrap();
    let pid = process_of(&manager).pid();
    let descriptors = || fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let before = {
        manager.list().unwrap();
        descriptors()
    };
    for n in 0..200 {
        let client = Manager::connect(manager.address()).unwrap();
        client.queue::<u8>(&*format!("queue {n}"), 1).unwrap();
        client.queue::<u16>(&*format!("queue {n}"), 1).unwrap_err();
        drop(client.open::<Consumer<u8>>(&format!("queue {n}")).unwrap());
        client.open::<Lock>(&format!("queue {n}")).unwrap_err();
        client.mutex("mutex", n).unwrap();
        client.shared::<u8>("table", 1 << 20).unwrap();
        client.remove("mutex").unwrap();
        client.remove("table").unwrap();
        client.remove(&format!("queue {n}")).unwrap();
    }
    manager.list().unwrap();
    until(|| descriptors() == before);
}

/// Threads of one process take turns on one connection.
#[test]
fn handle_can_be_used_by_many_threads() {
    let _dog = watchdog();
    let manager = Manager::start().unwrap();
    thread::scope(|scope| {
        for number in 0..8 {
            let manager = &manager;
            scope.spawn(move || {
                for _ in 0..50 {
                    let name = format!("queue {number}");
                    manager.queue::<u32>(&name, 1).unwrap().put(number).unwrap();
                    assert_eq!(manager.queue::<u32>(&name, 1).unwrap().get().unwrap(), number);
                }
            });
        }
    });
}

/// A connection of the layer below, to see the bytes.
#[test]
fn requests_of_other_programs_are_checked() {
    let _dog = watchdog();
    let manager = Manager::start().unwrap();
    let client: Connection<(), ()> =
        connect_without_hello(manager.address(), Duration::MAX).unwrap();
    client.send_bytes(b"mp-mngr\0\x04\0\0\0").unwrap();
    client.recv_bytes().unwrap();
    // Open { name: "\n", kind: Lock, no item, number, limits or value; creates }: refused for its
    // name.
    client.send_bytes(b"\0\x01\n\x02\0\0\0\0\0\x01").unwrap();
    assert_eq!(client.recv_bytes().unwrap(), b"\x03\0");
    // A lock with a valid name is opened.
    client.send_bytes(b"\0\x01x\x02\0\0\0\0\0\x01").unwrap();
    assert_eq!(client.recv_bytes().unwrap()[0], 0);
    assert_eq!(manager.list().unwrap()[0].name, "x");
    // A mutex without a value, and a table whose size exceeds the address space: the one is opened,
    // and cannot be used as a mutex of any type; the other is refused.
    client.send_bytes(b"\0\x01m\x09\0\0\0\0\0\x01").unwrap();
    assert_eq!(client.recv_bytes().unwrap()[0], 0);
    let table = b"\0\x01t\x0a\0\0\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\0\0\x01";
    client.send_bytes(table).unwrap();
    assert_eq!(client.recv_bytes().unwrap()[0], 3);
    assert!(manager.open::<Mutex<u8>>("m").unwrap_err().is_mismatch());
    assert!(manager.open::<Shared<u8>>("t").unwrap_err().is_no_such_name());
}
