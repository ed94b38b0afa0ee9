//! What all handles of a queue are made of: the region, the ends of the lane, and the calls between
//! values and bytes.

mod detached;
mod ends;
mod get;
mod put;
mod put_value;
mod tasks;
mod wire;

use std::io;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use multiproc_shm::Deadline;

pub(crate) use self::get::GetFailure;
pub(crate) use self::put::PutFailure;
use crate::engine::joinable::Hints;
use crate::engine::pacing::Pace;
use crate::engine::ring::Ring;
use crate::fd_lane::{self, End, Role};
use crate::memory::{Store, TaskLimits};

/// How long `try_put` and `try_get` wait for one another's lock. It is held for less than a
/// microsecond by whoever runs, so after this long its holder is stopped.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);

/// The same for one who waits for many things, and not long for any of them.
pub(crate) const MOMENT: Duration = Duration::from_millis(10);

/// So many items are put or got under one lock, at most,
const BATCH: usize = 128;

/// and about so many bytes.
const BATCH_BYTES: usize = 64 * 1024;

/// See the module's text. It is public because the handles dereference to it: see the module `put_value`.
pub struct Inner<T> {
    pub(crate) store: Store,
    /// None: this handle does not put (any more).
    ///
    /// No mutex: a thread that held one at a fork(2) would hold it forever in the child.
    producer: ArcSwapOption<End>,
    /// Whether there is none, for a look without the mutex.
    is_closed: AtomicBool,
    /// None: this handle does not get.
    pub(crate) consumer: Option<Arc<End>>,
    /// The number of closed handles on the other side, when last looked.
    closed_consumers: AtomicU32,
    closed_producers: AtomicU32,
    /// What it has seen of tasks.
    pub(crate) hints: Hints,
    /// When it was last looked for tasks of the dead, in ms.
    pub(crate) reclaimed_at: AtomicU64,
    /// How many items were put, for a look now and then.
    puts: AtomicU32,
    /// Whether the type was found to be one whose items can be got.
    pub(crate) is_type_checked: AtomicBool,
    put_pace: Pace,
    get_pace: Pace,
    name: Option<Arc<str>>,
    items: PhantomData<fn(T) -> T>,
}

/// How long an operation waits.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wait {
    /// Not at all, if there is nothing to do.
    Now,
    Deadline(Deadline),
}

impl Wait {
    pub(crate) const FOREVER: Self = Self::Deadline(Deadline::NEVER);

    pub(crate) fn for_at_most(timeout: Duration) -> Self {
        Self::Deadline(Deadline::after(timeout))
    }

    pub(crate) fn until(deadline: Instant) -> Self {
        Self::Deadline(Deadline::at(deadline))
    }
}

/// For an operation that waits without a deadline and has not been told why it failed.
#[cold]
pub(crate) fn only_a_deadline_gives_up() -> ! {
    unreachable!("only a deadline gives up")
}

impl<T> Inner<T> {
    pub(crate) fn create(
        name: Option<&str>,
        capacity: Option<usize>,
        max_bytes: usize,
        tasks: Option<TaskLimits>,
    ) -> io::Result<Self> {
        let store = Store::create(name.unwrap_or(""), capacity, max_bytes, tasks)?;
        let (producer, consumer) = fd_lane::pair()?;
        let end = |socket, role| End::new(socket, role, store.region.clone()).map(Arc::new);
        let producer = Some(end(producer, Role::Producer)?);
        let consumer = Some(end(consumer, Role::Consumer)?);
        Ok(Self::over(store, producer, consumer, name.map(Arc::from)))
    }

    fn over(
        store: Store,
        producer: Option<Arc<End>>,
        consumer: Option<Arc<End>>,
        name: Option<Arc<str>>,
    ) -> Self {
        let config = &store.region.control().config;
        config.fences.join();
        // One less, so that the first call looks.
        let before = |closed: &AtomicU32| closed.load(Ordering::Relaxed).wrapping_sub(1).into();
        let closed_consumers = before(&config.closed_consumers);
        let closed_producers = before(&config.closed_producers);
        Self {
            store,
            is_closed: AtomicBool::new(producer.is_none()),
            producer: ArcSwapOption::new(producer),
            consumer,
            closed_consumers,
            closed_producers,
            hints: Hints::default(),
            reclaimed_at: AtomicU64::new(0),
            puts: AtomicU32::new(0),
            is_type_checked: AtomicBool::new(false),
            put_pace: Pace::default(),
            get_pace: Pace::default(),
            name,
            items: PhantomData,
        }
    }

    /// Another handle of the same queue; with the ends that are asked for, if this one has them.
    pub(crate) fn handle<U>(&self, puts: bool, gets: bool) -> Inner<U> {
        let producer = self.producer_end().filter(|_| puts);
        let consumer = self.consumer.clone().filter(|_| gets);
        Inner::over(self.store.clone(), producer, consumer, self.name.clone())
    }

    fn producer_end(&self) -> Option<Arc<End>> {
        self.producer.load_full()
    }

    /// The queue, as this process sees it.
    #[inline]
    pub(crate) fn ring(&self) -> Ring<'_, Store> {
        Ring {
            control: self.store.region.control(),
            limits: self.store.limits,
            hot: self.store.hot(),
            puts: &self.put_pace,
            gets: &self.get_pace,
            members: &self.store,
        }
    }

    /// How many items can be got.
    pub(crate) fn len(&self) -> usize {
        self.discard_unreachable();
        self.gettable_len()
    }

    fn gettable_len(&self) -> usize {
        match self.store.tasks {
            None => self.ring_len(),
            Some(_) => self.tasks_len(),
        }
    }

    /// How many take a place of the queue's capacity: tasks that have come back do not.
    pub(crate) fn items(&self) -> usize {
        self.discard_unreachable();
        self.ring_len()
    }

    fn ring_len(&self) -> usize {
        usize::try_from(self.ring().len()).unwrap_or(usize::MAX)
    }

    pub(crate) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }
}
