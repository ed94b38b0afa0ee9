//! The server: one thread that never waits for a single client.
//!
//! It sleeps in epoll(7), without a timeout while no client owes it anything, so an idle manager
//! uses no CPU. Each readable socket is read once, up to the size of a request; a part of a request
//! is kept. An answer is written at once, or its client is dropped. So a client cannot block
//! another one:
//!
//! | a client that | is |
//! |---|---|
//! | does not identify itself, or does not complete a request | dropped after [`PATIENCE`] |
//! | sends an invalid request, or one that is too long | dropped |
//! | does not read its answers | dropped when they fill its socket's buffer |
//! | has identified itself and is idle | kept; its end is noticed |
//! | sends descriptors | dropped; reading without room for descriptors closes them |
//! | exceeds the limit of clients | told so and dropped |
//!
//! The memory for one client is bounded by the longest request.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use multiproc_pipe::{Connection, Listener, frame};
use multiproc_shm::above_stdio;
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use rustix::process::{Resource, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::low_level::pipe;

use crate::protocol::{
    self, LONGEST_REQUEST, NAMED, PAGE, Refusal, Reply, Request, VERSION, Verdict, reason_against,
};
use crate::spec::{Number, Spec};
use crate::stored::Stored;

/// How long a client may take to identify itself, or to complete a request.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long no client is accepted after descriptors have run out.
const PAUSE: Duration = Duration::from_millis(100);

/// The number of bytes that are read at once.
const PIECE: usize = frame::HEADER + LONGEST_REQUEST;

/// The limits of a manager.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Limits {
    pub(crate) objects: usize,
    pub(crate) clients: u32,
}

/// What ends the manager's process.
pub(crate) enum Ends {
    /// It is a child of the program that started it. That program receives the terminal's Ctrl-C as
    /// well, and decides when the manager ends.
    WithParent,
    /// It is a program of its own.
    OnInterrupt,
}

/// Serves until a client or a signal ends it.
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
        // The signal is received and ignored.
        Ends::WithParent => _ = signal_hook::flag::register(SIGINT, std::sync::Arc::default())?,
    }
    raise_descriptor_limit();
    let mut server = Server::new(listener, limits, signal)?;
    ready();
    while server.poll_once()? {}
    Ok(())
}

/// Raises the limit of descriptors, since each client and object takes some. The usual limit is low
/// for the sake of select(2), which is not used here.
fn raise_descriptor_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // If it fails, the manager has room for fewer clients.
    let _ = setrlimit(Resource::Nofile, limit);
}

const LISTENER: u64 = 0;
const SIGNAL: u64 = 1;
const FIRST_CLIENT: u64 = 2;

struct Client {
    /// Requests are read past its buffer. Answers are written through it.
    connection: Connection<Reply<Stored>, ()>,
    /// The part of a request that has been received.
    begun: Vec<u8>,
    is_welcome: bool,
    /// When the client must have completed what it has begun.
    deadline: Option<Instant>,
    /// Whether `deadlines` has an entry for it.
    has_deadline_entry: bool,
}

struct Entry {
    name: String,
    spec: Spec,
    object: Stored,
}

struct Server {
    /// `None` after the manager has ended.
    listener: Option<Listener>,
    /// Readable after a signal.
    _signal: OwnedFd,
    epoll: OwnedFd,
    limits: Limits,
    clients: HashMap<u64, Client>,
    next_client: u64,
    /// When to check which client. In ascending order, because all have the same time. One entry
    /// per client.
    deadlines: VecDeque<(Instant, u64)>,
    /// No client is accepted until then.
    pause: Option<Instant>,
    /// In the order in which they were created.
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

    /// Waits for events and handles them. Returns `false` when the manager has ended.
    fn poll_once(&mut self) -> io::Result<bool> {
        let now = Instant::now();
        let next = self.deadlines.front().map(|&(at, _)| at).into_iter().chain(self.pause).min();
        let sleep = next.map(|at| at.saturating_duration_since(now));
        // Rounded up to the unit of epoll on old kernels. Otherwise it would return early, again
        // and again.
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
                id => self.on_readable(id),
            }
            if self.listener.is_none() {
                return Ok(false);
            }
        }
        self.check_deadlines()?;
        Ok(true)
    }

    fn check_deadlines(&mut self) -> io::Result<()> {
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
                None => client.has_deadline_entry = false,
                Some(deadline) if deadline <= now => _ = self.clients.remove(&id),
                // It has completed one request and begun another.
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

    /// Accepts a client.
    fn accept(&mut self) -> io::Result<()> {
        let Some(listener) = &self.listener else { return Ok(()) };
        let added = listener.accept_without_hello(Some(Duration::ZERO)).and_then(|connection| {
            if self.clients.len() >= self.limits.clients as usize {
                let verdict = protocol::answer(Verdict::TooMany(self.limits.clients));
                // A client that does not read the verdict is dropped without it.
                let _ = connection.try_send_bytes(&verdict);
                return Ok(());
            }
            let (id, deadline) = (self.next_client, Instant::now() + PATIENCE);
            let data = epoll::EventData::new_u64(id);
            epoll::add(&self.epoll, &connection, data, epoll::EventFlags::IN)?;
            self.next_client += 1;
            self.deadlines.push_back((deadline, id));
            let client = Client {
                connection: connection.in_format(protocol::FORMAT),
                begun: Vec::new(),
                is_welcome: false,
                deadline: Some(deadline),
                has_deadline_entry: true,
            };
            self.clients.insert(id, client);
            Ok(())
        });
        match added {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Ok(()),
            // There is no descriptor for it. It keeps waiting, so epoll would report it at once.
            Err(_) => {
                self.pause = Some(Instant::now() + PAUSE);
                self.listen(epoll::EventFlags::empty())
            }
        }
    }

    /// Reads from a client.
    fn on_readable(&mut self, id: u64) {
        // The client is not in the map meanwhile.
        let Some(mut client) = self.clients.remove(&id) else { return };
        if self.read_requests(&mut client).is_err() {
            return;
        }
        if !client.begun.is_empty() && client.deadline.is_none() {
            let deadline = Instant::now() + PATIENCE;
            client.deadline = Some(deadline);
            if !std::mem::replace(&mut client.has_deadline_entry, true) {
                self.deadlines.push_back((deadline, id));
            }
        }
        self.clients.insert(id, client);
    }

    fn read_requests(&mut self, client: &mut Client) -> Result<(), Drop> {
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
        while let Some(body) = frame::next_frame(&mut rest, LONGEST_REQUEST).map_err(|_| Drop)? {
            // A completed request ends the deadline.
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
        let request = protocol::FORMAT.decode::<Request>(body, Vec::new()).map_err(|_| Drop)?;
        let reply = self.reply(request);
        match connection.try_send(reply) {
            Ok(()) => Ok(()),
            Err(error) if error.is_full() || error.is_unfinished() || error.is_disconnected() => {
                Err(Drop)
            }
            // For example, there are no descriptors for the handles in it. Nothing was sent.
            Err(error) => {
                let refusal =
                    Refusal::Failed(format!("the manager cannot send the object: {error}"));
                connection.try_send(Reply::Refused(refusal)).map_err(|_| Drop)
            }
        }
    }

    fn reply(&mut self, request: Request) -> Reply<Stored> {
        match request {
            Request::Open { name, spec, creates } => {
                self.open(name, spec, creates).map_or_else(Reply::Refused, Reply::Opened)
            }
            Request::List { after } => {
                let page: Vec<_> =
                    self.objects.range(after.saturating_add(1)..).take(PAGE).collect();
                let next = page.last().filter(|_| page.len() == PAGE).map(|&(&id, _)| id);
                let describe = |entry: &Entry| entry.object.info(&entry.name, &entry.spec);
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
                // A client that receives the answer can listen at the address.
                self.listener = None;
                Reply::Done
            }
        }
    }

    fn open(&mut self, name: String, spec: Spec, creates: bool) -> Result<Stored, Refusal> {
        if let Some(entry) = self.names.get(&name).and_then(|id| self.objects.get(id)) {
            refuse_other(&entry.spec, &spec)?;
            return Ok(entry.object.clone());
        }
        // Clients that use this library have checked it already.
        if reason_against(&name).is_some()
            || spec.item.as_ref().is_some_and(|item| !item.is_valid())
        {
            return Err(Refusal::InvalidName);
        }
        if !creates {
            let same_kind = self.objects.values().filter(|entry| entry.spec.kind == spec.kind);
            let names: Vec<_> =
                same_kind.clone().take(NAMED).map(|entry| entry.name.clone()).collect();
            let others = same_kind.count() - names.len();
            return Err(Refusal::OnlyThese { names, others });
        }
        if self.objects.len() >= self.limits.objects {
            return Err(Refusal::TooManyObjects(self.limits.objects));
        }
        let object =
            Stored::create(&name, &spec).map_err(|error| Refusal::Failed(error.to_string()))?;
        let spec = object.describe_as(spec);
        let id = self.next_object;
        self.next_object += 1;
        self.names.insert(name.clone(), id);
        self.objects.insert(id, Entry { name, spec, object: object.clone() });
        Ok(object)
    }
}

/// Refuses an object that differs from what was asked for.
fn refuse_other(is: &Spec, asked: &Spec) -> Result<(), Refusal> {
    if is.kind != asked.kind {
        return Err(Refusal::KindIs(is.kind));
    }
    let is_same_type = match (&is.item, &asked.item) {
        (Some(is), Some(asked)) => is.matches(asked),
        (is, asked) => is.is_none() && asked.is_none(),
    };
    if !is_same_type {
        let name = is.item.as_ref().map_or_else(String::new, |item| item.name.clone());
        return Err(Refusal::TypeIs(name));
    }
    if asked.number != Number::Any && asked.number != is.number {
        return Err(Refusal::NumberIs(is.number));
    }
    match (is.bytes, asked.bytes) {
        (Some(is), Some(asked)) if is != asked => return Err(Refusal::BytesAre(is)),
        _ => {}
    }
    match (is.attempts, asked.attempts) {
        (Some(is), Some(asked)) if is != asked => Err(Refusal::AttemptsAre(is)),
        _ => Ok(()),
    }
}
