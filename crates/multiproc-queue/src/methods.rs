//! The methods that several kinds of handles share, with their documentation. They are macros, so
//! that each is written once: a signature, its documentation, and one line. Nearly all of its
//! length is documentation.

/// The methods of every handle.
macro_rules! common {
    ($name:ident, $expected:literal, $puts:literal, $gets:literal, $is_right:expr) => {
        impl<T> $name<T> {
            /// Returns the number of queued items. It is exact at one moment during the call, over
            /// all processes.
            #[doc(alias = "qsize")]
            #[must_use]
            pub fn len(&self) -> usize {
                self.inner.len()
            }

            /// Returns `true` if no items are queued.
            #[doc(alias = "empty")]
            #[must_use]
            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }

            /// Returns `true` if the queue holds as many items as its capacity.
            ///
            /// A queue that is not full may still have no room for a large item: see
            /// [`max_bytes`](Self::max_bytes).
            #[doc(alias = "full")]
            #[must_use]
            pub fn is_full(&self) -> bool {
                self.capacity() == Some(self.inner.items())
            }

            /// Returns the maximum number of items, or `None` if only their bytes are limited, by
            /// [`max_bytes`](Self::max_bytes).
            #[doc(alias = "maxsize")]
            #[must_use]
            pub fn capacity(&self) -> Option<usize> {
                self.inner.store.capacity
            }

            /// Returns the maximum number of bytes of all queued items together. It is also the
            /// maximum encoded size of one item.
            #[must_use]
            pub fn max_bytes(&self) -> usize {
                self.inner.store.max_bytes
            }

            /// Returns the name that the queue was created with.
            #[must_use]
            pub fn name(&self) -> Option<&str> {
                self.inner.name()
            }

            /// Ends the queue for all processes, and wakes all of them that wait.
            ///
            /// After this, putting fails with `Closed`. With [`Shutdown::Drain`], queued items can
            /// still be got, and then getting fails with `Closed`; with [`Shutdown::Now`], it fails
            /// at once. A put that is under way has either succeeded, and its item is delivered, or
            /// fails with `Closed`. A shutdown cannot be undone. `Now` may follow `Drain`.
            ///
            /// `Now` discards the queued items before it returns. Their memory is released and the
            /// handles in them are closed, so that a peer that waits for one of these gets
            /// `Disconnected`. In two cases this is delayed until any process next calls the queue
            /// and finds it closed:
            ///
            /// - A [`Producer`](crate::Producer) cannot receive handles, so it cannot close them
            ///   either. A process with a `Queue` or a [`Consumer`](crate::Consumer) closes them
            ///   when it gets, puts or waits; one that is already waiting is woken for it. A
            ///   process that only keeps such a handle closes them when it drops it.
            /// - A process that was stopped (SIGSTOP) in the middle of a put or a get keeps the
            ///   memory from being released. The call waits up to a second for such a process.
            ///
            /// If this process is killed during the call, the next process that finds the queue
            /// closed discards the items.
            pub fn shutdown(&self, how: Shutdown) {
                self.inner.shut_down(how == Shutdown::Drain);
            }

            /// Returns `true` if the queue was [shut down](Self::shutdown).
            #[must_use]
            pub fn is_shut_down(&self) -> bool {
                self.inner.store.region.control().is_shut_down()
            }

            /// For a manager: returns the number of live processes that have the queue open,
            /// without observers; whether consumers and producers wait; and the number of items
            /// that were put and got so far.
            #[doc(hidden)]
            #[must_use]
            pub fn inspect(&self) -> (usize, (bool, bool), Option<(u64, u64)>) {
                let ring = self.inner.ring();
                let members = self.inner.store.region.live_members();
                (members, ring.control.has_sleepers(), ring.counts())
            }

            /// For a manager, which keeps the handle for others: turns this process into an
            /// observer, whose death has no meaning.
            #[doc(hidden)]
            pub fn observe(&self) {
                self.inner.observe();
            }

            /// Returns `true` if both are handles of the same queue.
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

/// The methods of handles that can put.
macro_rules! puts {
    ($name:ident) => {
        impl<T> $name<T> {
            /// Stops putting through this handle: from now on, putting fails with `Closed`.
            ///
            /// Other handles, including clones of this one, are not affected. When the last handle
            /// that can put is closed or dropped, consumers get the remaining items and then
            /// `Disconnected`.
            #[doc(alias = "cancel_join_thread")]
            #[doc(alias = "join_thread")]
            pub fn close(&self) {
                self.inner.close();
            }
        }

        impl<T: Serialize + Deserialize<'static>> $name<T> {
            /// Puts an item, and waits for room if necessary.
            ///
            /// When this returns `Ok`, the item is in shared memory, and is delivered even if this
            /// process is killed at the next instruction. The value is dropped here, and the
            /// consumer gets its own copy: a `Drop` of its type runs in both processes.
            ///
            /// If other producers or consumers are killed, the call goes on. If no consumer is
            /// left, it fails: at once if the last one was closed, and within a second if it was
            /// killed while this call waits.
            ///
            /// # Errors
            ///
            /// See [`PutError`], which returns the item. An item of a type that could be put and
            /// not be got (an enum with serde's `untagged`, for example) is an
            /// [`Encode`](PutError::Encode) error.
            ///
            /// # Examples
            ///
            /// ```
            /// use multiproc_queue::Queue;
            ///
            /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
            /// let queue = Queue::bounded(10)?;
            /// queue.put(7)?;
            /// assert_eq!(queue.get()?, 7);
            /// # Ok(())
            /// # }
            /// ```
            #[doc(alias = "send")]
            #[doc(alias = "enqueue")]
            #[doc(alias = "push")]
            #[inline]
            pub fn put(&self, item: T) -> Result<(), PutError<T>> {
                self.inner.put_checked(item, Wait::FOREVER)
            }

            /// Puts an item if there is room now.
            ///
            /// # Errors
            ///
            /// [`Full`](TryPutError::Full) if there is no room. Otherwise as [`put`](Self::put).
            ///
            /// # Examples
            ///
            /// ```
            /// use multiproc_queue::Queue;
            ///
            /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
            /// let queue = Queue::bounded(1)?;
            /// queue.try_put("first".to_owned())?;
            /// let refused = queue.try_put("second".to_owned()).unwrap_err();
            /// assert!(refused.is_full());
            /// assert_eq!(refused.into_inner(), "second");
            /// # Ok(())
            /// # }
            /// ```
            #[doc(alias = "put_nowait")]
            #[doc(alias = "try_send")]
            #[inline]
            pub fn try_put(&self, item: T) -> Result<(), TryPutError<T>> {
                self.inner.put_checked(item, Wait::Now)
            }

            /// Puts an item, and waits for room for at most `timeout`, which bounds the whole call.
            ///
            /// If another process is killed, the call behaves as [`put`](Self::put).
            ///
            /// # Errors
            ///
            /// [`Timeout`](PutTimeoutError::Timeout) if there was no room before the timeout.
            /// Otherwise as [`put`](Self::put).
            ///
            /// # Examples
            ///
            /// ```
            /// use multiproc_queue::Queue;
            ///
            /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
            /// use std::time::Duration;
            /// let queue = Queue::bounded(1)?;
            /// queue.put_timeout(1, Duration::from_millis(1))?;
            /// assert!(queue.put_timeout(2, Duration::from_millis(1)).unwrap_err().is_timeout());
            /// # Ok(())
            /// # }
            /// ```
            pub fn put_timeout(
                &self,
                item: T,
                timeout: Duration,
            ) -> Result<(), PutTimeoutError<T>> {
                self.inner.put_checked(item, Wait::for_at_most(timeout))
            }

            /// Puts an item, and waits for room until `deadline` at most.
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

            /// Puts all items of an iterator, in order, and waits for room if necessary.
            ///
            /// This is faster than putting one by one. Up to 128 items are put in one step, and
            /// other processes see all items of a step or none. The size of a step is the number of
            /// items that the iterator certainly has left: the lower bound of its
            /// [`size_hint`](Iterator::size_hint). If it does not know any, as an iterator that
            /// waits for its items, they are put one by one.
            ///
            /// While the iterator runs, no lock is held. It may block. If it panics, the items of
            /// the current step are dropped and not put. If this process is killed, the steps that
            /// were put are delivered.
            ///
            /// # Errors
            ///
            /// As [`put`](Self::put), with the items that were taken from the iterator and not put.
            ///
            /// # Examples
            ///
            /// ```
            /// use multiproc_queue::Queue;
            ///
            /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
            /// let queue = Queue::unbounded()?;
            /// queue.put_many(["a", "b", "c"].map(str::to_owned))?;
            /// assert_eq!(queue.len(), 3);
            /// # Ok(())
            /// # }
            /// ```
            pub fn put_many(
                &self,
                items: impl IntoIterator<Item = T>,
            ) -> Result<(), PutManyError<T>> {
                self.inner.put_many_checked(items, Wait::FOREVER)
            }

            /// Puts the items of an iterator, in order, as long as there is room now.
            ///
            /// The steps are those of [`put_many`](Self::put_many). At the first item for which
            /// there is no room, the call ends, and the error contains this item and those after it
            /// that were taken from the iterator.
            ///
            /// # Errors
            ///
            /// As [`try_put`](Self::try_put), with the items that were taken from the iterator and
            /// not put.
            ///
            /// # Examples
            ///
            /// ```
            /// use multiproc_queue::Queue;
            ///
            /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
            /// let queue = Queue::bounded(2)?;
            /// let error = queue.try_put_many([1, 2, 3]).unwrap_err();
            /// assert!(error.error().is_full());
            /// assert_eq!((error.put(), error.into_items()), (2, vec![3]));
            /// # Ok(())
            /// # }
            /// ```
            pub fn try_put_many(
                &self,
                items: impl IntoIterator<Item = T>,
            ) -> Result<(), TryPutManyError<T>> {
                self.inner.put_many_checked(items, Wait::Now)
            }

            /// Puts all items of an iterator, as [`put_many`](Self::put_many), and waits for room
            /// for at most `timeout`.
            ///
            /// The timeout bounds all waits for room together. It does not bound the iterator.
            ///
            /// # Errors
            ///
            /// As [`put_timeout`](Self::put_timeout), with the items that were taken from the
            /// iterator and not put.
            ///
            /// # Examples
            ///
            /// ```
            /// use multiproc_queue::Queue;
            ///
            /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
            /// use std::time::Duration;
            /// let queue = Queue::bounded(2)?;
            /// let refused = queue.put_many_timeout([1, 2, 3], Duration::from_millis(1));
            /// let error = refused.unwrap_err();
            /// assert!(error.error().is_timeout());
            /// assert_eq!(error.into_items(), [3]);
            /// # Ok(())
            /// # }
            /// ```
            pub fn put_many_timeout(
                &self,
                items: impl IntoIterator<Item = T>,
                timeout: Duration,
            ) -> Result<(), PutManyTimeoutError<T>> {
                self.inner.put_many_checked(items, Wait::for_at_most(timeout))
            }

            /// Puts all items of an iterator, as [`put_many`](Self::put_many), and waits for room
            /// until `deadline` at most.
            ///
            /// # Errors
            ///
            /// As [`put_many_timeout`](Self::put_many_timeout).
            pub fn put_many_deadline(
                &self,
                items: impl IntoIterator<Item = T>,
                deadline: Instant,
            ) -> Result<(), PutManyTimeoutError<T>> {
                self.inner.put_many_checked(items, Wait::until(deadline))
            }
        }

        /// Provides the methods that put for types that are not known to implement `Deserialize`.
        impl<T> Deref for $name<T> {
            type Target = Inner<T>;

            #[inline]
            fn deref(&self) -> &Inner<T> {
                &self.inner
            }
        }
    };
}

/// The methods of handles that can get.
macro_rules! gets {
    ($name:ident) => {
        impl<T: DeserializeOwned> $name<T> {
            /// Takes the next item, and waits for one if necessary.
            ///
            /// If other consumers or producers are killed, the call goes on. If no producer is left
            /// and the queue is empty, it fails: at once if the last one was closed, and within a
            /// second if it was killed. If this process is killed inside `get`, it has either taken
            /// the item or not.
            ///
            /// # Errors
            ///
            /// See [`GetError`].
            ///
            /// # Examples
            ///
            /// ```
            /// use multiproc_queue::Queue;
            ///
            /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
            /// let queue = Queue::unbounded()?;
            /// queue.put("item".to_owned())?;
            /// assert_eq!(queue.get()?, "item");
            /// # Ok(())
            /// # }
            /// ```
            #[doc(alias = "recv")]
            #[doc(alias = "dequeue")]
            #[doc(alias = "pop")]
            pub fn get(&self) -> Result<T, GetError> {
                self.inner.get(Wait::FOREVER)
            }

            /// Takes the next item if there is one now.
            ///
            /// # Errors
            ///
            /// [`Empty`](TryGetError::Empty) if there is none. Otherwise as [`get`](Self::get).
            ///
            /// # Examples
            ///
            /// ```
            /// use multiproc_queue::Queue;
            ///
            /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
            /// let queue = Queue::<u32>::unbounded()?;
            /// assert!(queue.try_get().unwrap_err().is_empty());
            /// queue.put(1)?;
            /// assert_eq!(queue.try_get()?, 1);
            /// # Ok(())
            /// # }
            /// ```
            #[doc(alias = "get_nowait")]
            #[doc(alias = "try_recv")]
            pub fn try_get(&self) -> Result<T, TryGetError> {
                self.inner.get(Wait::Now)
            }

            /// Takes the next item, and waits for one for at most `timeout`, which bounds the whole
            /// call.
            ///
            /// If another process is killed, the call behaves as [`get`](Self::get).
            ///
            /// # Errors
            ///
            /// [`Timeout`](GetTimeoutError::Timeout) if there was no item before the timeout.
            /// Otherwise as [`get`](Self::get).
            ///
            /// # Examples
            ///
            /// ```
            /// use multiproc_queue::Queue;
            ///
            /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
            /// use std::time::Duration;
            /// let queue = Queue::<u32>::unbounded()?;
            /// assert!(queue.get_timeout(Duration::from_millis(1)).unwrap_err().is_timeout());
            /// # Ok(())
            /// # }
            /// ```
            pub fn get_timeout(&self, timeout: Duration) -> Result<T, GetTimeoutError> {
                self.inner.get(Wait::for_at_most(timeout))
            }

            /// Takes the next item, and waits for one until `deadline` at most.
            ///
            /// # Errors
            ///
            /// As [`get_timeout`](Self::get_timeout).
            pub fn get_deadline(&self, deadline: Instant) -> Result<T, GetTimeoutError> {
                self.inner.get(Wait::until(deadline))
            }

            /// Takes up to `max` items at once, and waits for the first one if necessary.
            ///
            /// This is faster than getting one by one. But a process that is killed loses all of
            /// them, as if it had been killed after that many calls of `get`. At most 128 items are
            /// returned, and fewer if they are large or contain descriptors. The result is empty
            /// only if `max` is 0.
            ///
            /// # Errors
            ///
            /// As [`get`](Self::get). If some items cannot be decoded, the error contains the
            /// others.
            ///
            /// # Examples
            ///
            /// ```
            /// use multiproc_queue::Queue;
            ///
            /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
            /// let queue = Queue::unbounded()?;
            /// queue.put_many([1, 2, 3])?;
            /// assert_eq!(queue.get_many(2)?, [1, 2]);
            /// assert_eq!(queue.get_many(2)?, [3]);
            /// # Ok(())
            /// # }
            /// ```
            pub fn get_many(&self, max: usize) -> Result<Vec<T>, GetManyError<T>> {
                self.inner.get_many(max, Wait::FOREVER)
            }

            /// Takes up to `max` items that are queued now, as [`get_many`](Self::get_many). If
            /// there are none, the result is empty.
            ///
            /// # Errors
            ///
            /// As [`get_many`](Self::get_many).
            pub fn try_get_many(&self, max: usize) -> Result<Vec<T>, GetManyError<T>> {
                self.inner.get_many(max, Wait::Now)
            }

            /// Takes up to `max` items, as [`get_many`](Self::get_many), and waits for the first
            /// one for at most `timeout`. If there is none by then, the result is empty.
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

            /// Returns an iterator that takes items, and waits for each. It ends when
            /// [`get`](Self::get) fails with `Closed` or `Disconnected`.
            ///
            /// An item that cannot be decoded is an `Err`, and does not end the iteration.
            ///
            /// # Examples
            ///
            /// ```
            /// use multiproc_queue::Queue;
            ///
            /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
            /// let queue = Queue::unbounded()?;
            /// let consumer = queue.consumer();
            /// queue.put_many([1, 2, 3])?;
            /// drop(queue); // nobody else can put
            /// let items = consumer.iter().collect::<Result<Vec<_>, _>>()?;
            /// assert_eq!(items, [1, 2, 3]);
            /// # Ok(())
            /// # }
            /// ```
            pub fn iter(&self) -> Iter<'_, T> {
                Iter::new(&self.inner)
            }

            /// Returns an iterator that takes the queued items, and does not wait. It ends when
            /// [`try_get`](Self::try_get) finds none.
            ///
            /// An item that cannot be decoded is an `Err`, and does not end the iteration.
            ///
            /// # Examples
            ///
            /// ```
            /// use multiproc_queue::Queue;
            ///
            /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
            /// let queue = Queue::unbounded()?;
            /// queue.put_many([1, 2, 3])?;
            /// let items = queue.try_iter().collect::<Result<Vec<_>, _>>()?;
            /// assert_eq!(items, [1, 2, 3]);
            /// # Ok(())
            /// # }
            /// ```
            pub fn try_iter(&self) -> TryIter<'_, T> {
                TryIter::new(&self.inner)
            }
        }
    };
}

/// Implements `Source`: a handle is ready when `get` would not wait, since there is an item or
/// the queue has ended. A process that is woken may still find that another one was faster.
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

            /// A producer that is killed may not have rung the doorbell.
            fn longest_sleep(&self) -> Duration {
                RECHECK
            }
        }
    };
}

pub(crate) use {common, gets, puts, ready_to_get};
