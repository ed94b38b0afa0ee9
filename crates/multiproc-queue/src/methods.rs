//! What several kinds of handles can do alike, each with its documentation: macros, so that it is
//! written once.

use crate::error::GetError;

/// Returns what `get` returns, until that is the end of the queue, or the same error would follow
/// forever.
pub(crate) fn until_the_end<T>(
    get: impl Fn() -> Result<T, GetError>,
) -> impl Iterator<Item = Result<T, GetError>> {
    let mut is_over = false;
    std::iter::from_fn(move || {
        if is_over {
            return None;
        }
        let result = get();
        let is_end = matches!(result, Err(GetError::Closed | GetError::Disconnected));
        is_over = is_end || matches!(result, Err(GetError::Corrupted(_)));
        Some(result).filter(|_| !is_end)
    })
}

/// What every handle can do.
macro_rules! common {
    ($name:ident, $expected:literal, $puts:literal, $gets:literal, $is_right:expr) => {
        impl<T> $name<T> {
            /// How many items there are: exact at one moment during the call, over all processes.
            #[must_use]
            pub fn len(&self) -> usize {
                self.inner.len()
            }

            /// Whether there are no items.
            #[must_use]
            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }

            /// Whether there are as many items as the queue holds. (If they are large, there may be no
            /// room for another one before that.)
            #[must_use]
            pub fn is_full(&self) -> bool {
                self.capacity() == Some(self.inner.items())
            }

            /// How many items the queue holds; `None`: as many as there is room for in
            /// [`max_bytes`](Self::max_bytes).
            #[must_use]
            pub fn capacity(&self) -> Option<usize> {
                self.inner.store.capacity
            }

            /// How many bytes the queue's items take at most, and so how large one can be.
            #[must_use]
            pub fn max_bytes(&self) -> usize {
                self.inner.store.max_bytes
            }

            /// The name that the queue was made with.
            #[must_use]
            pub fn name(&self) -> Option<&str> {
                self.inner.name()
            }

            /// Ends the queue for everybody: nobody puts any more. Everybody who waits is woken, in
            /// every process.
            ///
            /// With [`Shutdown::Drain`], queued items can still be got, then getting is an error,
            /// `Closed`; with [`Shutdown::Now`], it is one at once. Putting is `Closed` in both
            /// cases. A put that is under way at that moment has either succeeded, and its item is
            /// got, or it is `Closed`. It cannot be taken back; `Now` may follow `Drain`.
            ///
            /// `Now` discards the queued items before it returns: their memory is released, and the
            /// handles in them are closed, so that a peer that waits for one of these gets
            /// `Disconnected`. Two things can delay this until any process next calls the queue and
            /// finds it closed:
            ///
            /// - A [`Producer`](crate::Producer) cannot receive handles, so it cannot close them
            ///   either. A process with a `Queue` or a [`Consumer`](crate::Consumer) does, when it
            ///   gets, puts or waits; one that is already waiting is woken for it. A process that
            ///   only keeps such a handle closes them when it drops it.
            /// - A process that was stopped (SIGSTOP) in the middle of a put or a get keeps the memory
            ///   from being released. The call waits for up to a second for such a process.
            pub fn shutdown(&self, how: Shutdown) {
                self.inner.shut_down(how == Shutdown::Drain);
            }

            /// Whether the queue was [shut down](Self::shutdown).
            #[must_use]
            pub fn is_shut_down(&self) -> bool {
                self.inner.store.region.control().is_shut_down()
            }

            /// For a manager: how many living processes have it open, but those that stand aside; whether
            /// consumers and producers wait; and how many items were put and got so far.
            #[doc(hidden)]
            #[must_use]
            pub fn inspect(&self) -> (usize, (bool, bool), Option<(u64, u64)>) {
                let ring = self.inner.ring();
                let members = self.inner.store.region.live_members();
                (members, ring.control.has_sleepers(), ring.counts())
            }

            /// For a manager, which keeps it for others: its death means nothing.
            #[doc(hidden)]
            pub fn stand_aside(&self) {
                self.inner.store.region.stand_aside();
            }

            /// Whether both are handles of the same queue.
            #[must_use]
            pub fn is_same(&self, other: &Self) -> bool {
                self.inner.store.region.is_same(&other.inner.store.region)
            }
        }

        impl<T> Clone for $name<T> {
            fn clone(&self) -> Self {
                Self { inner: self.inner.handle($puts, $gets).into() }
            }
        }

        impl<T> fmt::Debug for $name<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let ring = self.inner.ring();
                let (consumers_wait, producers_wait) = ring.control.has_sleepers();
                f.debug_struct(stringify!($name))
                    .field("name", &self.name())
                    .field("len", &self.len())
                    .field("capacity", &self.capacity())
                    .field("bytes", &ring.bytes())
                    .field("max_bytes", &self.max_bytes())
                    .field("members", &self.inner.store.region.members())
                    .field("consumers_wait", &consumers_wait)
                    .field("producers_wait", &producers_wait)
                    .field("is_shut_down", &self.is_shut_down())
                    .finish()
            }
        }

        impl<T> Serialize for $name<T> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                self.inner.serialize(serializer)
            }
        }

        impl<'de, T> Deserialize<'de> for $name<T> {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Ok(Self { inner: Inner::deserialize(deserializer, $expected, $is_right)?.into() })
            }
        }
    };
}

/// What handles can do that put.
macro_rules! puts {
    ($name:ident) => {
        impl<T> $name<T> {
            /// Puts no more through this handle: from now on, that is an error, `Closed`.
            ///
            /// Other handles, clones of this one among them, are as before. When the last one that
            /// can put is closed or dropped, consumers get what is left and then `Disconnected`.
            pub fn close(&self) {
                self.inner.close();
            }
        }

        impl<T: Serialize + Deserialize<'static>> $name<T> {
            /// Puts an item, waiting for room as long as it takes.
            ///
            /// When it returns `Ok`, the item is in shared memory, and nothing that happens to this
            /// process can take it back. The value itself is then dropped here, and the consumer gets
            /// one of its own: a `Drop` of its type runs in both processes.
            ///
            /// # Errors
            ///
            /// See [`PutError`]: it gives the item back. An item of a type that could be put and not be
            /// got (an enum with serde's `untagged`, for example) is an
            /// [`Encode`](PutError::Encode) error.
            #[inline]
            pub fn put(&self, item: T) -> Result<(), PutError<T>> {
                self.inner.put_checked(item, Wait::FOREVER)
            }

            /// Puts an item if there is room, without waiting for it.
            ///
            /// # Errors
            ///
            /// [`Full`](TryPutError::Full) if there is none; else as [`put`](Self::put).
            #[inline]
            pub fn try_put(&self, item: T) -> Result<(), TryPutError<T>> {
                self.inner.put_checked(item, Wait::Now)
            }

            /// Puts an item, waiting for room for at most `timeout`, which bounds the whole call.
            ///
            /// # Errors
            ///
            /// [`Timeout`](PutTimeoutError::Timeout) if there was none in time; else as
            /// [`put`](Self::put).
            pub fn put_timeout(
                &self,
                item: T,
                timeout: Duration,
            ) -> Result<(), PutTimeoutError<T>> {
                self.inner.put_checked(item, Wait::for_at_most(timeout))
            }

            /// Puts an item, waiting for room until `deadline` at most.
            ///
            /// # Errors
            ///
            /// As [`put_timeout`](Self::put_timeout).
            pub fn put_deadline(
                &self,
                item: T,
                deadline: Instant,
            ) -> Result<(), PutTimeoutError<T>> {
                self.inner.put_checked(item, Wait::until(deadline))
            }

            /// Puts all items of an iterator, in order, waiting for room as long as it takes.
            ///
            /// Faster than one by one: up to 128 items are put in one step, so that other processes
            /// see all of them or none. How many, follows from what the iterator says it has at least
            /// (its [`size_hint`](Iterator::size_hint)); one that does not know, as one that waits for
            /// its items, is put item by item.
            ///
            /// While the iterator runs, nothing of the queue is held: it may block, and if it
            /// panics, the items of the current step are dropped with it and not put.
            ///
            /// # Errors
            ///
            /// As [`put`](Self::put), with what was taken from the iterator and not put.
            pub fn put_many(
                &self,
                items: impl IntoIterator<Item = T>,
            ) -> Result<(), PutManyError<T>> {
                self.inner.put_many_checked(items)
            }
        }

        /// For types that are not known to implement `Deserialize`.
        impl<T> Deref for $name<T> {
            type Target = Inner<T>;

            #[inline]
            fn deref(&self) -> &Inner<T> {
                &self.inner
            }
        }
    };
}

/// What handles can do that get.
macro_rules! gets {
    ($name:ident) => {
        impl<T: DeserializeOwned> $name<T> {
            /// Takes the next item, waiting for it as long as it takes.
            ///
            /// # Errors
            ///
            /// See [`GetError`].
            pub fn get(&self) -> Result<T, GetError> {
                self.inner.get(Wait::FOREVER)
            }

            /// Takes the next item if there is one, without waiting for it.
            ///
            /// # Errors
            ///
            /// [`Empty`](TryGetError::Empty) if there is none; else as [`get`](Self::get).
            pub fn try_get(&self) -> Result<T, TryGetError> {
                self.inner.get(Wait::Now)
            }

            /// Takes the next item, waiting for it for at most `timeout`, which bounds the whole call.
            ///
            /// # Errors
            ///
            /// [`Timeout`](GetTimeoutError::Timeout) if there was none in time; else as
            /// [`get`](Self::get).
            pub fn get_timeout(&self, timeout: Duration) -> Result<T, GetTimeoutError> {
                self.inner.get(Wait::for_at_most(timeout))
            }

            /// Takes the next item, waiting for it until `deadline` at most.
            ///
            /// # Errors
            ///
            /// As [`get_timeout`](Self::get_timeout).
            pub fn get_deadline(&self, deadline: Instant) -> Result<T, GetTimeoutError> {
                self.inner.get(Wait::until(deadline))
            }

            /// Takes up to `max` items at once, waiting for the first one as long as it takes.
            ///
            /// Faster than one by one; but a process that is killed takes all of them along, as if it
            /// were killed after so many `get`s. At most 128 come at a time, and fewer if they are
            /// large or have descriptors; none only if `max` is 0.
            ///
            /// # Errors
            ///
            /// As [`get`](Self::get). If some items cannot be decoded, the others are in the error.
            pub fn get_many(&self, max: usize) -> Result<Vec<T>, GetManyError<T>> {
                self.inner.get_many(max, Wait::FOREVER)
            }

            /// Takes up to `max` items at once, as [`get_many`](Self::get_many), without waiting: none
            /// if there are none.
            ///
            /// # Errors
            ///
            /// As [`get_many`](Self::get_many).
            pub fn try_get_many(&self, max: usize) -> Result<Vec<T>, GetManyError<T>> {
                self.inner.get_many(max, Wait::Now)
            }

            /// Takes up to `max` items at once, as [`get_many`](Self::get_many), waiting for the first
            /// one for at most `timeout`: none if there was none.
            ///
            /// # Errors
            ///
            /// As [`get_many`](Self::get_many).
            pub fn get_many_timeout(
                &self,
                max: usize,
                timeout: Duration,
            ) -> Result<Vec<T>, GetManyError<T>> {
                self.inner.get_many(max, Wait::for_at_most(timeout))
            }

            /// All items to come, waiting for each. It ends when the queue does: when `get` would say
            /// `Closed` or `Disconnected`.
            ///
            /// An item that cannot be decoded is an `Err`, and does not end it.
            pub fn iter(&self) -> impl Iterator<Item = Result<T, GetError>> + '_ {
                until_the_end(|| self.get())
            }
        }
    };
}

/// Ready when `get` would not wait: there is an item, or there will never be one. Whoever is woken
/// may still find that another process has been quicker.
macro_rules! ready_to_get {
    ($name:ident) => {
        impl<T> Source for $name<T> {
            fn watch<'a>(&'a self, add: &mut dyn FnMut(BorrowedFd<'a>)) {
                self.inner.watch_consumer(add);
            }

            fn prepare(&self) -> io::Result<bool> {
                self.inner.prepare_to_get()
            }

            fn woken(&self) -> io::Result<bool> {
                self.inner.prepare_to_get()
            }

            /// The doorbell may be lost with a producer that is killed.
            fn longest_sleep(&self) -> Duration {
                RECHECK
            }
        }
    };
}

pub(crate) use {common, gets, puts, ready_to_get};
