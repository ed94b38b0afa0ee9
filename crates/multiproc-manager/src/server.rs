//! The manager's process: one thread, which never waits for anybody in particular.
//!
//! It sleeps in epoll(7), without a timeout when nobody owes it anything: so an idle manager takes no
//! CPU. What is readable is read once, as much as a request can have; a part of a request is kept. An
//! answer is written at once or not at all. So a client can hold up nobody:
//!
//! | a client that | is |
//! |---|---|
//! | does not say who it is, or stops in the middle of a request | dropped after [`PATIENCE`] |
//! | says what is no request, or one that is too long | dropped |
//! | does not read its answers | dropped when they fill its socket's buffer |
//! | has said who it is, and wants nothing | kept: its end is seen |
//! | sends descriptors | not heard: reading without room for them closes them |
//! | is one too many | told so, and dropped |
//!
//! What it keeps for a client is bounded by the longest request.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use multiproc_pipe::{Connection, Listener, message};
use multiproc_shm::above_stdio;
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use rustix::process::{Resource, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::low_level::pipe;

use crate::object::{Object, Spec};
use crate::protocol::{
    self, LONGEST_REQUEST, PAGE, Refusal, Reply, Request, VERSION, Verdict, fault_of,
};

/// How long a client may take to say who it is, or to finish a request that it has begun.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long nobody is accepted when there are no descriptors left.
const PAUSE: Duration = Duration::from_millis(100);

/// Before the body of a frame: its length, and how many descriptors it has.
const HEADER: usize = 12;

/// What is read at a time.
const PIECE: usize = HEADER + LONGEST_REQUEST;

/// How much a manager takes on.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Limits {
    pub(crate) objects: usize,
    pub(crate) clients: u32,
}

/// What tells the manager's process to end.
pub(crate) enum Ends {
    /// A child of the program that started it, which gets the terminal's Ctrl-C as well, and tells when
    /// it is over.
    WithParent,
    /// A program of its own.
    OnInterrupt,
}

/// Serves until somebody says that it is over: a client, or a signal.
pub(crate) fn serve(
    listener: Listener,
    limits: Limits,
    ends: &Ends,
    ready: impl FnOnce(),
) -> io::Result<()> {
    let (signal, write) = UnixStream::pair()?;
    let (signal, write) = (above_stdio(signal.into())?, above_stdio(write.into())?);
    let write = UnixStream::from(write);
    pipe::register(SIGTERM, write.try_clone()?)?;
    match ends {
        Ends::OnInterrupt => _ = pipe::register(SIGINT, write)?,
        // Taken, and not looked at.
        Ends::WithParent => _ = signal_hook::flag::register(SIGINT, std::sync::Arc::default())?,
    }
    raise_descriptor_limit();
    let mut server = Server::new(listener, limits, signal)?;
    ready();
    while server.turn()? {}
    Ok(())
}

/// Clients and objects are descriptors. Nobody here uses select(2), for which the usual limit is low.
fn raise_descriptor_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // If it stays as it is, there is room for fewer.
    let _ = setrlimit(Resource::Nofile, limit);
}

const LISTENER: u64 = 0;
const SIGNAL: u64 = 1;
const FIRST_CLIENT: u64 = 2;

struct Client {
    /// Read past its buffer, and written through it.
    connection: Connection<Reply<()>, ()>,
    /// What has come of a request.
    begun: Vec<u8>,
    is_welcome: bool,
    /// When it must have finished what it has begun.
    deadline: Option<Instant>,
    /// It is among those that are looked at in time.
    is_watched: bool,
}

struct Entry {
    name: String,
    spec: Spec,
    object: Object<()>,
}

struct Server {
    /// None: it is over.
    listener: Option<Listener>,
    /// Readable when a signal has come.
    _signal: OwnedFd,
    epoll: OwnedFd,
    limits: Limits,
    clients: HashMap<u64, Client>,
    next_client: u64,
    /// When to look at whom: in order, since all may take the same time; and each client once.
    deadlines: VecDeque<(Instant, u64)>,
    /// Nobody is accepted until then.
    pause: Option<Instant>,
    /// By when they were made.
    objects: BTreeMap<u64, Entry>,
    names: HashMap<String, u64>,
    next_object: u64,
}

/// The client is to be dropped.
struct Drop;

impl Server {
    fn new(listener: Listener, limits: Limits, signal: OwnedFd) -> io::Result<Self> {
        let epoll = above_stdio(epoll::create(epoll::CreateFlags::CLOEXEC)?)?;
        let data = epoll::EventData::new_u64;
        epoll::add(&epoll, &listener, data(LISTENER), epoll::EventFlags::IN)?;
        epoll::add(&epoll, &signal, data(SIGNAL), epoll::EventFlags::IN)?;
        Ok(Self {
            listener: Some(listener),
            _signal: signal,
            epoll,
            limits,
            clients: HashMap::new(),
            next_client: FIRST_CLIENT,
            deadlines: VecDeque::new(),
            pause: None,
            objects: BTreeMap::new(),
            names: HashMap::new(),
            next_object: 1,
        })
    }

    /// Waits until there is something to do, and does it. False: it is over.
    fn turn(&mut self) -> io::Result<bool> {
        let now = Instant::now();
        let next = self.deadlines.front().map(|&(at, _)| at).into_iter().chain(self.pause).min();
        let sleep = next.map(|at| at.saturating_duration_since(now));
        // Rounded up to what epoll counts in on old kernels: else it would not sleep, and come too early.
        let sleep = sleep.map(|sleep| sleep + Duration::from_millis(1));
        let sleep = sleep.and_then(|sleep| Timespec::try_from(sleep).ok());
        let mut events = Vec::with_capacity(64);
        match epoll::wait(&self.epoll, spare_capacity(&mut events), sleep.as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(true),
            Err(error) => return Err(error.into()),
        }
        for event in &events {
            match event.data.u64() {
                LISTENER => self.accept()?,
                SIGNAL => return Ok(false),
                id => self.hear(id),
            }
            if self.listener.is_none() {
                return Ok(false);
            }
        }
        self.look_at_deadlines()?;
        Ok(true)
    }

    fn look_at_deadlines(&mut self) -> io::Result<()> {
        let now = Instant::now();
        if self.pause.is_some_and(|until| until <= now) {
            self.pause = None;
            self.listen(epoll::EventFlags::IN)?;
        }
        while let Some(&(at, id)) = self.deadlines.front()
            && at <= now
        {
            self.deadlines.pop_front();
            let Some(client) = self.clients.get_mut(&id) else { continue };
            match client.deadline {
                None => client.is_watched = false,
                Some(deadline) if deadline <= now => _ = self.clients.remove(&id),
                // It has finished what it had begun, and begun anew.
                Some(_) => self.deadlines.push_back((now + PATIENCE, id)),
            }
        }
        Ok(())
    }

    fn listen(&self, flags: epoll::EventFlags) -> io::Result<()> {
        let Some(listener) = &self.listener else { return Ok(()) };
        let data = epoll::EventData::new_u64(LISTENER);
        Ok(epoll::modify(&self.epoll, listener, data, flags)?)
    }

    /// Lets one in.
    fn accept(&mut self) -> io::Result<()> {
        let Some(listener) = &self.listener else { return Ok(()) };
        let added = listener.accept_without_hello(Some(Duration::ZERO)).and_then(|connection| {
            if self.clients.len() >= self.limits.clients as usize {
                let verdict = protocol::answer(Verdict::TooMany(self.limits.clients));
                // If it does not want to know, that is its affair.
                let _ = connection.try_send_bytes(&verdict);
                return Ok(());
            }
            let (id, deadline) = (self.next_client, Instant::now() + PATIENCE);
            let data = epoll::EventData::new_u64(id);
            epoll::add(&self.epoll, &connection, data, epoll::EventFlags::IN)?;
            self.next_client += 1;
            self.deadlines.push_back((deadline, id));
            let client = Client {
                connection,
                begun: Vec::new(),
                is_welcome: false,
                deadline: Some(deadline),
                is_watched: true,
            };
            self.clients.insert(id, client);
            Ok(())
        });
        match added {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Ok(()),
            // There is nothing left to accept it with. It goes on waiting, and so would wake us at once.
            Err(_) => {
                self.pause = Some(Instant::now() + PAUSE);
                self.listen(epoll::EventFlags::empty())
            }
        }
    }

    /// Reads what a client has to say.
    fn hear(&mut self, id: u64) {
        // It is not among them while it is heard.
        let Some(mut client) = self.clients.remove(&id) else { return };
        if self.hear_client(&mut client).is_err() {
            return;
        }
        if !client.begun.is_empty() && client.deadline.is_none() {
            let deadline = Instant::now() + PATIENCE;
            client.deadline = Some(deadline);
            if !std::mem::replace(&mut client.is_watched, true) {
                self.deadlines.push_back((deadline, id));
            }
        }
        self.clients.insert(id, client);
    }

    fn hear_client(&mut self, client: &mut Client) -> Result<(), Drop> {
        let mut piece = [0; PIECE];
        let count = match recv(client.connection.as_fd(), &mut piece[..], RecvFlags::DONTWAIT) {
            Ok((0, _)) => return Err(Drop),
            Ok((count, _)) => count,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
            Err(_) => return Err(Drop),
        };
        let mut begun = std::mem::take(&mut client.begun);
        begun.extend_from_slice(&piece[..count]);
        let mut rest = &begun[..];
        while let Some(body) = next_frame(&mut rest)? {
            // One that has finished is not late with the next.
            client.deadline = None;
            self.answer(client, body)?;
        }
        client.begun = rest.to_vec();
        Ok(())
    }

    fn answer(&mut self, client: &mut Client, body: &[u8]) -> Result<(), Drop> {
        let connection = &client.connection;
        if !client.is_welcome {
            let theirs = protocol::version_of(body).ok_or(Drop)?;
            client.is_welcome = theirs == VERSION;
            let verdict = if client.is_welcome { Verdict::Welcome } else { Verdict::OtherVersion };
            connection.try_send_bytes(&protocol::answer(verdict)).map_err(|_| Drop)?;
            return if client.is_welcome { Ok(()) } else { Err(Drop) };
        }
        let request = message::decode::<Request>(body, Vec::new()).map_err(|_| Drop)?;
        let reply = self.reply(request);
        match connection.try_send(reply) {
            Ok(()) => Ok(()),
            Err(error) if error.is_full() || error.is_unfinished() || error.is_disconnected() => {
                Err(Drop)
            }
            // Without descriptors left for the handles in it, say: nothing of it was sent.
            Err(error) => {
                let refusal = Refusal::Failed(format!("the manager cannot send it: {error}"));
                connection.try_send(Reply::Refused(refusal)).map_err(|_| Drop)
            }
        }
    }

    fn reply(&mut self, request: Request) -> Reply<()> {
        match request {
            Request::Open { name, spec } => {
                self.open(name, spec).map_or_else(Reply::Refused, Reply::Opened)
            }
            Request::List { after } => {
                let page: Vec<_> =
                    self.objects.range(after.saturating_add(1)..).take(PAGE).collect();
                let next = page.last().filter(|_| page.len() == PAGE).map(|&(&id, _)| id);
                let describe = |entry: &Entry| entry.object.describe(&entry.name, &entry.spec);
                Reply::Listed { objects: page.iter().map(|(_, it)| describe(it)).collect(), next }
            }
            Request::Remove { name } => match self.names.remove(&name) {
                Some(id) => {
                    self.objects.remove(&id);
                    Reply::Done
                }
                None => Reply::Refused(Refusal::NoSuchName),
            },
            Request::Shutdown => {
                // Who hears that it is done can listen at the address.
                self.listener = None;
                Reply::Done
            }
        }
    }

    fn open(&mut self, name: String, spec: Spec) -> Result<Object<()>, Refusal> {
        if let Some(entry) = self.names.get(&name).and_then(|id| self.objects.get(id)) {
            let is = &entry.spec;
            return if is.kind != spec.kind {
                Err(Refusal::KindIs(is.kind))
            } else if is.item != spec.item {
                Err(Refusal::TypeIs(
                    is.item.as_ref().map_or_else(String::new, |it| it.name.clone()),
                ))
            } else if is.capacity != spec.capacity {
                Err(Refusal::CapacityIs(is.capacity))
            } else {
                Ok(entry.object.clone())
            };
        }
        // Clients have looked at it themselves, if they are this library.
        if fault_of(&name).is_some() || spec.item.as_ref().is_some_and(|item| !item.is_valid()) {
            return Err(Refusal::InvalidName);
        }
        if self.objects.len() >= self.limits.objects {
            return Err(Refusal::TooManyObjects(self.limits.objects));
        }
        let object =
            Object::make(Some(&name), &spec).map_err(|error| Refusal::Failed(error.to_string()))?;
        object.stand_aside();
        let id = self.next_object;
        self.next_object += 1;
        self.names.insert(name.clone(), id);
        self.objects.insert(id, Entry { name, spec, object: object.clone() });
        Ok(object)
    }
}

/// Takes the body of a frame off the front, if all of it is there.
fn next_frame<'a>(bytes: &mut &'a [u8]) -> Result<Option<&'a [u8]>, Drop> {
    let Some((length, behind)) = bytes.split_first_chunk::<8>() else { return Ok(None) };
    let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| Drop)?;
    if length > LONGEST_REQUEST {
        return Err(Drop);
    }
    let Some((descriptors, behind)) = behind.split_first_chunk::<4>() else { return Ok(None) };
    if *descriptors != [0; 4] {
        return Err(Drop);
    }
    let Some((body, rest)) = behind.split_at_checked(length) else { return Ok(None) };
    *bytes = rest;
    Ok(Some(body))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(length: u64, descriptors: u32, body: &[u8]) -> Vec<u8> {
        [&length.to_le_bytes()[..], &descriptors.to_le_bytes(), body].concat()
    }

    #[test]
    fn a_frame_is_taken_when_it_is_whole() {
        let bytes = [frame(3, 0, b"abc"), frame(0, 0, b""), b"\x01".to_vec()].concat();
        for cut in 0..HEADER + 3 {
            let mut part = &bytes[..cut];
            assert!(next_frame(&mut part).is_ok_and(|body| body.is_none()), "{cut}");
            assert_eq!(part.len(), cut);
        }
        let mut rest = &bytes[..];
        assert!(next_frame(&mut rest).is_ok_and(|body| body == Some(b"abc")));
        assert!(next_frame(&mut rest).is_ok_and(|body| body == Some(b"")));
        assert!(next_frame(&mut rest).is_ok_and(|body| body.is_none()));
        assert_eq!(rest, b"\x01");
    }

    #[test]
    fn what_is_too_long_or_has_descriptors_is_refused_at_its_header() {
        let long = LONGEST_REQUEST as u64;
        assert!(next_frame(&mut &frame(long, 0, b"")[..]).is_ok());
        for header in [frame(long + 1, 0, b""), frame(u64::MAX, 0, b""), frame(1, 1, b"")] {
            assert!(next_frame(&mut &header[..]).is_err());
        }
        // As soon as the length is there.
        assert!(next_frame(&mut &[0xff; 8][..]).is_err());
    }
}
