//! Runs random sequences of operations, by several processes of which some are killed, on the queue
//! and on a simple model of it, and compares the results.
//!
//! There are 2,000 sequences, or 100,000 if `MULTIPROC_SOAK_SECONDS` is set. A failure prints the
//! seed of its sequence. `MULTIPROC_SEED` starts with that seed, and `MULTIPROC_TRACE` prints each
//! operation.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use std::{env, fmt};

use multiproc::Process;
use multiproc::pipe::{Bytes, Connection, Receiver, duplex, simplex, wait};
use multiproc_queue::{
    Consumer, GetError, GetTimeoutError, Producer, PutError, PutTimeoutError, Queue, Shutdown,
    TryGetError, TryPutError,
};
use multiproc_testkit::watchdog;
use serde::{Deserialize, Serialize};

multiproc::enable_in_tests!();

/// An item: a number, bytes, and optionally a descriptor.
type Item = ([u8; 4], Bytes, Option<Receiver<u32>>);

/// The description that an item is made from and compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Plan {
    number: u32,
    length: usize,
    with_descriptor: bool,
}

impl Plan {
    fn item(self) -> Item {
        let number = self.number.to_le_bytes();
        let receiver = self.with_descriptor.then(|| {
            let (receiver, sender) = simplex().unwrap();
            sender.send(self.number).unwrap();
            receiver
        });
        (number, Bytes(vec![number[0]; self.length]), receiver)
    }

    /// Describes an item that was got, after checking its content.
    fn of((number, bytes, receiver): Item) -> Self {
        assert!(bytes.0.iter().all(|&byte| byte == number[0]));
        let number = u32::from_le_bytes(number);
        if let Some(receiver) = &receiver {
            assert_eq!(receiver.recv().unwrap(), number, "the descriptor of another item");
        }
        Self { number, length: bytes.0.len(), with_descriptor: receiver.is_some() }
    }
}

#[derive(Serialize, Deserialize)]
enum Handle {
    Both(Queue<Item>),
    Producer(Producer<Item>),
    Consumer(Consumer<Item>),
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("handle")
    }
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum How {
    Blocking,
    Try,
    Timeout,
    Many,
    TryMany,
}

#[derive(Debug, Serialize, Deserialize)]
enum Op {
    Adopt(u32, Box<Handle>),
    Give(u32),
    Drop(u32),
    /// Makes the first handle from the second: a clone, a producer or a consumer.
    Clone(u32, u32),
    Producer(u32, u32),
    Consumer(u32, u32),
    Close(u32),
    Shutdown(u32, bool),
    Put(u32, How, Vec<Plan>),
    Get(u32, How, usize),
    Look(u32),
    IsReady(u32),
    /// Repeats the operation until the process is killed.
    PutOn(u32, u32),
    GetOn(u32),
    Clear,
    Nothing,
}

#[derive(Serialize, Deserialize)]
enum Outcome {
    Done,
    Given(Box<Handle>),
    /// The number of items that were put, and the name of the error.
    Put(usize, String),
    Got(Vec<Plan>, String),
    Look {
        len: usize,
        is_full: bool,
        is_shut_down: bool,
    },
    IsReady(bool),
}

const MOMENT: Duration = Duration::from_micros(300);
const OK: &str = "";

/// An error whose variant is compared with the model's.
trait Named: fmt::Display {
    /// Returns the name of the variant, if the model knows it.
    fn variant(&self) -> Option<&'static str>;
}

macro_rules! named {
    ($($error:ident $(<$item:ident>)?: $($variant:ident)*;)*) => {$(
        impl $(<$item>)? Named for $error $(<$item>)? {
            fn variant(&self) -> Option<&'static str> {
                match self {
                    $(Self::$variant { .. } => Some(stringify!($variant)),)*
                    _ => None,
                }
            }
        }
    )*};
}

named! {
    PutError<T>: Closed Disconnected TooLarge;
    TryPutError<T>: Closed Disconnected TooLarge Full;
    PutTimeoutError<T>: Closed Disconnected TooLarge Timeout;
    GetError: Closed Disconnected;
    TryGetError: Closed Disconnected Empty;
    GetTimeoutError: Closed Disconnected Timeout;
}

/// Returns the name of the error's variant, or the text of an error that must not occur.
fn name(error: &impl Named) -> String {
    error.variant().map_or_else(|| error.to_string(), ToOwned::to_owned)
}

fn put(handle: &Handle, how: How, plans: &[Plan]) -> Outcome {
    macro_rules! put {
        ($handle:ident) => {{
            let mut items = plans.iter().map(|plan| plan.item());
            let mut item = || items.next().unwrap();
            let error = match how {
                How::Blocking => $handle.put(item()).err().map(|error| name(&error)),
                How::Try => $handle.try_put(item()).err().map(|error| name(&error)),
                How::Timeout => $handle.put_timeout(item(), MOMENT).err().map(|e| name(&e)),
                How::Many | How::TryMany => {
                    let items: Vec<_> = items.collect();
                    match $handle.put_many(items) {
                        Ok(()) => return Outcome::Put(plans.len(), OK.to_owned()),
                        Err(error) => {
                            let put = (error.put(), name(error.error()));
                            assert_eq!(error.into_items().len(), plans.len() - put.0);
                            return Outcome::Put(put.0, put.1);
                        }
                    }
                }
            };
            Outcome::Put(usize::from(error.is_none()), error.unwrap_or_default())
        }};
    }
    match handle {
        Handle::Both(queue) => put!(queue),
        Handle::Producer(producer) => put!(producer),
        Handle::Consumer(_) => unreachable!("not asked to"),
    }
}

fn get(handle: &Handle, how: How, max: usize) -> Outcome {
    macro_rules! get {
        ($handle:ident) => {{
            let result = match how {
                How::Blocking => $handle.get().map_err(|error| name(&error)),
                How::Try => $handle.try_get().map_err(|error| name(&error)),
                How::Timeout => $handle.get_timeout(MOMENT).map_err(|error| name(&error)),
                How::Many | How::TryMany => {
                    let result = match how {
                        How::Many => $handle.get_many_timeout(max, MOMENT),
                        _ => $handle.try_get_many(max),
                    };
                    return match result {
                        Ok(items) => {
                            Outcome::Got(items.into_iter().map(Plan::of).collect(), OK.to_owned())
                        }
                        Err(error) => Outcome::Got(Vec::new(), name(error.error())),
                    };
                }
            };
            match result {
                Ok(item) => Outcome::Got(vec![Plan::of(item)], OK.to_owned()),
                Err(error) => Outcome::Got(Vec::new(), error),
            }
        }};
    }
    match handle {
        Handle::Both(queue) => get!(queue),
        Handle::Consumer(consumer) => get!(consumer),
        Handle::Producer(_) => unreachable!("not asked to"),
    }
}

/// Calls the same method of any kind of handle.
macro_rules! any {
    ($handle:expr, $it:ident => $call:expr) => {
        match $handle {
            Handle::Both($it) => $call,
            Handle::Producer($it) => $call,
            Handle::Consumer($it) => $call,
        }
    };
}

/// Executes an operation with the handles of one process.
fn act(handles: &mut BTreeMap<u32, Handle>, op: Op) -> Outcome {
    match op {
        Op::Adopt(id, handle) => drop(handles.insert(id, *handle)),
        Op::Give(id) => return Outcome::Given(Box::new(handles.remove(&id).unwrap())),
        Op::Drop(id) => drop(handles.remove(&id).unwrap()),
        Op::Clone(id, of) => {
            let clone = match &handles[&of] {
                Handle::Both(queue) => Handle::Both(queue.clone()),
                Handle::Producer(producer) => Handle::Producer(producer.clone()),
                Handle::Consumer(consumer) => Handle::Consumer(consumer.clone()),
            };
            handles.insert(id, clone);
        }
        Op::Producer(id, of) => {
            let Handle::Both(queue) = &handles[&of] else { unreachable!("not asked to") };
            let producer = Handle::Producer(queue.producer());
            handles.insert(id, producer);
        }
        Op::Consumer(id, of) => {
            let Handle::Both(queue) = &handles[&of] else { unreachable!("not asked to") };
            let consumer = Handle::Consumer(queue.consumer());
            handles.insert(id, consumer);
        }
        Op::Close(id) => match &handles[&id] {
            Handle::Both(queue) => queue.close(),
            Handle::Producer(producer) => producer.close(),
            Handle::Consumer(_) => unreachable!("not asked to"),
        },
        Op::Shutdown(id, drain) => {
            let how = if drain { Shutdown::Drain } else { Shutdown::Now };
            any!(&handles[&id], handle => handle.shutdown(how));
        }
        Op::Put(id, how, plans) => return put(&handles[&id], how, &plans),
        Op::Get(id, how, max) => return get(&handles[&id], how, max),
        Op::Look(id) => {
            return any!(&handles[&id], handle => Outcome::Look {
                len: handle.len(),
                is_full: handle.is_full(),
                is_shut_down: handle.is_shut_down(),
            });
        }
        Op::IsReady(id) => {
            let ready = match &handles[&id] {
                Handle::Both(queue) => wait([queue], Some(Duration::ZERO)),
                Handle::Consumer(consumer) => wait([consumer], Some(Duration::ZERO)),
                Handle::Producer(_) => unreachable!("not asked to"),
            };
            return Outcome::IsReady(!ready.unwrap().is_empty());
        }
        Op::PutOn(id, start) => {
            for number in start.. {
                put(&handles[&id], How::Blocking, &[burst(number)]);
            }
        }
        Op::GetOn(id) => loop {
            get(&handles[&id], How::Blocking, 1);
        },
        Op::Clear => handles.clear(),
        Op::Nothing => {}
    }
    Outcome::Done
}

/// Returns the item that a process puts until it is killed.
fn burst(number: u32) -> Plan {
    let length = if number.is_multiple_of(5) { 40 } else { 3 };
    Plan { number, length, with_descriptor: number.is_multiple_of(4) }
}

/// Another process, which executes the operations it receives.
struct Actor {
    child: Process,
    connection: Connection<Op, Outcome>,
}

impl Actor {
    fn start() -> Self {
        let (connection, theirs) = duplex::<Op, Outcome>().unwrap();
        let run = |connection: Connection<Outcome, Op>| {
            let mut handles = BTreeMap::new();
            while let Ok(op) = connection.recv() {
                connection.send(act(&mut handles, op)).unwrap();
            }
        };
        Self { child: Process::spawn(run, theirs).unwrap(), connection }
    }

    fn act(&self, op: Op) -> Outcome {
        self.connection.send(op).unwrap();
        self.connection.recv().unwrap()
    }
}

/// The owner of a handle that belongs to this process rather than to an actor.
const HERE: usize = 2;

#[derive(Debug, Clone, Copy)]
struct Entry {
    owner: usize,
    puts: bool,
    gets: bool,
    /// The kind of the handle when it was made.
    is_producer: bool,
    is_both: bool,
}

/// The expected state of the queue.
struct Model {
    items: VecDeque<Plan>,
    capacity: Option<usize>,
    max_bytes: usize,
    shutdown: Option<Shutdown>,
    handles: BTreeMap<u32, Entry>,
    /// Whether the last consumer was killed.
    was_killed: bool,
    /// Whether a producer has found that no consumer is left. From then on all other handles know.
    is_orphaned: bool,
    /// The size of an item without its bytes: without and with a descriptor.
    bare: [usize; 2],
}

/// Returns the size of an item without its bytes.
fn bare(with_descriptor: bool) -> usize {
    let queue = Queue::builder().max_bytes(1).build().unwrap();
    let plan = Plan { number: 0, length: 0, with_descriptor };
    match queue.put(plan.item()).unwrap_err() {
        PutError::TooLarge { size, .. } => size,
        error => panic!("{error}"),
    }
}

const fn frame(size: usize) -> usize {
    (16 + size).next_multiple_of(16)
}

impl Model {
    fn size(&self, plan: Plan) -> usize {
        // The encoding of a longer length takes more bytes.
        let length = match plan.length {
            0..253 => 0,
            253..65_536 => 2,
            _ => 4,
        };
        self.bare[usize::from(plan.with_descriptor)] + length + plan.length
    }

    fn has_room(&self, plans: &[Plan]) -> bool {
        let frames = |plans: &mut dyn Iterator<Item = &Plan>| {
            plans.map(|plan| frame(self.size(*plan))).sum::<usize>()
        };
        let bytes = frames(&mut self.items.iter()) + frames(&mut plans.iter());
        self.capacity.is_none_or(|most| self.items.len() + plans.len() <= most)
            && bytes <= frame(self.max_bytes)
    }

    /// Returns the results that a put may have. The items that it puts follow from the result.
    fn put_may_say(&self, entry: Entry, how: How, plan: Plan) -> Vec<&'static str> {
        let is_too_large = self.size(plan) > self.max_bytes;
        let plain = match (is_too_large, self.has_room(&[plan]), how) {
            (true, ..) => "TooLarge",
            (_, true, _) => OK,
            (.., How::Try) => "Full",
            _ => "Timeout",
        };
        if !entry.puts {
            vec!["Closed"]
        } else if self.shutdown.is_some() {
            if is_too_large { vec!["Closed", "TooLarge"] } else { vec!["Closed"] }
        } else if !entry.gets && !self.handles.values().any(|entry| entry.gets) {
            // A killed consumer is not noticed at once as long as there is room.
            match plain {
                OK if self.is_orphaned => vec!["Disconnected"],
                OK | "TooLarge" if self.was_killed => vec![plain, "Disconnected"],
                _ => vec!["Disconnected"],
            }
        } else {
            vec![plain]
        }
    }

    /// Returns the result of a get that gets no item, or `None` if it gets one.
    fn get_says(&self, how: How) -> Option<&'static str> {
        if self.shutdown == Some(Shutdown::Now) {
            return Some("Closed");
        }
        if !self.items.is_empty() {
            return None;
        }
        Some(if self.shutdown.is_some() {
            "Closed"
        } else if !self.handles.values().any(|entry| entry.puts) {
            "Disconnected"
        } else {
            match how {
                How::Try => "Empty",
                How::Timeout => "Timeout",
                _ => OK,
            }
        })
    }

    /// Removes handles, and records whether the last consumer was among them.
    fn without(&mut self, is_gone: impl Fn(u32, &Entry) -> bool, by_kill: bool) {
        let gets = |model: &Self| model.handles.values().any(|entry| entry.gets);
        let before = gets(self);
        self.handles.retain(|id, entry| !is_gone(*id, entry));
        if before && !gets(self) {
            self.was_killed = by_kill;
        }
    }

    fn len(&self) -> usize {
        if self.shutdown == Some(Shutdown::Now) { 0 } else { self.items.len() }
    }

    /// Updates the model from the length that a handle reported. If no consumer is left, a producer
    /// has noticed that, unless it was closed or the queue was shut down, and the items are
    /// discarded.
    fn notice_length(&mut self, id: u32, len: usize) {
        let can_look = self.handles[&id].puts && self.shutdown.is_none();
        if self.handles.values().any(|entry| entry.gets) || !(can_look || len == 0) {
            return;
        }
        // The check is made only if there are items.
        self.is_orphaned |= can_look && !self.items.is_empty();
        self.items.clear();
    }
}

/// The queue, the model, and the processes that use them.
struct Stage {
    actors: [Option<Actor>; HERE],
    here: BTreeMap<u32, Handle>,
    bare: [usize; 2],
    is_traced: bool,
}

impl Stage {
    fn act(&mut self, owner: usize, op: Op) -> Outcome {
        if self.is_traced {
            eprintln!("{owner}: {op:?}");
        }
        match self.actors.get_mut(owner) {
            Some(actor) => actor.get_or_insert_with(Actor::start).act(op),
            None => act(&mut self.here, op),
        }
    }

    fn kill(&mut self, owner: usize) {
        if let Some(Actor { child, .. }) = self.actors[owner].take() {
            child.kill().unwrap();
            child.wait();
        }
    }

    fn sequence(&mut self, random: &mut fastrand::Rng) {
        let capacity = [None, Some(1), Some(3), Some(20)][random.usize(..4)];
        let max_bytes = [100, 3000, 300_000, 700_000][random.usize(..4)];
        let mut builder = Queue::builder().max_bytes(max_bytes);
        if let Some(capacity) = capacity {
            builder = builder.capacity(capacity);
        }
        let queue = builder.build().unwrap();
        let all = Entry { owner: HERE, puts: true, gets: true, is_producer: false, is_both: true };
        let mut model = Model {
            items: VecDeque::new(),
            capacity,
            max_bytes,
            shutdown: None,
            handles: [(0, all)].into(),
            was_killed: false,
            is_orphaned: false,
            bare: self.bare,
        };
        self.here.insert(0, Handle::Both(queue));
        let mut next_id = 1;
        let mut next_number = 0;
        for _ in 0..random.usize(5..40) {
            let Some((&id, &entry)) =
                model.handles.iter().nth(random.usize(..model.handles.len().max(1)))
            else {
                break;
            };
            let how = [How::Blocking, How::Try, How::Timeout, How::Many, How::TryMany];
            let how = how[random.usize(..5)];
            let owner = entry.owner;
            let can_put = entry.is_producer || entry.is_both;
            match random.u32(..100) {
                0..35 if can_put => self.put(random, &mut model, id, how, &mut next_number),
                35..65 if !entry.is_producer => self.get(random, &mut model, id, how),
                0..65 => {}
                65..72 => {
                    // A clone, or a handle with fewer rights.
                    let (op, entry) = match random.u32(..3) {
                        1 if entry.is_both => (
                            Op::Producer(next_id, id),
                            Entry { gets: false, is_producer: true, is_both: false, ..entry },
                        ),
                        2 if entry.is_both => (
                            Op::Consumer(next_id, id),
                            Entry { puts: false, is_both: false, ..entry },
                        ),
                        _ => (Op::Clone(next_id, id), entry),
                    };
                    self.act(owner, op);
                    model.handles.insert(next_id, entry);
                    next_id += 1;
                }
                72..80 => {
                    let Outcome::Given(handle) = self.act(owner, Op::Give(id)) else {
                        panic!("not given")
                    };
                    // The giver keeps its handle open until its next answer.
                    self.act(owner, Op::Nothing);
                    let to = random.usize(..=HERE);
                    self.act(to, Op::Adopt(id, handle));
                    model.handles.insert(id, Entry { owner: to, ..entry });
                }
                80..85 => {
                    self.act(owner, Op::Drop(id));
                    model.without(|other, _| other == id, false);
                }
                85..87 if can_put => {
                    self.act(owner, Op::Close(id));
                    model.handles.insert(id, Entry { puts: false, ..entry });
                }
                87 => {
                    let drain = random.bool();
                    self.act(owner, Op::Shutdown(id, drain));
                    if !drain {
                        model.shutdown = Some(Shutdown::Now);
                        model.items.clear();
                    } else if model.shutdown.is_none() {
                        model.shutdown = Some(Shutdown::Drain);
                    }
                }
                88..92 if !entry.is_producer => {
                    let says = model.get_says(How::Try);
                    let Outcome::IsReady(is_ready) = self.act(owner, Op::IsReady(id)) else {
                        panic!("no answer")
                    };
                    assert_eq!(is_ready, says != Some("Empty"), "{says:?}");
                }
                92..94 if owner != HERE => {
                    self.kill(owner);
                    model.without(|_, entry| entry.owner == owner, true);
                }
                94..97 if owner != HERE && random.bool() => {
                    self.kill_in_the_middle(random, &mut model, id, &mut next_number);
                }
                _ => {}
            }
            self.look(&mut model);
        }
        self.here.clear();
        for owner in 0..HERE {
            if self.actors[owner].is_some() {
                self.act(owner, Op::Clear);
            }
        }
    }

    fn look(&mut self, model: &mut Model) {
        let Some((&id, &Entry { owner, .. })) = model.handles.iter().next() else { return };
        let Outcome::Look { len, is_full, is_shut_down } = self.act(owner, Op::Look(id)) else {
            panic!("no answer")
        };
        model.notice_length(id, len);
        assert_eq!(len, model.len());
        assert_eq!(is_full, model.capacity == Some(len));
        assert_eq!(is_shut_down, model.shutdown.is_some());
    }

    fn put(
        &mut self,
        random: &mut fastrand::Rng,
        model: &mut Model,
        id: u32,
        how: How,
        next_number: &mut u32,
    ) {
        let entry = model.handles[&id];
        let count = if matches!(how, How::Many | How::TryMany) { random.usize(1..10) } else { 1 };
        let plans: Vec<_> = (0..count)
            .map(|_| {
                *next_number += 1;
                let length = match random.u32(..20) {
                    0..14 => random.usize(..40),
                    14..18 => random.usize(..3100),
                    _ => random.usize(..150_000),
                };
                Plan { number: *next_number, length, with_descriptor: random.u32(..5) == 0 }
            })
            .collect();
        // Operations that would block indefinitely are skipped.
        let waits = model.put_may_say(entry, How::Try, plans[0]).contains(&"Full");
        if (!matches!(how, How::Try | How::Timeout) && waits)
            || (count > 1 && !model.has_room(&plans))
        {
            return;
        }
        let may_say = model.put_may_say(entry, how, plans[0]);
        let Outcome::Put(put, said) = self.act(entry.owner, Op::Put(id, how, plans.clone())) else {
            panic!("no answer")
        };
        let what = format!("{how:?} of {plans:?}: put {put}, said {said:?}, may say {may_say:?}");
        assert!(
            may_say.contains(&&*said) || (said == "TooLarge" && may_say.contains(&OK)),
            "{what}"
        );
        // All items up to the first one that is too large.
        let fits = |plan: &&Plan| model.size(**plan) <= model.max_bytes;
        let good = plans.iter().take_while(fits).count();
        match &*said {
            OK => assert_eq!((put, good), (count, count), "{what}"),
            "TooLarge" => assert_eq!(put, good, "{what}"),
            // It may be noticed in the middle of the batch.
            "Disconnected" if may_say.len() > 1 => assert!(put <= good, "{what}"),
            _ => assert_eq!(put, 0, "{what}"),
        }
        model.items.extend(&plans[..put]);
        if said == "Disconnected" {
            model.is_orphaned = true;
            model.items.clear();
        }
    }

    fn get(&mut self, random: &mut fastrand::Rng, model: &mut Model, id: u32, how: How) {
        let says = model.get_says(how);
        if matches!(how, How::Blocking) && says == Some(OK) {
            return;
        }
        let max = random.usize(1..10);
        let owner = model.handles[&id].owner;
        let Outcome::Got(items, said) = self.act(owner, Op::Get(id, how, max)) else {
            panic!("no answer")
        };
        let is_many = matches!(how, How::Many | How::TryMany);
        let what = format!("{how:?}: got {items:?}, said {said:?}; there are {:?}", model.items);
        assert_eq!(said, says.unwrap_or(OK), "{what}");
        if says.is_none() {
            assert!((1..=if is_many { max } else { 1 }).contains(&items.len()), "{what}");
        } else {
            assert!(items.is_empty(), "{what}");
        }
        for item in &items {
            assert_eq!(model.items.pop_front(), Some(*item), "{what}");
        }
    }

    /// Kills a process that puts or gets items one after the other. What it has completed is kept.
    fn kill_in_the_middle(
        &mut self,
        random: &mut fastrand::Rng,
        model: &mut Model,
        id: u32,
        next_number: &mut u32,
    ) {
        let entry = model.handles[&id];
        let survives = model.handles.values().any(|other| other.owner != entry.owner);
        if model.shutdown.is_some() || !survives {
            return;
        }
        let start = *next_number + 4 - *next_number % 4;
        let may_say = model.put_may_say(entry, How::Try, burst(start));
        let puts = entry.puts && (may_say == [OK] || may_say == ["Full"]);
        let op = match random.bool() {
            true if puts => Op::PutOn(id, start),
            false if entry.gets => Op::GetOn(id),
            _ => return,
        };
        let is_put = matches!(op, Op::PutOn(..));
        let actor = self.actors[entry.owner].as_ref().unwrap();
        actor.connection.send(op).unwrap();
        std::thread::sleep(Duration::from_micros(random.u64(..400)));
        self.kill(entry.owner);
        model.without(|_, other| other.owner == entry.owner, true);
        let (&id, &Entry { owner, .. }) = model.handles.iter().next().unwrap();
        let Outcome::Look { len, .. } = self.act(owner, Op::Look(id)) else { panic!("no answer") };
        model.notice_length(id, len);
        // If it got, the queue may have become empty, and then nothing checked for consumers.
        model.is_orphaned &= is_put;
        if model.is_orphaned {
            assert_eq!(len, 0);
        } else if is_put {
            for number in (start..).take(len - model.items.len()) {
                assert!(model.has_room(&[burst(number)]));
                model.items.push_back(burst(number));
                *next_number = number;
            }
        } else {
            model.items.drain(..model.items.len() - len);
        }
    }
}

#[test]
fn queue_behaves_as_the_model_under_random_operations() {
    let sequences = if env::var_os("MULTIPROC_SOAK_SECONDS").is_some() { 100_000 } else { 2_000 };
    let seed =
        env::var("MULTIPROC_SEED").map_or_else(|_| fastrand::u64(..), |n| n.parse().unwrap());
    eprintln!("seeds from {seed} on");
    let bare = [false, true].map(bare);
    let is_traced = env::var_os("MULTIPROC_TRACE").is_some();
    let mut stage = Stage { actors: [None, None], here: BTreeMap::new(), bare, is_traced };
    let mut dog = watchdog();
    for n in 0..sequences {
        if n % 1000 == 999 {
            dog = watchdog();
        }
        let seed = seed.wrapping_add(n);
        let told = Told(seed);
        stage.sequence(&mut fastrand::Rng::with_seed(seed));
        std::mem::forget(told);
    }
    drop(dog);
}

/// Prints the seed when it is dropped, which happens only on a panic.
struct Told(u64);

impl Drop for Told {
    fn drop(&mut self) {
        eprintln!("the seed of the sequence that failed is {}", self.0);
    }
}
