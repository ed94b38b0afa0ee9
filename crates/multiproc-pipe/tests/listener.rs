//! Listeners and their clients.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use multiproc::Process;
use multiproc_pipe::{
    Address, Bytes, Connection, Descriptor, Listener, Receiver, Sender, connect, connect_timeout,
    duplex, simplex, wait,
};
use multiproc_testkit::{Census, alone, until, watchdog};
use serde::{Deserialize, Serialize};

multiproc::enable_in_tests!();

/// A name that no other test and no other run has.
fn unique() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("multiproc-test-{}-{next}", std::process::id())
}

fn name() -> Address {
    Address::abstract_name(unique())
}

/// A directory that is removed at the end of the test.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        let path = std::env::temp_dir().join(unique());
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn is_empty(&self) -> bool {
        fs::read_dir(&self.0).unwrap().next().is_none()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn both_sides_exchange_values_and_credentials() {
    let _dog = watchdog();
    let directory = Directory::new();
    for address in [name(), Address::from(directory.path("socket"))] {
        let listener = Listener::bind(&address).unwrap();
        assert_eq!(listener.local_address(), &address);
        let child = Process::spawn(
            |address: Address| {
                let parent: Connection<String, Vec<Descriptor>> = connect(&address).unwrap();
                parent.send("hello".to_owned()).unwrap();
                assert_eq!(parent.recv().unwrap().len(), 2);
                parent.peer().unwrap().pid
            },
            address,
        )
        .unwrap();
        let client: Connection<Vec<Descriptor>, String> = listener.accept().unwrap();
        let peer = client.peer().unwrap();
        assert_eq!(peer.pid, child.pid());
        assert_eq!(peer.uid, rustix::process::geteuid().as_raw());
        assert_eq!(peer.gid, rustix::process::getegid().as_raw());
        assert_eq!(client.recv().unwrap(), "hello");
        let null = || File::open("/dev/null").unwrap().into();
        client.send(vec![null(), null()]).unwrap();
        assert_eq!(child.join().unwrap(), std::process::id());
        assert!(client.recv().unwrap_err().is_disconnected());
    }
    assert!(directory.is_empty());
}

#[test]
fn file_is_private_and_removed_with_its_listener() {
    let directory = Directory::new();
    let path = directory.path("socket");
    let listener = Listener::bind(&path).unwrap();
    assert_eq!(mode(&path), 0o600);
    let debug = format!("{listener:?}");
    assert!(debug.contains("Listener { fd: ") && debug.contains("/socket)"), "{debug}");
    drop(listener);
    assert!(directory.is_empty());
    let listener = Listener::builder().allow_user(12345).bind(&path).unwrap();
    assert_eq!(mode(&path), 0o666);
    drop(listener);
    let listener = Listener::builder().allow_everyone().bind(&path).unwrap();
    assert_eq!(mode(&path), 0o666);
    fs::remove_file(&path).unwrap();
    drop(listener); // whose file is gone already
}

#[test]
fn invalid_addresses_are_refused() {
    let directory = Directory::new();
    let room = 107 - directory.path("").as_os_str().len();
    let fits = directory.path(&"x".repeat(room));
    let listener = Listener::bind(&fits).unwrap();
    connect::<(), ()>(&fits).unwrap();
    drop(listener);
    assert!(directory.is_empty());
    Listener::bind(Address::abstract_name("n".repeat(80) + &unique())).unwrap();

    let long = directory.path(&"x".repeat(room + 1));
    for (address, parts) in [
        (Address::from(&long), ["107 bytes at most", "108 bytes"]),
        (Address::abstract_name("n".repeat(200)), ["107 bytes at most", "200 bytes"]),
        (Address::from(""), ["path", "empty"]),
        (Address::from("@"), ["abstract name", "empty"]),
        (Address::from("a\0b"), ["path", "3 bytes with a zero"]),
    ] {
        for error in
            [Listener::bind(&address).unwrap_err(), connect::<(), ()>(&address).unwrap_err()]
        {
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            let text = error.to_string();
            assert!(parts.iter().all(|part| text.contains(part)), "{text}");
        }
    }
    assert!(directory.is_empty());
}

#[test]
fn addresses_are_parsed_and_printed() {
    assert_eq!(Address::from("\0name"), Address::abstract_name("name"));
    assert_eq!(Address::from("@name".to_owned()), Address::abstract_name("name"));
    assert_eq!(Address::from(Path::new("@name")), Address::path("@name"));
    assert_eq!(Address::path("@name").as_path(), Some(Path::new("@name")));
    assert_eq!(Address::from("@name").as_path(), None);
    assert_eq!(Address::abstract_name([b'a', 0, 0xff]).to_string(), "@a\\x00\\xff");
    assert_eq!(format!("{:?}", Address::from("/a/b")), "Address(/a/b)");
}

#[test]
fn connect_without_a_listener_names_the_address() {
    let directory = Directory::new();
    let path = directory.path("socket");
    let error = connect::<(), ()>(&path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    let error = connect_timeout::<(), ()>(name(), Duration::MAX).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    drop(UnixListener::bind(&path).unwrap());
    assert_eq!(connect::<(), ()>(&path).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    let error = Listener::bind(directory.path("no/socket")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[test]
fn accept_timeout_expires() {
    let _dog = watchdog();
    let address = name();
    let listener = Listener::bind(&address).unwrap();
    assert_eq!(listener.try_accept::<(), ()>().unwrap_err().kind(), ErrorKind::WouldBlock);
    let start = Instant::now();
    let timeout = Duration::from_millis(20);
    let error = listener.accept_timeout::<(), ()>(timeout).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert!(start.elapsed() >= timeout);
    assert!(wait([&listener], Some(Duration::ZERO)).unwrap().is_empty());
    let mut clients = Vec::new();
    for n in 0..3_u8 {
        let client: Connection<u8, ()> = connect(&address).unwrap();
        client.send(n).unwrap();
        clients.push(client);
    }
    assert_eq!(wait([&listener], None).unwrap(), [0]);
    assert_eq!(listener.try_accept::<(), u8>().unwrap().recv().unwrap(), 0);
    let next = listener.accept_timeout::<(), u8>(Duration::MAX).unwrap();
    assert_eq!(next.recv().unwrap(), 1);
    let next = listener.incoming::<(), u8>().next().unwrap().unwrap();
    assert_eq!(next.recv().unwrap(), 2);
}

#[test]
fn full_backlog_times_connect_out() {
    let _dog = watchdog();
    let directory = Directory::new();
    let path = directory.path("socket");
    let socket = UnixListener::bind(&path).unwrap();
    rustix::net::listen(&socket, 0).unwrap(); // room for one
    let first: Connection<u8, ()> = connect_timeout(&path, Duration::ZERO).unwrap();
    for timeout in [Duration::ZERO, Duration::from_millis(20)] {
        let start = Instant::now();
        let error = connect_timeout::<(), ()>(&path, timeout).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(start.elapsed() >= timeout && start.elapsed() < Duration::from_secs(10));
    }
    // One without a time limit gets in when there is room; and its sends are not limited either.
    let second = {
        let path = path.clone();
        thread::spawn(move || connect::<u8, ()>(&path).unwrap())
    };
    let listener = Listener::from_fd(socket.into()).unwrap();
    let accepted = listener.accept::<(), u8>().unwrap();
    first.send(1).unwrap();
    assert_eq!(accepted.recv().unwrap(), 1);
    let second = second.join().unwrap();
    let accepted = listener.accept::<(), u8>().unwrap();
    second.send(2).unwrap();
    assert_eq!(accepted.recv().unwrap(), 2);
    assert_eq!(listener.local_address(), &Address::from(&path));
    drop(listener);
    assert!(path.exists(), "one that came from elsewhere leaves its file alone");
    let descriptor = OwnedFd::from(Listener::bind(&path).unwrap());
    let listener = Listener::from_fd(descriptor).unwrap();
    connect::<(), ()>(&path).unwrap();
    listener.try_accept::<(), ()>().unwrap();
}

#[test]
fn connection_of_connect_timeout_sends_without_a_timeout() {
    use rustix::net::sockopt::{Timeout, socket_timeout};
    let address = name();
    let _listener = Listener::bind(&address).unwrap();
    let client = connect_timeout::<u8, u8>(&address, Duration::from_millis(50)).unwrap();
    assert_eq!(socket_timeout(&client, Timeout::Send).unwrap(), None);
    assert_eq!(socket_timeout(&client, Timeout::Recv).unwrap(), None);
}

#[test]
fn address_in_use_is_refused() {
    let _dog = watchdog();
    let directory = Directory::new();
    for address in [name(), Address::from(directory.path("socket"))] {
        let listener = Listener::bind(&address).unwrap();
        let error = Listener::bind(&address).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        // It has not even heard of that.
        assert_eq!(listener.try_accept::<(), ()>().unwrap_err().kind(), ErrorKind::WouldBlock);
        connect::<(), ()>(&address).unwrap();
        listener.accept::<(), ()>().unwrap();
    }
    // Sockets that are alive in another way are, too.
    let path = directory.path("bound");
    let _datagrams = UnixDatagram::bind(&path).unwrap();
    assert_eq!(Listener::bind(&path).unwrap_err().kind(), ErrorKind::AddrInUse);
    let path = directory.path("not listening");
    let socket = rustix::net::socket(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::STREAM,
        None,
    )
    .unwrap();
    rustix::net::bind(&socket, &rustix::net::SocketAddrUnix::new(&path).unwrap()).unwrap();
    assert_eq!(Listener::bind(&path).unwrap_err().kind(), ErrorKind::AddrInUse);
}

#[test]
fn file_that_is_no_socket_is_left_alone() {
    let directory = Directory::new();
    let path = directory.path("file");
    fs::write(&path, "precious").unwrap();
    let error = Listener::bind(&path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");

    let stale = directory.path("stale");
    drop(UnixListener::bind(&stale).unwrap());
    let link = directory.path("link");
    symlink(&stale, &link).unwrap();
    assert_eq!(Listener::bind(&link).unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert!(link.is_symlink() && stale.exists());
    assert!(Listener::bind(directory.path("")).is_err());
}

#[test]
fn file_of_a_killed_listener_is_replaced() {
    let _dog = watchdog();
    let directory = Directory::new();
    let path = directory.path("socket");
    let (reader, writer) = simplex::<()>().unwrap();
    let child = Process::spawn(
        |(path, ready): (PathBuf, Sender<()>)| {
            let _listener = Listener::bind(&path).unwrap();
            ready.send(()).unwrap();
            thread::park();
        },
        (path.clone(), writer),
    )
    .unwrap();
    reader.recv().unwrap();
    let waiting: Connection<(), ()> = connect(&path).unwrap();
    assert_eq!(Listener::bind(&path).unwrap_err().kind(), ErrorKind::AddrInUse);
    child.kill().unwrap();
    child.wait();
    assert!(waiting.recv().unwrap_err().is_disconnected());
    assert!(path.exists());
    let listener = Listener::bind(&path).unwrap();
    assert_eq!(mode(&path), 0o600);
    connect::<(), ()>(&path).unwrap();
    listener.accept::<(), ()>().unwrap();
    drop(listener);
    assert!(directory.is_empty());
}

/// However many find the dead one at once, one of them gets the place, and keeps it.
#[test]
fn one_of_many_listeners_replaces_the_file() {
    let _dog = watchdog();
    let directory = Directory::new();
    let path = directory.path("socket");
    for _ in 0..200 {
        drop(UnixListener::bind(&path).unwrap());
        let start = Arc::new(Barrier::new(8));
        let binders: Vec<_> = (0..8)
            .map(|_| {
                let (start, path) = (Arc::clone(&start), path.clone());
                thread::spawn(move || {
                    start.wait();
                    Listener::bind(&path)
                })
            })
            .collect();
        let results: Vec<_> = binders.into_iter().map(|binder| binder.join().unwrap()).collect();
        for error in results.iter().filter_map(|result| result.as_ref().err()) {
            assert_eq!(error.kind(), ErrorKind::AddrInUse, "{error}");
        }
        let winners: Vec<_> = results.into_iter().filter_map(Result::ok).collect();
        assert_eq!(winners.len(), 1);
        connect::<(), ()>(&path).unwrap();
        winners[0].try_accept::<(), ()>().unwrap();
        drop(winners);
        assert!(directory.is_empty());
    }
}

#[test]
fn directory_lock_held_by_another_is_an_error() {
    let _dog = watchdog();
    let directory = Directory::new();
    let path = directory.path("socket");
    let held = File::open(&directory.0).unwrap();
    rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).unwrap();
    drop(Listener::bind(&path).unwrap()); // a free path needs no lock
    drop(UnixListener::bind(&path).unwrap());
    let error = Listener::bind(&path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    drop(held);
    Listener::bind(&path).unwrap();
}

#[test]
fn file_of_another_listener_is_not_removed() {
    let directory = Directory::new();
    let path = directory.path("socket");
    let first = Listener::bind(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let second = Listener::bind(&path).unwrap();
    drop(first);
    connect::<(), ()>(&path).unwrap();
    fs::remove_file(&path).unwrap();
    fs::write(&path, "a file").unwrap();
    drop(second);
    assert_eq!(fs::read_to_string(&path).unwrap(), "a file");
}

#[test]
fn sent_listener_keeps_its_file() {
    let _dog = watchdog();
    let directory = Directory::new();
    let path = directory.path("socket");
    let listener = Listener::bind(&path).unwrap();
    let (reader, writer) = simplex::<()>().unwrap();
    let child = Process::spawn(
        |(listener, go): (Listener, Receiver<()>)| {
            listener.accept::<u8, ()>().unwrap().send(1).unwrap();
            go.recv().unwrap();
        },
        (listener, reader),
    )
    .unwrap();
    assert!(path.exists(), "what is left of it here has removed nothing");
    assert_eq!(connect::<(), u8>(&path).unwrap().recv().unwrap(), 1);
    writer.send(()).unwrap();
    child.join().unwrap();
    assert!(directory.is_empty());

    // One that comes back is as before.
    let listener = Listener::bind(&path).unwrap();
    let (mail, mailbox) = duplex::<Listener, ()>().unwrap();
    drop(mailbox);
    let listener = mail.send(listener).unwrap_err().into_inner();
    connect::<(), ()>(&path).unwrap();
    listener.accept::<(), ()>().unwrap();
    drop(listener);
    assert!(directory.is_empty());
}

#[test]
fn relative_path_is_removed_after_a_change_of_directory() {
    alone(|()| {
        let directory = Directory::new();
        std::env::set_current_dir(&directory.0).unwrap();
        let first = Listener::bind("./first").unwrap();
        let second = Listener::bind("second").unwrap();
        let (mail, mailbox) = duplex::<Listener, ()>().unwrap();
        mail.send(second).unwrap();
        std::env::set_current_dir("/").unwrap();
        let second = mailbox.recv().unwrap();
        assert!(directory.path("first").exists() && directory.path("second").exists());
        drop((first, second));
        assert!(directory.is_empty());
    });
}

/// A message that claims a file which is not the socket's must not make anybody remove it.
#[test]
fn forged_file_of_a_sent_listener_is_refused() {
    #[derive(Serialize, Deserialize)]
    enum Guests {
        Users(Vec<u32>),
        Everyone,
    }
    type Forged = (Descriptor, Guests, Option<(Bytes, u64, u64)>);
    let directory = Directory::new();
    let path = directory.path("socket");
    let _victim = Listener::bind(&path).unwrap();
    let (mail, mailbox) = duplex::<Forged, ()>().unwrap();
    let mailbox = mailbox.retype::<(), Listener>();
    let socket = |name: &str| {
        let listener = UnixListener::bind(directory.path(name)).unwrap();
        Descriptor(OwnedFd::from(listener))
    };
    let inode = std::os::unix::fs::MetadataExt::ino(&fs::metadata(&path).unwrap());
    let device = std::os::unix::fs::MetadataExt::dev(&fs::metadata(&path).unwrap());
    let claimed = Bytes(path.to_str().unwrap().as_bytes().to_vec());
    mail.send((socket("other"), Guests::Everyone, Some((claimed, device, inode)))).unwrap();
    let error = mailbox.recv().unwrap_err().to_string();
    assert!(error.contains("not its own"), "{error}");
    let (stream, _end) = UnixStream::pair().unwrap();
    mail.send((Descriptor(stream.into()), Guests::Users(Vec::new()), None)).unwrap();
    let error = mailbox.recv().unwrap_err().to_string();
    assert!(error.contains("expected a Unix stream socket that listens"), "{error}");
    assert!(path.exists());
}

/// Another user: needs a process that may become one.
#[test]
fn other_users_connect_only_if_allowed() {
    const NOBODY: u32 = 65534;
    const OTHER: u32 = 65533;
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can become another user");
        return;
    }
    /// Connects as another user, sends 7, and returns the result.
    fn visit((address, uid): (Address, u32)) -> String {
        rustix::thread::set_thread_uid(rustix::process::Uid::from_raw(uid)).unwrap();
        let connected = connect::<u8, String>(&address);
        let answer = connected.map(|server| {
            let sent = server.send(7).map_err(|error| error.to_string());
            sent.and_then(|()| server.recv().map_err(|error| error.to_string()))
        });
        match answer {
            Err(error) => format!("{:?}", error.kind()),
            Ok(Err(error)) => error,
            Ok(Ok(answer)) => answer,
        }
    }
    let _dog = watchdog();
    let directory = Directory::new();
    let path = Address::from(directory.path("socket"));

    let private = Listener::bind(&path).unwrap();
    let visitor = Process::spawn(visit, (path.clone(), NOBODY)).unwrap();
    assert_eq!(visitor.join().unwrap(), "PermissionDenied");
    drop(private);

    let abstract_name = name();
    for address in [abstract_name, path] {
        let listener = Listener::builder().allow_user(NOBODY).bind(&address).unwrap();
        let refused = Process::spawn(visit, (address.clone(), OTHER)).unwrap();
        let refused = refused_while_waiting(&listener, refused);
        assert!(refused.contains("the other side is gone"), "{refused}");
        // It is turned away without an end to waiting; who may, gets in behind it.
        let visitor = Process::spawn(visit, (address.clone(), NOBODY)).unwrap();
        let client = listener.accept::<String, u8>().unwrap();
        assert_eq!(client.peer().unwrap().uid, NOBODY);
        assert_eq!(client.recv().unwrap(), 7);
        client.send("welcome".to_owned()).unwrap();
        assert_eq!(visitor.join().unwrap(), "welcome");
        drop(listener);

        let listener = Listener::builder().allow_everyone().bind(&address).unwrap();
        let visitor = Process::spawn(visit, (address.clone(), OTHER)).unwrap();
        let client = listener.accept::<String, u8>().unwrap();
        client.send("everyone".to_owned()).unwrap();
        assert_eq!(visitor.join().unwrap(), "everyone");
    }

    // By default no other user, also at an address without permissions.
    let address = name();
    let listener = Listener::bind(&address).unwrap();
    let visitor = Process::spawn(visit, (address, NOBODY)).unwrap();
    let refused = refused_while_waiting(&listener, visitor);
    assert!(refused.contains("the other side is gone"), "{refused}");
}

fn refused_while_waiting(listener: &Listener, visitor: Process<String>) -> String {
    until(|| {
        let result = listener.accept_timeout::<String, u8>(Duration::from_millis(1));
        assert_eq!(result.unwrap_err().kind(), ErrorKind::TimedOut);
        !visitor.is_alive()
    });
    visitor.join().unwrap()
}

#[test]
fn several_threads_accept() {
    let _dog = watchdog();
    let address = name();
    let listener = Listener::bind(&address).unwrap();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    (0..50)
                        .map(|_| listener.accept::<(), u64>().unwrap().recv().unwrap())
                        .sum::<u64>()
                })
            })
            .collect();
        let clients: Vec<_> = (0..200_u64)
            .map(|n| {
                let client = connect::<u64, ()>(&address).unwrap();
                client.send(n).unwrap();
                client
            })
            .collect();
        let sum: u64 = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
        assert_eq!(sum, 19_900);
        drop(clients);
    });
}

#[test]
fn hundred_thousand_connections_leave_nothing_behind() {
    alone(|()| {
        let before = Census::take();
        let address = name();
        let listener = Listener::bind(&address).unwrap();
        for n in 0..100_000_u32 {
            let client = connect::<u32, ()>(&address).unwrap();
            let server = listener.accept::<(), u32>().unwrap();
            client.send(n).unwrap();
            assert_eq!(server.recv().unwrap(), n);
        }
        assert!(wait([listener.as_fd()], Some(Duration::ZERO)).unwrap().is_empty());
        drop(listener);
        assert_eq!(Census::take(), before);
    });
}
