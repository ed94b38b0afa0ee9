//! Compares connections between processes with bare system calls on the same kind of pipe or
//! socket, with ipc-channel and with memcpy.
//!
//! Each contestant has a process of its own that sends or answers, and is told over a pipe how
//! often. This process receives. Contestants take turns, and each ratio is of two turns of the same
//! round.

use std::hint::black_box;
use std::os::fd::OwnedFd;
use std::time::Instant;

use ipc_channel::ipc::{self, IpcOneShotServer, IpcReceiver, IpcSender};
use multiproc::pipe::{
    Bytes, Connection, Descriptor, Sender, SharedBytes, SharedPool, duplex, simplex,
};
use multiproc_benches::item::Item;
use multiproc_benches::one_cpu::OneCpu;
use multiproc_benches::other::{Other, obey};
use multiproc_benches::rounds::Contest;
use rustix::io::{read, write};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair,
};
use rustix::pipe::{PipeFlags, pipe_with};

const MIB: usize = 1024 * 1024;

/// The number of segments that a pool keeps by default.
const POOL: usize = 8;

fn sockets() -> (OwnedFd, OwnedFd) {
    socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap()
}

fn send_all(socket: &OwnedFd, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        bytes = &bytes[send(socket, bytes, SendFlags::NOSIGNAL).unwrap()..];
    }
}

fn recv_all(socket: &OwnedFd, bytes: &mut [u8]) {
    let mut at = 0;
    while at < bytes.len() {
        let (count, _) = recv(socket, &mut bytes[at..], RecvFlags::empty()).unwrap();
        assert_ne!(count, 0);
        at += count;
    }
}

fn one_way() {
    let (bare_reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    let bare_pipe = Other::start(
        |(orders, writer): (_, Descriptor)| {
            obey(&orders, |id| {
                let bytes = [id.to_le_bytes()[0]; 64];
                assert_eq!(write(&writer, &bytes).unwrap(), 64);
            });
        },
        Descriptor::from(writer),
    );
    let (bare_ours, theirs) = sockets();
    let bare_socket = Other::start(
        |(orders, socket): (_, Descriptor)| {
            obey(&orders, |id| {
                let bytes = [id.to_le_bytes()[0]; 64];
                assert_eq!(send(&socket, &bytes, SendFlags::NOSIGNAL).unwrap(), 64);
            });
        },
        Descriptor::from(theirs),
    );
    let (receiver, sender) = simplex::<Item>().unwrap();
    let our_simplex = Other::start(
        |(orders, sender): (_, Sender<Item>)| {
            obey(&orders, |id| sender.send(Item::new(black_box(id))).unwrap());
        },
        sender,
    );
    let (connection, theirs) = duplex::<(), Item>().unwrap();
    let our_duplex = Other::start(
        |(orders, connection): (_, Connection<Item, ()>)| {
            obey(&orders, |id| connection.send(Item::new(black_box(id))).unwrap());
        },
        theirs,
    );
    let (server, name) = IpcOneShotServer::<IpcReceiver<Item>>::new().unwrap();
    let their_channel = Other::start(
        |(orders, name): (_, String)| {
            let (sender, receiver) = ipc::channel::<Item>().unwrap();
            IpcSender::connect(name).unwrap().send(receiver).unwrap();
            obey(&orders, |id| sender.send(Item::new(black_box(id))).unwrap());
        },
        name,
    );
    let (_, their_receiver) = server.accept().unwrap();

    let mut bytes = [0; 64];
    let read_bare =
        |count| bare_pipe.time(count, |_| assert_eq!(read(&bare_reader, &mut bytes).unwrap(), 64));
    let mut bytes = [0; 64];
    let recv_bare = |count| bare_socket.time(count, |_| recv_all(&bare_ours, &mut bytes));
    let recv_simplex = |count| {
        our_simplex.time(count, |id| assert_eq!(black_box(receiver.recv().unwrap()).id, id))
    };
    let recv_duplex = |count| {
        our_duplex.time(count, |id| assert_eq!(black_box(connection.recv().unwrap()).id, id))
    };
    let recv_theirs = |count| {
        their_channel.time(count, |id| assert_eq!(black_box(their_receiver.recv().unwrap()).id, id))
    };
    Contest::new("64 bytes one way, pipe", "bare write and read", read_bare)
        .with("multiproc, simplex, struct", recv_simplex)
        .run();
    Contest::new("64 bytes one way, socket", "bare send and recv", recv_bare)
        .with("multiproc, duplex, struct", recv_duplex)
        .run();
    Contest::new("64 bytes one way, typed", "ipc-channel", recv_theirs)
        .with("multiproc, simplex", recv_simplex)
        .with("multiproc, duplex", recv_duplex)
        .run();
    [bare_pipe, bare_socket, our_simplex, our_duplex, their_channel]
        .into_iter()
        .for_each(Other::stop);
}

/// Measures a round trip on one CPU. On two, a wake-up takes five times as long as the rest.
fn round_trip() {
    let _pinned = OneCpu::pin();
    let (bare_ours, theirs) = sockets();
    let bare_socket = Other::start(
        |(orders, socket): (_, Descriptor)| {
            let socket = OwnedFd::from(socket);
            let mut bytes = [0; 64];
            obey(&orders, |_| {
                recv_all(&socket, &mut bytes);
                send_all(&socket, &bytes);
            });
        },
        Descriptor::from(theirs),
    );
    let (connection, theirs) = duplex::<Item, Item>().unwrap();
    let ours = Other::start(
        |(orders, connection): (_, Connection<Item, Item>)| {
            obey(&orders, |_| connection.send(connection.recv().unwrap()).unwrap());
        },
        theirs,
    );
    let mut bytes = [0; 64];
    Contest::new("64 bytes round trip, socket, one CPU", "bare send and recv", |count| {
        bare_socket.time(count, |id| {
            send_all(&bare_ours, &[id.to_le_bytes()[0]; 64]);
            recv_all(&bare_ours, &mut bytes);
        })
    })
    .with("multiproc, duplex, struct", |count| {
        ours.time(count, |id| {
            connection.send(Item::new(id)).unwrap();
            assert_eq!(connection.recv().unwrap().id, id);
        })
    })
    .run();
    [bare_socket, ours].into_iter().for_each(Other::stop);
}

/// Returns a value that depends on every word.
fn read_words(bytes: &[u8]) -> u64 {
    let words = bytes.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap()));
    words.fold(0, u64::wrapping_add)
}

fn bytes_over_a_socket() {
    let (bare_ours, theirs) = sockets();
    let bare_socket = Other::start(
        |(orders, socket): (_, Descriptor)| {
            let (socket, bytes) = (OwnedFd::from(socket), vec![1; MIB]);
            obey(&orders, |_| send_all(&socket, &bytes));
        },
        Descriptor::from(theirs),
    );
    let (connection, theirs) = duplex::<(), Bytes>().unwrap();
    let ours = Other::start(
        |(orders, connection): (_, Connection<Bytes, ()>)| {
            // Sent by reference, so that creating the bytes is not measured.
            let connection = connection.retype::<&Bytes, ()>();
            let bytes = Bytes(vec![1; MIB]);
            obey(&orders, |_| connection.send(&bytes).unwrap());
        },
        theirs,
    );
    let mut bytes = vec![0; MIB];
    Contest::new("1 MiB one way, socket", "bare send and recv, one buffer each", |count| {
        bare_socket.time(count, |_| recv_all(&bare_ours, black_box(&mut bytes)))
    })
    .with("multiproc, duplex, Bytes", |count| {
        ours.time(count, |_| assert_eq!(black_box(connection.recv().unwrap()).0.len(), MIB))
    })
    .run();
    [bare_socket, ours].into_iter().for_each(Other::stop);
}

fn shared_bytes() {
    let (pooled, theirs) = duplex::<(), SharedBytes>().unwrap();
    let from_pool = Other::start(
        |(orders, connection): (_, Connection<SharedBytes, ()>)| {
            let pool = SharedPool::new();
            obey(&orders, |id| {
                let mut buffer = pool.buffer(MIB).unwrap();
                buffer.fill(black_box(id.to_le_bytes()[0]));
                connection.send(buffer.freeze()).unwrap();
            });
        },
        theirs,
    );
    let (sealed, theirs) = duplex::<(), SharedBytes>().unwrap();
    let for_good = Other::start(
        |(orders, connection): (_, Connection<SharedBytes, ()>)| {
            let mut bytes = vec![0; MIB];
            obey(&orders, |id| {
                bytes.fill(black_box(id.to_le_bytes()[0]));
                connection.send(SharedBytes::copy_from(&bytes).unwrap()).unwrap();
            });
        },
        theirs,
    );
    let receive = |connection: &Connection<(), SharedBytes>| {
        let bytes = connection.recv().unwrap();
        black_box(read_words(&bytes));
        assert_eq!(bytes.len(), MIB);
    };
    let copy = |count: u64, buffers: &mut [[Vec<u8>; 2]]| {
        let start = Instant::now();
        for index in (0..buffers.len()).cycle().zip(0..count).map(|(index, _)| index) {
            let [source, target] = black_box(&mut buffers[index]);
            target.copy_from_slice(source);
        }
        start.elapsed()
    };
    let buffers = || [vec![1; MIB], vec![0; MIB]];
    let mut hot = [buffers()];
    let hot_copy = |count| copy(count, &mut hot);
    let mut from_pool_once = |count| from_pool.time(count, |_| receive(&pooled));
    Contest::new("1 MiB in shared memory", "memcpy, one thread, one buffer", hot_copy)
        .with("multiproc, SharedPool, filled and read", &mut from_pool_once)
        .with("multiproc, SharedBytes::copy_from, filled and read", |count| {
            for_good.time(count, |_| receive(&sealed))
        })
        .run();
    let mut in_turn = [(); POOL].map(|()| buffers());
    let rotating_copy = |count| copy(count, &mut in_turn);
    Contest::new("1 MiB in shared memory", "memcpy, one thread, 8 buffers in turn", rotating_copy)
        .with("multiproc, SharedPool, filled and read", &mut from_pool_once)
        .run();
    [from_pool, for_good].into_iter().for_each(Other::stop);
}

fn main() {
    let _runtime = multiproc::init();
    multiproc_benches::run(&[
        ("one_way", one_way),
        ("round_trip", round_trip),
        ("bytes", bytes_over_a_socket),
        ("shared_bytes", shared_bytes),
    ]);
}
